"""An engine of nothing but time: steps cost what a table says, and guesses come true as a script says."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from localinfer.speculation.controller import Controller
from localinfer.speculation.cost import Measured, Part, StepCost
from localinfer.speculation.drafter import Ask, Draft

SLOW_START = {1: 1.0, 2: 1.02, 4: 1.1, 8: 1.5, 16: 2.6, 32: 5.0}
"""Seconds by rows: free at first, then bound by arithmetic."""

Right = Callable[[int, int], bool]
"""`right(step, depth)`: whether the guess so deep would be right in that step."""


@dataclass
class Scripted:
    """A drafter that always guesses `length` tokens and says how sure it is; guessing one deep takes `depth_s`."""

    name: str
    time: "Time"
    length: int = 8
    confidence: float = 0.8
    free: bool = True
    depth_s: float = 0.0
    asked: int = 0

    def propose(self, asks: Sequence[Ask]) -> list[Draft]:
        self.asked += 1
        counts = [min(self.length, ask.most) for ask in asks]
        self.time.now += self.depth_s * max(counts, default=0)
        return [Draft([1] * count, [self.confidence] * count) for count in counts]

    def observe(self, handle: int, guessed: int, accepted: int) -> None:
        assert 0 <= accepted <= guessed

    def forget(self, handle: int) -> None: ...

    def close(self) -> None: ...


@dataclass
class Time:
    """Seconds since the beginning; nothing passes by itself."""

    now: float = 0.0


@dataclass
class Run:
    """What a run of so many steps came to."""

    spent: float = 0.0
    plain: float = 0.0
    tokens: int = 0
    drafted: int = 0
    offs: list[str] = field(default_factory=list)

    @property
    def speedup(self) -> float:
        return self.plain / self.spent


def run(
    right: Right,
    drafters: Sequence[Scripted],
    time: Time,
    *,
    steps: int = 2000,
    texts: int = 1,
    costs: dict[int, float] = SLOW_START,
    noise: float = 0.0,
    prefill: int = 0,
) -> Run:
    """Decode `texts` texts for so many steps; `noise` makes every step so much slower or faster, at random."""
    truth = StepCost(Measured(costs, {}, 0))
    control = Controller(drafters, StepCost(Measured(costs, {}, 0)), most_rows=31, clock=lambda: time.now)
    rng, result = random.Random(5), Run()
    for step in range(steps):
        asks = [Ask(handle, [1], 31, lambda logits, taken: 1) for handle in range(texts)]
        parts = [Part(1, 0)] * texts + ([Part(prefill, 0)] if prefill else [])
        began = time.now
        chains = control.draft(parts, asks, list(range(texts)))
        accepted = []
        for chain in chains:
            count = 0
            while count < len(chain.tokens) and right(step, count):
                count += 1
            accepted.append(count)
            result.drafted += len(chain.tokens)
        rows = sum(part.rows for part in parts)
        seconds = truth.rows(rows + sum(len(chain.tokens) for chain in chains)) * (1 + noise * rng.uniform(-1, 1))
        control.settle(accepted, seconds)
        time.now += seconds
        result.spent += time.now - began
        result.plain += truth.rows(rows) * (1 + sum(accepted) / texts)
        result.tokens += texts + sum(accepted)
        result.offs.append(control.why_off)
    return result
