"""NVIDIA cards: which one can serve, and how a program moves there."""

import os
import site
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from localinfer import native
from localinfer.errors import DoesNotFit, NotSupported, size
from localinfer.paths import cuda_dir

WHEELS = ("nvidia/cuda_nvrtc/lib", "nvidia/cu12/lib", "nvidia/cu13/lib")
"""Where packages of NVIDIA's runtime compiler keep it, below `site-packages`."""

ON_CPU = "run on the processor with `--backend cpu`"


@dataclass(frozen=True, slots=True)
class Card:
    """One card, as its driver describes it."""

    number: int
    name: str
    uuid: str
    sm: int
    """Compute capability: 86 is 8.6."""
    multiprocessors: int
    total_bytes: int
    peak_gb_s: float
    """What its memory could give, by clock and width; 0 where the driver does not say."""
    driver: int
    """The newest CUDA that the driver knows: 12090 is 12.9."""

    @property
    def kernels(self) -> str:
        """The kernel set, as `Program.isa` names it on this card."""
        return f"sm_{self.sm}"

    def __str__(self) -> str:
        return f"{self.name} (compute capability {self.sm / 10:.1f}, {size(self.total_bytes)})"


def find_card(number: int = 0) -> Card:
    """The card, if the driver is there and knows it. Raises `NotSupported`, whose hint is what to do."""
    return next((card for card in cards() if card.number == number), None) or _no_card(number)


def cards() -> list[Card]:
    """All cards, the driver's order. Raises `NotSupported` without a driver that works."""
    try:
        found = native.cuda_cards()
    except native.CudaUnusable as error:
        raise unusable(error) from None
    return [Card(number, **facts, driver=found["version"]) for number, facts in enumerate(found["cards"])]


def move(program: native.Program, card: Card) -> str:
    """Take `program` to the card; gives what a person should know of it, or nothing.

    Raises `NotSupported` without a compiler, or when the card cannot run the program, `DoesNotFit` when its memory, or
    the host's, is too small.
    """
    graphs = os.environ.get("LOCALINFER_CUDA_GRAPHS") != "0"
    try:
        return native.use_cuda(program, card.number, str(cuda_dir()), list(libraries()), graphs)
    except native.CudaUnusable as error:
        raise unusable(error) from None
    except MemoryError as error:
        raise DoesNotFit(
            f"not enough memory on the way to {card}: {error}",
            hint="close a program, use a smaller model, or `--backend cpu`",
        ) from error


def compiler(driver: int) -> tuple[str, list[str]]:
    """NVIDIA's runtime compiler that will be taken, and where it is looked for, in order. Raises `NotSupported`."""
    try:
        return native.cuda_compiler(list(libraries()), driver)
    except native.CudaUnusable as error:
        raise unusable(error) from None


def libraries() -> Iterator[str]:
    """Folders of installed packages that may hold NVIDIA's runtime compiler, ours first."""
    roots = [*sys.path, *site.getsitepackages(), site.getusersitepackages()]
    for wheel in WHEELS:
        for root in dict.fromkeys(roots):
            if root and (folder := Path(root) / wheel).is_dir():
                yield str(folder)


def unusable(error: native.CudaUnusable) -> NotSupported:
    """As an error for people: the native message is the reason and, on the next line, what to do."""
    reason, _, hint = str(error).partition("\n")
    return NotSupported(reason, hint=hint or None)


def _no_card(number: int) -> Card:
    raise NotSupported(
        f"there is no NVIDIA card {number} here",
        hint=f"see whether `nvidia-smi` finds it, or {ON_CPU}",
    )
