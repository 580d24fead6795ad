"""Which of the lines that wait is asked next, so that what several begin with is read once."""

from collections import deque
from collections.abc import Sequence
from typing import Generic, Protocol, TypeVar

from localinfer.config import BLOCK_TOKENS


class Prompted(Protocol):
    """A text that waits or is written: its number, its prompt, and how many tokens of that are in the cache."""

    @property
    def index(self) -> int: ...
    @property
    def prompt(self) -> Sequence[int]: ...

    read: int


One = TypeVar("One", bound=Prompted)


class Ordering(Generic[One]):
    """Looks at the beginnings of prompts, in whole blocks of the cache. Remembers the latest that were read."""

    def __init__(self, parallel: int) -> None:
        self._known = deque[One](maxlen=2 * parallel)
        self._alike: dict[int, dict[int, int]] = {}  # of each line that waits, with each that was asked

    def next(self, waiting: Sequence[One], running: Sequence[One]) -> One | None:
        """The one of `waiting` that has most of its beginning in the cache, of equals the first; none that had more of
        it there if it waited for what one of `running` reads. None if all do better to wait."""
        best, most = None, -1
        for one in waiting:
            here = max((self._blocks(one, other) for other in self._known), default=0)
            soon = 0
            for other in running:
                shared, read = self._blocks(one, other), other.read // BLOCK_TOKENS
                here, soon = max(here, min(shared, read)), max(soon, shared)
            if here >= soon and here > most:
                best, most = one, here
        if best is not None:
            self._alike.pop(best.index, None)
        return best

    def ended(self, one: One) -> None:
        """This one has been read; its beginning may be found for some time."""
        self._known.append(one)

    def _blocks(self, one: One, other: One) -> int:
        found = self._alike.setdefault(one.index, {})
        if other.index not in found:
            found[other.index] = blocks_alike(one.prompt, other.prompt)
        return found[other.index]


def blocks_alike(one: Sequence[int], other: Sequence[int]) -> int:
    """How many whole blocks both begin with."""
    low, high = 0, min(len(one), len(other)) // BLOCK_TOKENS
    while low < high:
        middle = (low + high + 1) // 2
        start, end = low * BLOCK_TOKENS, middle * BLOCK_TOKENS
        if one[start:end] == other[start:end]:
            low = middle
        else:
            high = middle - 1
    return low
