"""How long steps take, for the scheduler: the measurement at load, corrected by every step with a prompt in it."""

from collections.abc import Sequence

from localinfer.engine.step_timing import StepTiming
from localinfer.speculation.cost import Measured, Part, StepCost


class Pace:
    """A `StepTime` of one engine. Chunks have more rows than were measured: what these cost is learned from them."""

    def __init__(self, measured: StepTiming) -> None:
        self._cost = StepCost(Measured(measured.step_s, measured.deep_s, measured.depth))

    def expect(self, parts: Sequence[tuple[int, int]]) -> float:
        return self._cost.seconds([Part(*part) for part in parts])

    def learn(self, parts: Sequence[tuple[int, int]], seconds: float) -> None:
        self._cost.learn([Part(*part) for part in parts], seconds)
