"""A limit on time: as many layers as it allows by the method that was chosen, the others rounded to the nearest."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from localinfer.quantize.plan import Method, Plan

HURRIED = "hurried"
"""Of a journal's entry: there was no time for the method."""


@dataclass(frozen=True, slots=True)
class Expected:
    """What is expected before anything is measured, seconds."""

    layer_s: float = 0.0
    """Of one layer by the method."""
    weight_s: float = 0.0
    """Of one weight rounded to the nearest."""


class Pace:
    """Counts the seconds of a run, and those of earlier runs that it goes on with.

    Rounding to the nearest takes a small part of what a calibrated method takes, so a layer gets the method as long as
    all that is left could still be rounded in time. `seconds` 0: there is no limit. Until a layer and a weight are
    measured, `expected` stands for them.
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
        self._slowest = 0.0
        self._measured = 0.0
        self._left = plan.weights
        self._told = False

    @property
    def _for_a_weight(self) -> float:
        return self._measured or self._expected.weight_s

    @property
    def used(self) -> float:
        """Seconds until now."""
        return self._clock() - self._started

    def pass_by(self, weights: int) -> None:
        """So many weights are done, and it does not matter how."""
        self._left -= weights

    def rounded(self, weights: int, seconds: float) -> None:
        """So many weights were rounded to the nearest."""
        self._left -= weights
        self._measured = max(self._measured, seconds / max(1, weights))

    def fitted(self, weights: int, seconds: float, layers_left: int) -> None:
        """A layer was made by the method; from the first one comes the estimate that is told."""
        self._left -= weights
        self._slowest = max(self._slowest, seconds)
        if self._seconds and not self._told:
            self._told = True
            room = self._seconds - self.used - self._left * self._for_a_weight
            more = min(layers_left, max(0, int(room / self._slowest))) if self._slowest else layers_left
            which = "all" if more == layers_left else f"{more} of the {layers_left}"
            self._say(f"{self._method} takes {seconds:.1f} s a layer: time for {which} layers that are left")

    def too_late(self) -> bool:
        """Whether one more layer by the method would leave too little time for the rest."""
        if not self._seconds:
            return False
        layer = self._slowest or self._expected.layer_s
        return self.used + layer + self._left * self._for_a_weight > self._seconds


def hurried_layers(method: Method, finished: Mapping[str, Mapping[str, Any]], layers: int) -> Sequence[str]:
    """What to say of layers that `method` had no time for; nothing if there are none."""
    count = sum(bool(entry.get(HURRIED)) for entry in finished.values())
    if not count:
        return []
    return [f"the time was up: {count} of {layers} layers rounded to the nearest, the others by {method}"]
