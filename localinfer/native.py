"""The typed door to the native engine: packed weights, the program that runs them, sampling, machine probes.

Nothing else imports `_native`. Kernel functions (`rms_norm`, `linear_i4`, …) are for their tests and stay in there.
"""

import os
from pathlib import Path
from typing import TYPE_CHECKING

from localinfer.errors import LocalInferError, NotSupported, UsageError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float32]

try:
    from localinfer import _native
    from localinfer._native import (
        CudaUnusable,
        ExpertPool,
        RowFile,
        Weight,
        all_finite,
        cpu,
        cuda_cards,
        cuda_compiler,
        cuda_facts,
        cuda_sources_hash,
        hold,
        kv_block_bytes,
        linear_seconds,
        open_rows,
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
    "ExpertPool",
    "Program",
    "RowFile",
    "Weight",
    "all_finite",
    "choose_isa",
    "cpu",
    "cuda_cards",
    "cuda_compiler",
    "cuda_facts",
    "cuda_sources_hash",
    "extension_file",
    "group_scales",
    "hold",
    "int8_peak",
    "kv_block_bytes",
    "linear_seconds",
    "open_rows",
    "pack_affine",
    "pack_bf16",
    "pack_files",
    "pack_int",
    "pack_mxfp4",
    "packed_bytes",
    "physical_cores",
    "read_bandwidth",
    "round_again",
    "round_forward",
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


def group_scales(scale: "Floats", weights: "Floats", share: "Floats", trials: "Floats", bits: int) -> None:
    """scale [n] becomes the best signed scales of groups that stand side by side, `weights` [group, n].

    `share` [group, n or 1] weighs squared errors; `trials` are inverses of shares of the scale that the largest weight
    asks for.
    """
    _native.group_scales(scale, weights, share, trials, bits, isa=choose_isa())


def round_forward(
    integers: "Floats", off: "Floats", weights: "Floats", scale: "Floats", left: "Floats", bits: int
) -> None:
    """Round groups side by side [group, n], row by row; later rows take up `left` [group, group] of what is `off`."""
    _native.round_forward(integers, off, weights, scale, left, bits, isa=choose_isa())


def round_again(integers: "Floats", slopes: "Floats", scale: "Floats", inner: "Floats", bits: int) -> None:
    """Change integers side by side [group, n], row by row, to the best ones given all others.

    `slopes` [group, n] are those of half the squared error, turned round; `inner` [group, group] the second moments.
    """
    _native.round_again(integers, slopes, scale, inner, bits, isa=choose_isa())
