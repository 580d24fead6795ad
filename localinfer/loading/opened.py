"""What opening a model gives."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from localinfer.hub.model import LocalModel

if TYPE_CHECKING:
    from localinfer.engine.protocol import Engine


@dataclass(frozen=True, slots=True)
class Opened:
    """An engine that is ready, and what it took."""

    engine: "Engine"
    model: LocalModel
    load_s: float
    """Seconds from the weights' first byte to ready; from the question to the answer where a server had it open."""
    elsewhere: bool = False
    """Whether a server runs it."""
