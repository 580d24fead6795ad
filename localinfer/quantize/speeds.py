"""How fast this machine does the parts of quantizing: some short measurements, before a limit of time is planned."""

import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from localinfer import native
from localinfer.quantize.scales import round_rows

FIT_ROWS, FIT_COLUMNS, GROUP = 32, 64, 32
"""The matrix that is fitted to see how long that takes."""

SIDE = 512
"""Of the square matrices that are multiplied."""

OFTEN = 5
"""The best of so many counts: a busy machine makes a part slower, and nothing makes it faster than it is."""

REACHED = 0.15
"""Multiply-adds of a text that is read for each int8 operation that the processor could do; INT4 reaches three times
that, weights of 16 bits about this (docs/perf)."""

Clock = Callable[[], float]


@dataclass(frozen=True, slots=True)
class Speeds:
    """What is done a second. `multiply` and `fit_s` are 0 where torch is not asked."""

    hashing: float
    """Bytes read, hashed or written."""
    rounding: float
    """Weights rounded to the nearest, by all workers."""
    kernels: float
    """Multiply-adds of our own kernels, as a model reads a text."""
    multiply: float = 0.0
    """Multiply-adds of float32 matrices in torch."""
    fit_s: float = 0.0
    """Seconds of `gptq.fit` for 32 rows of 64 columns."""


def measure_speeds(workers: int, *, torch: bool, clock: Clock = time.perf_counter) -> Speeds:
    """Measure with `workers` threads; what torch does only if asked, since loading it takes seconds."""
    rng = np.random.default_rng(0)
    data = rng.bytes(1 << 22)
    hashing = len(data) / _best(lambda: hashlib.sha256(data).digest(), clock)
    rows = rng.standard_normal((64, 1024)).astype(np.float32)
    rounding = workers**0.8 * rows.size / _best(lambda: round_rows(rows, 4, GROUP), clock)
    kernels = REACHED * native.int8_peak("", workers)
    return Speeds(hashing, rounding, kernels, *(_of_torch(workers, clock) if torch else (0.0, 0.0)))


def _of_torch(workers: int, clock: Clock) -> tuple[float, float]:
    import torch

    from localinfer.quantize.calibrated import threads
    from localinfer.quantize.gptq import fit

    with threads(workers):
        square = torch.randn(SIDE, SIDE, generator=torch.Generator().manual_seed(0))
        torch.mm(square, square)  # the first one wakes the threads
        multiply = SIDE**3 / _best(lambda: torch.mm(square, square), clock)
        weights, inputs = square[:FIT_ROWS, :FIT_COLUMNS].contiguous(), square[:, :FIT_COLUMNS]
        moments = inputs.T @ inputs / SIDE
        return multiply, _best(lambda: fit(weights, moments, 4, GROUP), clock, often=1)


def _best(call: Callable[[], object], clock: Clock, often: int = OFTEN) -> float:
    times = []
    for _ in range(often):
        started = clock()
        call()
        times.append(clock() - started)
    return max(min(times), 1e-9)
