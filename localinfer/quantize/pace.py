"""A limit on time: as many layers as it allows by the method that was chosen, the others rounded to the nearest."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from localinfer.quantize.plan import Method, Plan
from localinfer.quantize.scales import HASTY

HURRIED = "hurried"
"""Of a journal's entry: there was no time for the method."""

HASTE = "haste"
"""Of a journal's entry: a part was rounded with few trials."""


ENOUGH = 1 << 21
"""Weights from which on rounding tells how fast it is."""

SLACK = 1.2
"""What is still to be rounded is counted so many times: files are hashed and made durable, too."""


class TooLate(Exception):
    """A layer by a calibrated method was given up, since all the rest must be rounded now."""


@dataclass(frozen=True, slots=True)
class Expected:
    """What is expected before anything is measured, seconds."""

    layer_s: float = 0.0
    """Of one layer by the method."""
    weight_s: float = 0.0
    """Of one weight rounded to the nearest."""
    head_s: float = 0.0
    """Of the head by the method."""


class Pace:
    """Counts the seconds of a run, and those of earlier runs that it goes on with.

    Rounding to the nearest takes a small part of what a calibrated method takes, so a layer gets the method as long as
    all that is left could still be rounded in time, and is given up half-way where that is not so any more; rounding
    itself tries fewer scales where it would be late. `seconds` 0: there is no limit. Until a layer and a weight are
    measured, `expected` stands for them; a machine that gets slower is noticed by what takes longer.
    """

    def __init__(
        self,
        plan: Plan,
        seconds: float,
        finished: Mapping[str, Mapping[str, Any]],
        started: float,
        clock: Callable[[], float],
        say: Callable[[str], None],
        expected: Expected | None = None,
    ) -> None:
        self._method, self._layers = plan.method, plan.layers
        self._seconds, self._clock, self._say = seconds, clock, say
        self._started = started - sum(float(entry.get("seconds", 0)) for entry in finished.values())
        self._expected = expected or Expected()
        self._slowest, self._quickest, self._latest = 0.0, math.inf, 0.0
        self._rounding, self._spent, self._weight_s = 0.0, 0.0, 0.0
        self._left = plan.weights
        self._begun, self._left_then, self._haste_from = self.used, self._left, math.inf
        self._told: set[str] = set()

    @property
    def used(self) -> float:
        """Seconds until now."""
        return self._clock() - self._started

    @property
    def haste(self) -> bool:
        """Whether a part of this file was rounded with few trials."""
        return self._haste_from < math.inf

    def begin(self) -> None:
        """Another file."""
        self._begun, self._left_then, self._haste_from = self.used, self._left, math.inf

    def advance(self, weights: int) -> None:
        """So many weights are done; fewer than none where they are to be done again."""
        self._left -= weights

    def rounded(self) -> None:
        """The file that was begun is finished, rounded to the nearest."""
        weights = self._left_then - self._left
        usual = weights - (min(self._haste_from, self._left_then) - self._left if self.haste else 0)
        work, seconds = usual + HASTY * (weights - usual), self.used - self._begun
        self._rounding, self._spent = self._rounding + work, self._spent + seconds
        self._weight_s = self._spent / max(self._rounding, 1.0)
        if work >= ENOUGH:
            self._weight_s = max(self._weight_s, seconds / work)

    def fitted(self, layers_left: int) -> None:
        """The file that was begun is a layer made by the method; the first one gives the estimate that is told."""
        self._latest = seconds = self.used - self._begun
        self._slowest, self._quickest = max(self._slowest, seconds), min(self._quickest, seconds)
        if self._seconds and self._tell_once(self._method):
            room = self._seconds - self.used - self._rest()
            more = min(layers_left, max(0, int(room / self._slowest))) if self._slowest else layers_left
            which = "all" if more == layers_left else f"{more} of the {layers_left}"
            self._say(f"{self._method} takes {seconds:.1f} s a layer: time for {which} layers that are left")

    def too_late(self) -> bool:
        """Whether one more layer by the method would leave too little time for the rest."""
        layer = self._slowest or self._expected.layer_s
        return bool(self._seconds) and self.used + layer + self._rest() > self._seconds

    def require_time(self) -> None:
        """Raise `TooLate` where what is left, this layer included, can only just be rounded in time; that it could be
        rounded in haste is kept for what nobody foresees."""
        given_back = self._left_then - self._left
        if self._seconds and self.used + SLACK * self._rest(given_back) > self._seconds:
            raise TooLate

    def in_haste(self) -> bool:
        """Whether rounding as usual would take too long, as far as is known by now; true for the rest of a file."""
        if self._seconds and not self.haste:
            done = self._left_then - self._left
            now = (self.used - self._begun) / max(done, ENOUGH)
            if self.used + SLACK * max(self._rest(), now * self._left) > self._seconds:
                self._haste_from = self._left
                if self._tell_once("haste"):
                    self._say("rounding tries fewer scales from here on, to be in time")
        return self.haste

    def _rest(self, more: int = 0) -> float:
        """Seconds of rounding all that is left, and `more` weights; slower by as much as layers have become."""
        slower = max(1.0, self._latest / self._quickest) if self._quickest > 0 else 1.0
        return (self._left + more) * (self._weight_s or self._expected.weight_s) * slower

    def _tell_once(self, what: str) -> bool:
        new = what not in self._told
        self._told.add(what)
        return new


def hurried(method: Method, finished: Mapping[str, Mapping[str, Any]], layers: int) -> list[str]:
    """What to say of layers that `method` had no time for, and of files rounded with few trials; nothing without."""
    count, hasty = (sum(bool(entry.get(what)) for entry in finished.values()) for what in (HURRIED, HASTE))
    said = [f"the time was up: {count} of {layers} layers rounded to the nearest, the others by {method}"] * (count > 0)
    fewer = f"the time was short: {hasty} of {len(finished)} files rounded with fewer trial scales, or a part of them"
    return [*said, *([fewer] if hasty else [])]
