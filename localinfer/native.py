"""The typed door to the native engine: packed weights, the program that runs them, sampling, machine probes.

Nothing else imports `_native`. Kernel functions (`rms_norm`, `linear_i4`, …) are for their tests and stay in there.
"""

import os
from pathlib import Path

from localinfer.errors import LocalInferError, NotSupported, UsageError

try:
    from localinfer import _native
    from localinfer._native import (
        CudaUnusable,
        Weight,
        cpu,
        cuda_cards,
        cuda_compiler,
        cuda_facts,
        cuda_sources_hash,
        kv_block_bytes,
        linear_seconds,
        pack_affine,
        pack_bf16,
        pack_files,
        pack_int,
        pack_mxfp4,
        packed_bytes,
        physical_cores,
        read_bandwidth,
        sample,
        supported_isas,
        use_cuda,
    )
except ImportError as error:  # not built, or of another Python or an older localinfer
    raise LocalInferError(
        f"the native engine cannot be loaded: {error}", hint="build it with `pip install -e .` (needs a C++ compiler)"
    ) from error

__all__ = [
    "ISAS",
    "CudaUnusable",
    "Program",
    "Weight",
    "choose_isa",
    "cpu",
    "cuda_cards",
    "cuda_compiler",
    "cuda_facts",
    "cuda_sources_hash",
    "extension_file",
    "int8_peak",
    "kv_block_bytes",
    "linear_seconds",
    "pack_affine",
    "pack_bf16",
    "pack_files",
    "pack_int",
    "pack_mxfp4",
    "packed_bytes",
    "physical_cores",
    "read_bandwidth",
    "sample",
    "supported_isas",
    "use_cuda",
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


def int8_peak(isa: str = "", threads: int = 0) -> float:
    """Integer operations a second that the instructions give when memory does not count, a product with its sum counted
    as two; `threads` 0 is one a physical core.
    """
    return _native.int8_peak(choose_isa(isa), threads)
