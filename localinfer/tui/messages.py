"""What the worker threads tell the screen and its panes. They post; they never paint."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from textual.message import Message

from localinfer.errors import LocalInferError

if TYPE_CHECKING:
    from localinfer.engine.protocol import Engine


@dataclass
class LoadMoved(Message, bubble=False):
    """Opening the engine of `model` moved on: `done` of `total` of one stage."""

    model: str
    stage: str
    done: int
    total: int


@dataclass
class Loaded(Message, bubble=False):
    """The engine is open."""

    model: str
    engine: "Engine"


@dataclass
class LoadFailed(Message, bubble=False):
    """The engine could not be opened."""

    model: str
    error: LocalInferError


@dataclass
class EngineSaid(Message, bubble=False):
    """There is something in the pane's inbox."""
