"""How fast a run goes and what is left of it in seconds, told file by file; before anything is measured, by estimate.

Files of layers that a method calibrates take many times what others take, so weights alone say little about the end.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from localinfer.events import Speed
from localinfer.quantize.pace import Expected

Kind = Literal["rounded", "fitted", "again", "head"]
"""Of a file: rounded to the nearest, a layer or a head by a method that calibrates, or a layer that was finished before
and is only gone over again."""

UNIT = "weights"

AGAIN = 0.3
"""Time that going over a finished layer takes, as a share of fitting it, before one was gone over."""


@dataclass(slots=True)
class _Seen:
    """What files of one kind took."""

    weights: int = 0
    seconds: float = 0.0
    expected: float = 0.0


class Forecast:
    """Of files with `weights` each, of `kinds`; `expected` tells what they take until one of a kind is finished."""

    def __init__(
        self,
        weights: Sequence[int],
        kinds: Sequence[Kind],
        expected: Expected | None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._weights, self._kinds, self._clock = list(weights), list(kinds), clock
        self._expected = expected
        self._seen: dict[Kind, _Seen] = {kind: _Seen() for kind in get_args(Kind)}
        self._file, self._begun, self._done = 0, clock(), 0

    def begin(self, file: int, kind: Kind | None = None) -> None:
        """File number `file` begins; of another `kind` than was thought, and so are those like it that follow."""
        if kind is not None and kind != self._kinds[file]:
            before = self._kinds[file]
            self._kinds[file:] = [kind if one == before else one for one in self._kinds[file:]]
        self._file, self._begun, self._done = file, self._clock(), 0

    def advance(self, weights: int) -> None:
        """So many more weights of the file are done; fewer than none where they are to be done again."""
        self._done += weights

    def end(self) -> None:
        """The file is finished."""
        seen = self._seen[self._kinds[self._file]]
        seen.expected += self._prior(self._file)
        seen.weights += self._weights[self._file]
        seen.seconds += self._clock() - self._begun
        self._file, self._begun, self._done = self._file + 1, self._clock(), 0

    @property
    def speed(self) -> Speed:
        """Weights a second of files of this kind, and the seconds to the end; None before that can be told."""
        if self._file >= len(self._weights):
            return Speed(0.0, 0.0, UNIT)
        seen, used = self._seen[self._kinds[self._file]], self._clock() - self._begun
        seconds = seen.seconds + used
        rate = (seen.weights + self._done) / seconds if seconds > 0 else 0.0
        later = [self._of(file) for file in range(self._file + 1, len(self._weights))]
        now = self._of(self._file)
        if now is None or None in later:
            return Speed(rate, None, UNIT)
        undone = 1 - self._done / max(1, self._weights[self._file])
        left = max(now - used, now * undone * AGAIN) + sum(one for one in later if one is not None)
        return Speed(rate, left, UNIT)

    def _of(self, file: int) -> float | None:
        """Seconds of a whole file."""
        seen = self._seen[self._kinds[file]]
        if seen.weights:
            return seen.seconds / seen.weights * self._weights[file]
        if self._expected is None:
            return None
        all_seen = self._seen.values()
        was, thought = sum(one.seconds for one in all_seen), sum(one.expected for one in all_seen)
        return self._prior(file) * (max(0.5, min(4.0, was / thought)) if thought > 1 else 1.0)

    def _prior(self, file: int) -> float:
        """As was expected."""
        if self._expected is None:
            return 0.0
        if self._kinds[file] == "rounded":
            return self._expected.weight_s * self._weights[file]
        if self._kinds[file] == "head":
            return self._expected.head_s
        return self._expected.layer_s * (AGAIN if self._kinds[file] == "again" else 1)
