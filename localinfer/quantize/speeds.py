"""How fast this machine does the parts of quantizing: some short measurements, before a limit of time is planned.

All workers are busy at once for a moment. The time of the processors that they get in it, beside the time that passes,
is the share that other programs leave; every speed is that of a machine of our own, times that share.
"""

import hashlib
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from localinfer import native
from localinfer.quantize.scales import round_rows

FIT_ROWS, FIT_COLUMNS, GROUP = 32, 64, 32
"""The matrix that is fitted to see how long that takes."""

SIDE, SMALL_SIDE, SMALL_OFTEN = 512, 64, 100
"""Of the square matrices that are multiplied; small ones, often, where a library would take more threads."""

TOGETHER = 0.8
"""So many threads do that many times as much as one, to this power."""

BUSY_S, MOST_CALLS = 0.25, 200
"""The moment in which all workers are busy, long enough for processors to be dealt out anew; and what ends it too."""

LEAST_SHARE = 0.02

OFTEN = 3
"""The best of so many counts where a speed is measured apart from the share, by the processor's time."""

REACHED = 0.15
"""Multiply-adds of a text that is read for each int8 operation that the processor could do; INT4 reaches three times
that, weights of 16 bits about this (docs/inside/perf)."""


@dataclass(frozen=True, slots=True)
class Speeds:
    """What is done a second, with the share of the processors that other programs leave."""

    hashing: float
    """Bytes read, hashed or written."""
    rounding: float
    """Weights rounded to the nearest, by all workers."""
    kernels: float
    """Multiply-adds of our own kernels, as a model reads a text."""
    multiply: float
    """Multiply-adds of float32 matrices; numpy's where torch is not asked."""
    fit_s: float = 0.0
    """Seconds of `gptq.fit` for 32 rows of 64 columns; 0 where torch is not asked."""
    share: float = 1.0
    """Of the processors' time, from 0 to 1."""


def measure_speeds(workers: int, *, torch: bool) -> Speeds:
    """Measure with `workers` threads; what torch does only if asked, since loading it takes seconds."""
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((64, 1024)).astype(np.float32)
    calls, share = busy(workers, lambda: round_rows(rows, 4, GROUP))
    data = rng.bytes(1 << 22)
    hashing = share * len(data) / _best(lambda: hashlib.sha256(data).digest())
    kernels = share * REACHED * native.int8_peak("", workers)
    multiply, fit_s = _of_torch() if torch else (_of_numpy(rng), 0.0)
    multiply *= share * workers**TOGETHER
    return Speeds(hashing, calls * rows.size, kernels, multiply, fit_s / share, share)


def busy(
    workers: int,
    call: Callable[[], object],
    clock: Callable[[], float] = time.perf_counter,
    processor: Callable[[], float] = time.thread_time,
) -> tuple[float, float]:
    """How often `workers` threads do `call` a second, all together, and the share of the processors that they get."""
    call()  # the first time takes longer
    started = clock()

    def work() -> tuple[int, float]:
        begun, done = processor(), 0
        while done == 0 or (done < MOST_CALLS and clock() - started < BUSY_S):
            call()
            done += 1
        return done, processor() - begun

    with ThreadPoolExecutor(workers) as pool:
        found = [task.result() for task in [pool.submit(work) for _ in range(workers)]]
    passed = max(clock() - started, 1e-9)
    used = sum(seconds for _, seconds in found) / (workers * passed)
    return sum(done for done, _ in found) / passed, min(1.0, max(LEAST_SHARE, used))


def _of_numpy(rng: np.random.Generator) -> float:
    square = rng.standard_normal((SMALL_SIDE, SMALL_SIDE)).astype(np.float32)
    return SMALL_OFTEN * SMALL_SIDE**3 / _best(lambda: [square @ square for _ in range(SMALL_OFTEN)])


def _of_torch() -> tuple[float, float]:
    """By one thread."""
    import torch

    from localinfer.quantize.gptq import fit
    from localinfer.quantize.torch_threads import threads

    with threads(1):
        square = torch.randn(SIDE, SIDE, generator=torch.Generator().manual_seed(0))
        multiply = SIDE**3 / _best(lambda: torch.mm(square, square))
        weights, inputs = square[:FIT_ROWS, :FIT_COLUMNS].contiguous(), square[:, :FIT_COLUMNS]
        moments = inputs.T @ inputs / SIDE
        return multiply, _best(lambda: fit(weights, moments, 4, GROUP))


def _best(call: Callable[[], object]) -> float:
    """Seconds of a processor that a call in this thread takes; the first one only wakes what it needs."""
    call()
    times = []
    for _ in range(OFTEN):
        started = time.thread_time()
        call()
        times.append(time.thread_time() - started)
    return max(min(times), 1e-9)
