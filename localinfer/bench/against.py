"""Several engines on the same tests, taking turns: A B A B, so that a slow minute of the machine hits all of them."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from localinfer.bench.measure import Clock, Sample, measure
from localinfer.bench.plan import BenchTest
from localinfer.bench.rows import BenchRow, Contender, make_row
from localinfer.config import EngineConfig
from localinfer.cost.energy import EnergyMeter
from localinfer.cost.prices import USD_PER_KWH
from localinfer.cost.roofline import gguf_traffic
from localinfer.engine.opening import open_engine
from localinfer.engine.protocol import Engine
from localinfer.errors import DoesNotFit

OnProgress = Callable[[str, int, int], None]
"""Called with what runs, repetitions done, and how many there are."""


@dataclass(frozen=True, slots=True)
class Runner:
    """An open engine and how it is called in the table."""

    engine: Engine
    who: Contender


def run_tests(
    runners: Sequence[Runner],
    tests: Sequence[BenchTest],
    *,
    repetitions: int = 5,
    seed: int = 0,
    bandwidth: float | None = None,
    meter: EnergyMeter | None = None,
    usd_per_kwh: float = USD_PER_KWH,
    on_progress: OnProgress | None = None,
    clock: Clock = time.perf_counter,
) -> list[list[BenchRow]]:
    """The rows of each runner, in the order of `tests`. Each test is run once more, untimed, to warm up.

    `bandwidth`: bytes a second the memory gives, for the shares. Raises `UsageError` when a context is too short.
    """
    tell = on_progress or (lambda what, done, total: None)
    total = len(tests) * len(runners) * (repetitions + 1)
    done = 0
    rows: list[list[BenchRow]] = [[] for _ in runners]
    for test in tests:
        samples: list[list[Sample]] = [[] for _ in runners]
        for repetition in range(-1, repetitions):  # -1 warms up
            for runner, kept in zip(runners, samples, strict=True):
                tell(f"{test.name} {runner.who.info.backend}", done, total)
                sample = measure(runner.engine, test, repetition, seed, clock, meter)
                done += 1
                if repetition >= 0:
                    kept.append(sample)
        for runner, kept, mine in zip(runners, samples, rows, strict=True):
            mine.append(make_row(test, runner.who, kept, bandwidth, usd_per_kwh))
    tell("done", total, total)
    return rows


def open_llamacpp(path: Path, config: EngineConfig, *, seed: int = 0, clock: Clock = time.perf_counter) -> Runner:
    """llama.cpp on the GGUF file `path` at our context and threads, at its best: both kinds of KV cache are tried.

    Flash attention is on and weights are repacked for this processor, as llama.cpp does by itself.
    Raises `NotSupported` when llama-cpp-python is not installed or does not know the model.
    """
    pilot = BenchTest(0, 16)
    best: Runner | None = None
    best_speed = 0.0
    for bits in (16, 8):
        settings = replace(config, kv_bits=bits, draft="off")
        try:
            engine = open_engine(path, settings, backend="llamacpp", name=path.name)
        except DoesNotFit:
            if best is None:
                raise
            continue  # llama.cpp has 8-bit keys for head sizes of whole 32s only
        speed = max(measure(engine, pilot, i, seed, clock, None).tok_s for i in range(3))
        if best is not None and speed <= best_speed:
            engine.close()
            continue
        if best is not None:
            best.engine.close()
        words = f"flash attention, {'f16' if bits == 16 else 'q8_0'} KV (the faster), repacked weights"
        best, best_speed = Runner(engine, Contender(engine.info, "off", gguf_traffic(path, bits), words)), speed
    assert best is not None
    return best
