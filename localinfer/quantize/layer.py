"""One file of the new model: its tensors read in pieces, rounded on all threads, packed."""

from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from localinfer.errors import Corrupt
from localinfer.formats.compressed import pack
from localinfer.graph.stored import require_finite, widen
from localinfer.quantize.plan import Job
from localinfer.quantize.scales import round_rows, round_trained

PIECE = 1 << 20
"""Weights in one task."""

MOST_NAMED = 8
"""Experts of a layer in one note."""

Stored = dict[str, tuple[str, NDArray[Any]]]


@dataclass(frozen=True, slots=True)
class Made:
    """The tensors of a file; of each matrix the relative error of its weights and of its output; what went wrong."""

    tensors: Stored
    errors: dict[str, float]
    output_errors: dict[str, float]
    notes: tuple[str, ...]


def quantize_unit(
    jobs: tuple[Job, ...], pool: Executor, on_weights: Callable[[int], None], in_haste: Callable[[], bool] = bool
) -> tuple[Stored, dict[str, float]]:
    """The tensors of one file, and the relative error of each quantized one: |w - q s| / |w|, root mean square.

    `on_weights(n)` is called whenever n more weights are done. A piece that begins `in_haste` tries few scales. Raises
    `Corrupt` naming the tensor for NaN, infinity, or weights beyond float16's scales.
    """
    tensors: Stored = {}
    errors: dict[str, float] = {}
    for job in jobs:
        if job.bits:
            errors[job.tensor.name] = _quantize(job, pool, tensors, on_weights, in_haste)
        else:
            tensors[job.tensor.name] = copied(job)
            on_weights(job.weights)
    return tensors, errors


def copied(job: Job) -> tuple[str, NDArray[Any]]:
    """A tensor as it is, if it is finite."""
    values = job.tensor.read()
    if values.dtype.kind == "f" or job.tensor.info.dtype == "BF16":
        require_finite(job.tensor.name, values)
    return job.tensor.info.dtype, values


def stored(job: Job, packed: NDArray[np.int32], scales: NDArray[np.float16]) -> Stored:
    """The three tensors of a quantized matrix."""
    return {
        f"{job.module}.weight_packed": ("I32", packed),
        f"{job.module}.weight_scale": ("F16", scales),
        f"{job.module}.weight_shape": ("I64", np.array(job.tensor.info.shape, np.int64)),
    }


def not_seen(experts: Sequence[str], least: int) -> str:
    """What to say of experts of a layer that fewer than `least` tokens of the text chose."""
    named = ", ".join(f"`{name}`" for name in experts[:MOST_NAMED])
    more = f" and {len(experts) - MOST_NAMED} more" if len(experts) > MOST_NAMED else ""
    how = "no token" if least == 1 else f"fewer than {least} tokens"
    return f"{how} chose {named}{more}: rounded by the weights alone; more `--tokens` may help"


def too_large(job: Job, error: Exception) -> Corrupt:
    """The error for weights beyond float16's scales."""
    return Corrupt(
        f"tensor `{job.tensor.name}` holds weights too large to quantize ({error})",
        hint="the model is broken; download it again, or run it as it is",
    )


def _quantize(
    job: Job, pool: Executor, tensors: Stored, on_weights: Callable[[int], None], in_haste: Callable[[], bool]
) -> float:
    rows, columns = job.tensor.info.shape
    step = max(1, PIECE // columns)
    tasks: list[Future[_Piece]] = [
        pool.submit(_piece, job, first, min(rows, first + step), in_haste) for first in range(0, rows, step)
    ]
    packed, scales = [], []
    error = power = 0.0
    for task in tasks:
        piece = task.result()
        packed.append(piece.packed)
        scales.append(piece.scales)
        error += piece.error
        power += piece.power
        on_weights(piece.scales.size * job.group)
    tensors |= stored(job, np.concatenate(packed), np.concatenate(scales))
    return float(np.sqrt(error / power)) if power else 0.0


@dataclass(frozen=True, slots=True)
class _Piece:
    packed: NDArray[np.int32]
    scales: NDArray[np.float16]
    error: float
    power: float


def _piece(job: Job, first: int, last: int, in_haste: Callable[[], bool]) -> _Piece:
    values = job.tensor.read_rows(first, last)
    require_finite(job.tensor.name, values)
    try:
        with np.errstate(over="raise"):
            weights = widen(values) if values.dtype == np.uint16 else values.astype(np.float32)
        if job.trained:
            rounded = round_trained(weights, job.group)
        else:
            rounded = round_rows(weights, job.bits, job.group, hasty=in_haste())
    except (OverflowError, FloatingPointError) as error:
        raise too_large(job, error) from error
    return _Piece(pack(rounded.values, job.bits), rounded.scales, rounded.error, rounded.power)
