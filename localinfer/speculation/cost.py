"""Seconds of a step, by its rows and by how much context they attend to; measured at load, corrected as it goes."""

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

FOLLOW = 0.1
"""How much of what a step took beyond the estimate goes into the next one."""

MOST_SURPRISE = 1.25
"""A step that took longer than this many times the estimate, or shorter by as much, counts as this much: a core that
was taken away for once says nothing."""


@dataclass(frozen=True, slots=True)
class Part:
    """The rows of one text in a step."""

    rows: int
    context: int
    """Tokens before them."""


@dataclass(frozen=True, slots=True)
class Measured:
    """Seconds of a step by rows, of one text: after no context, and after `depth` tokens (empty: not measured)."""

    flat: Mapping[int, float]
    deep: Mapping[int, float]
    depth: int


class StepCost:
    """Estimates `seconds` of a step, and is told what steps took.

    A step costs what its rows cost without context, and for each text its context times a price that depends on that
    text's rows. Both come from measurements of single rows to some tens; between these it goes straight, and beyond
    them as the last two say. What steps really take corrects the first part, for each number of rows by itself, and
    also tells how fast the machine is as a whole now.
    """

    def __init__(self, measured: Measured) -> None:
        self._flat = sorted(measured.flat.items())
        self._deep = [
            (rows, max(0.0, seconds - _along(self._flat, rows)) / measured.depth)
            for rows, seconds in sorted(measured.deep.items())
        ] or [(1, 0.0)]
        self._pace = self._beyond = 1.0
        self._bends = [1.0] * len(self._flat)
        self._known: dict[int, float] = {}
        self._prices: dict[int, float] = {}

    def rows(self, rows: int) -> float:
        """Seconds of a step of so many rows without context."""
        if rows not in self._known:
            most = self._flat[-1][0]
            points = [(n, seconds * bend) for (n, seconds), bend in zip(self._flat, self._bends, strict=True)]
            known = _along(points, min(rows, most))
            self._known[rows] = known + self._beyond * max(0.0, _along(points, rows) - known if rows > most else 0.0)
        return self._pace * self._known[rows]

    def context(self, part: Part) -> float:
        """Seconds that the context of one text adds."""
        if part.rows not in self._prices:
            self._prices[part.rows] = _along(self._deep, part.rows)
        return self._pace * part.context * self._prices[part.rows]

    def seconds(self, parts: Sequence[Part]) -> float:
        """What a step of these parts is likely to take."""
        return self.rows(sum(part.rows for part in parts)) + sum(map(self.context, parts))

    def learn(self, parts: Sequence[Part], seconds: float) -> None:
        """A step of these parts took so long. Steps of more rows than were measured say what rows beyond these cost."""
        rows = sum(part.rows for part in parts)
        if rows < 1:
            return
        surprise = min(MOST_SURPRISE, max(1 / MOST_SURPRISE, seconds / self.seconds(parts)))
        change = 1 + FOLLOW * (surprise - 1)
        if rows > self._flat[-1][0]:
            self._beyond *= change
            self._known.clear()
        elif rows == self._flat[0][0]:
            self._pace *= change
        else:
            nearest = min(range(len(self._flat)), key=lambda i: abs(self._flat[i][0] - rows))
            self._bends[nearest] *= change
            self._known.clear()


def _along(points: Sequence[tuple[int, float]], x: int) -> float:
    """The value at `x` on the line through `points`, ascending, which goes straight on past its ends, but not below 0.
    One point alone: in proportion."""
    if len(points) == 1:
        only, value = points[0]
        return value * x / only
    at = min(max(bisect_left(points, (x,)), 1), len(points) - 1)
    (x0, y0), (x1, y1) = points[at - 1], points[at]
    return max(0.0, y0 + (y1 - y0) * (x - x0) / (x1 - x0))
