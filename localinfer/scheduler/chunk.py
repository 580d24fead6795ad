"""How many prompt tokens a step reads: as many as the others' latency goal leaves time for."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

LEAST_ROWS = 8
"""Prompt tokens that a step reads in any case, or no prompt would ever end on a slow machine."""

SLACK = 1.25
"""Where decoding alone takes longer than the goal, a step with prompt tokens may take this many times as long."""

_SIZES = (8, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048, 3072, 4096)


class StepTime(Protocol):
    """What a step is likely to take, by the (rows, tokens before them) of each text in it; told what steps took."""

    def expect(self, parts: Sequence[tuple[int, int]], /) -> float: ...
    def learn(self, parts: Sequence[tuple[int, int]], seconds: float, /) -> None: ...


@dataclass(frozen=True, slots=True)
class ChunkRule:
    """At most `most` prompt tokens a step; with `time`, fewer while somebody decodes, so that a step takes `goal_s`."""

    most: int
    goal_s: float = 0.12
    time: StepTime | None = None

    def limit_s(self, decoding: Sequence[tuple[int, int]]) -> float:
        """Seconds that a step with these decoding parts may take."""
        assert self.time is not None
        least = self.time.expect([*decoding, (LEAST_ROWS, 0)])
        return max(self.goal_s, SLACK * self.time.expect(decoding), least)

    def rows(self, decoding: Sequence[tuple[int, int]], context: int) -> int:
        """Prompt tokens, after `context` others, that a step with these decoding parts takes in."""
        if self.time is None or not decoding:
            return self.most
        limit, chosen = self.limit_s(decoding), min(LEAST_ROWS, self.most)
        for rows in _SIZES:
            if rows > self.most or (rows > chosen and self.time.expect([*decoding, (rows, context)]) > limit):
                break
            chosen = max(chosen, rows)
        return chosen
