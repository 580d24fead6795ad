"""Several engines on the same tests, taking turns: A B A B, so that a slow minute of the machine hits all of them."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from localinfer.bench.measure import Clock, Sample, measure
from localinfer.bench.plan import BenchTest
from localinfer.bench.rows import BenchRow, Contender, make_row
from localinfer.cost.energy import Meter, source_of
from localinfer.cost.prices import USUAL, Tariff
from localinfer.engine.protocol import Engine
from localinfer.events import OnProgress


@dataclass(frozen=True, slots=True)
class Runner:
    """An open engine and how it is called in the table."""

    engine: Engine
    who: Contender


def run_tests(
    tests: Sequence[BenchTest],
    runners: Mapping[str, Sequence[Runner]],
    *,
    repetitions: int = 5,
    seed: int = 0,
    bandwidth: float | None = None,
    meter: Meter | None = None,
    tariff: Tariff = USUAL,
    on_progress: OnProgress | None = None,
    clock: Clock = time.perf_counter,
) -> list[list[BenchRow]]:
    """For each test the rows of its `runners`, by the test's name, in order. Each runs once more, untimed, to warm up.

    `bandwidth`: bytes a second the memory gives, for the shares. Raises `UsageError` when a context is too short.
    """
    tell = on_progress or (lambda what, done, total: None)
    turns = [(test, runners[test.name]) for test in tests]
    total = sum(len(contenders) for _, contenders in turns) * (repetitions + 1)
    done = 0
    rows: list[list[BenchRow]] = []
    for test, contenders in turns:
        samples: list[list[Sample]] = [[] for _ in contenders]
        for repetition in range(-1, repetitions):  # -1 warms up
            for runner, taken in zip(contenders, samples, strict=True):
                tell(f"{test.name} {runner.who.info.backend}", done, total)
                sample = measure(runner.engine, test, repetition, seed, clock, meter)
                done += 1
                if repetition >= 0:
                    taken.append(sample)
        rows.append(
            [
                make_row(test, runner.who, taken, bandwidth, tariff, source_of(meter))
                for runner, taken in zip(contenders, samples, strict=True)
            ]
        )
    tell("done", total, total)
    return rows
