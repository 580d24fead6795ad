"""The typed door to the native engine: packed weights, the program that runs them, sampling, machine probes.

Nothing else imports `_native`. Kernel functions (`rms_norm`, `linear_i4`, …) are for their tests and stay in there.
"""

import os
import time
from pathlib import Path

from localinfer.errors import LocalInferError, NotSupported, UsageError

try:
    from localinfer import _native
except ImportError as error:  # not built, or built for another Python
    raise LocalInferError(
        f"the native engine cannot be loaded: {error}", hint="build it with `pip install -e .` (needs a C++ compiler)"
    ) from error

from localinfer._native import (
    Weight,
    cpu,
    pack_bf16,
    pack_files,
    pack_int,
    physical_cores,
    read_bandwidth,
    sample,
    supported_isas,
)

__all__ = [
    "ISAS",
    "Program",
    "Weight",
    "choose_isa",
    "cpu",
    "extension_file",
    "int8_speed",
    "pack_bf16",
    "pack_files",
    "pack_int",
    "physical_cores",
    "read_bandwidth",
    "sample",
    "supported_isas",
]

ISAS = ("scalar", "avx2", "avxvnni", "avx512", "neon", "neon_i8mm")
"""Every kernel set there is, an architecture's slowest first; `supported_isas()` are those this machine runs."""


def choose_isa(isa: str = "") -> str:
    """The kernel set to run: `isa` if given, else `LOCALINFER_ISA`, else the best one here.

    Raises `UsageError` on a name that does not exist, `NotSupported` on one that this machine cannot run.
    """
    wanted = isa or os.environ.get("LOCALINFER_ISA", "")
    runs = supported_isas()
    if not wanted:
        return runs[-1]
    said = "--isa" if isa else "LOCALINFER_ISA"
    hint = f"choose one of {', '.join(runs)}"
    if wanted not in ISAS:
        raise UsageError(f"{said} is {wanted!r}, but must be one of {', '.join(ISAS)}", hint=hint)
    if wanted not in runs:
        raise NotSupported(f"this processor cannot run the kernel set {wanted}", hint=hint)
    return wanted


def extension_file() -> Path:
    """The compiled kernels that are loaded."""
    return Path(str(_native.__file__))


class Program(_native.Program):
    """One model and the threads that run it; see `_native.Program` for its methods.

    `threads` 0 is one a physical core; `isa` goes through `choose_isa`; `max_rows` rows are computed at once.
    """

    def __init__(self, hidden: int, threads: int = 0, isa: str = "", max_rows: int = 256) -> None:
        super().__init__(hidden, threads, choose_isa(isa), max_rows)


def int8_speed(isa: str = "") -> float:
    """Integer operations a second that one thread does, a product with its sum counted as two; takes some milliseconds.

    Measured as the INT8 linear kernel on one panel that stays in the cache, best of several tries: what the
    instructions give when memory does not count.
    """
    import numpy as np

    rows, cols, group, lanes = 96, 1024, 128, 32
    nbytes = cols // group * lanes * (group + 2)
    room = np.zeros(nbytes + 64, np.uint8)
    panel = room[-room.ctypes.data % 64 :][:nbytes]  # panels begin at a multiple of 64
    out, q = np.empty((rows, lanes), np.float32), np.ones((rows, cols), np.int8)
    scales, sums = np.ones((rows, cols // group), np.float32), np.full((rows, cols // group), group, np.int32)
    best, isa = float("inf"), choose_isa(isa)
    for _ in range(100):
        started = time.perf_counter()
        _native.linear_i8(out, panel, q, scales, sums, isa=isa)
        best = min(best, time.perf_counter() - started)
    return 2 * rows * cols * lanes / best
