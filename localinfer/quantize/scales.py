"""The best signed scale of each group of weights, under squared error, plain or weighted by what the inputs are like.

A weight becomes `q * s` with q in [-2**(b-1), 2**(b-1) - 1]; s may be negative, so that the side with the larger weight
can use the extra value -2**(b-1). For integers q found with a trial scale, the best scale is sum(w*q) / sum(q*q), and
the error it leaves is sum(w*w) - sum(w*q)**2 / sum(q*q): the trial with the largest second term wins. The scale is
rounded to float16 before the final rounding of the weights. With an importance h of each column all these sums are
weighted by it: h is the mean square of the column's input, so that the error counted is that of the layer's output.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from localinfer import native

Floats = NDArray[np.float32]

LARGEST_SCALE = 65504.0
"""The largest float16."""

MEASURED_ROWS = 512
"""Rows, at most about, spread over a matrix, that tell what rounding to the nearest costs its output."""

BAD_INPUTS = "its inputs hold NaN or infinity: rounded to the nearest"

_TINY = np.float32(1e-12)
"""Groups below this are stored as zeros: their scale would be zero in float16 anyway."""

_LEAST_SHARE = np.float32(1e-3)
"""Of the mean importance of a group."""

_GROUPS_AT_ONCE = 2048
"""So that the arrays of one trial stay in a core's own cache."""

# Trial scales as shares of absmax / 2**(b-1). Measured on real and on random weights: finer grids gain under 0.02 dB.
_TRIALS = {3: (0.7, 1.15, 12), 4: (0.7, 1.15, 12), 5: (0.8, 1.1, 12), 8: (0.9, 1.01, 12)}
_FEW_TRIALS = {3: (0.75, 1.0, 3), 4: (0.8, 1.0, 3), 5: (0.9, 1.0, 3), 8: (0.95, 1.0, 3)}

HASTY = 0.5
"""Time that rounding with few trials takes, as a share of the usual; the errors grow by 1 to 4 %."""


@dataclass(frozen=True, slots=True)
class Rounded:
    """Quantized rows: int8 [N, K], float16 [N, K / group], and the sums of squared errors and of squared weights."""

    values: NDArray[np.int8]
    scales: NDArray[np.float16]
    error: float
    power: float


def round_rows(
    rows: Floats, bits: int, group: int, importance: Floats | None = None, *, hasty: bool = False
) -> Rounded:
    """Quantize finite float32 [N, K]; `group` divides K. Each group's result depends on its own weights only.

    `importance` [K] weights the squared errors (not those that are returned). `hasty` tries few scales. Raises
    `OverflowError` when a weight is too large for a float16 scale.
    """
    count, columns = rows.shape
    groups = rows.reshape(-1, group)
    require_scalable(groups, bits)
    shares = None if importance is None else _shares(importance.reshape(-1, group))
    values = np.empty(groups.shape, np.int8)
    scales = np.empty(len(groups), np.float16)
    error = power = 0.0
    for first in range(0, len(groups), _GROUPS_AT_ONCE):
        part = slice(first, first + _GROUPS_AT_ONCE)
        # Groups side by side: sums over a group are then sums of whole rows, which are fast and always in one order.
        weights = np.ascontiguousarray(groups[part].T)
        share = None
        if shares is not None:
            share = np.ascontiguousarray(shares[np.arange(first, first + weights.shape[1]) % len(shares)].T)
        q, s = _round(weights, bits, share, _FEW_TRIALS if hasty else _TRIALS)
        values[part] = q.T
        scales[part] = s
        difference = weights - q * s.astype(np.float32)
        error += float(np.square(difference, dtype=np.float64).sum())
        power += float(np.square(weights, dtype=np.float64).sum())
    return Rounded(values.reshape(count, columns), scales.reshape(count, columns // group), error, power)


def round_trained(rows: Floats, group: int) -> Rounded:
    """Finite float32 [N, K] to the grid that training for Q4_0 takes: of each group the weight of largest magnitude
    becomes -8, the others the nearest of its eighths. Raises `OverflowError` as `round_rows` does."""
    count, columns = rows.shape
    groups = rows.reshape(-1, group)
    require_scalable(groups, 4)
    largest = np.take_along_axis(groups, np.abs(groups).argmax(axis=1, keepdims=True), axis=1)
    largest[np.abs(largest) < _TINY] = 0
    scale = largest / np.float32(-8)
    inverse = np.divide(1, scale, out=np.zeros_like(scale), where=scale != 0)
    q = np.clip(np.floor(groups * inverse + np.float32(8.5)) - 8, -8, 7)  # bf16 often lies between two eighths: as GGUF
    scales = scale.astype(np.float16)
    error = float(np.square(groups - q * scales.astype(np.float32), dtype=np.float64).sum())
    power = float(np.square(groups, dtype=np.float64).sum())
    return Rounded(q.astype(np.int8).reshape(count, columns), scales.reshape(count, -1), error, power)


def group_scales(weights: Floats, bits: int, importance: Floats) -> NDArray[np.float16]:
    """The best scales of n groups, float32 [group, n], whose columns weigh `importance` [group] in each of them."""
    return _scales(weights, bits, _shares(importance[None, :]).T)


def require_scalable(weights: Floats, bits: int) -> None:
    """Raise `OverflowError` when a weight is too large for a float16 scale."""
    if weights.size and float(np.abs(weights).max()) > LARGEST_SCALE * (1 << (bits - 1)):
        raise OverflowError(float(np.abs(weights).max()))


def _shares(importance: Floats) -> Floats:
    """Importance [groups, group] with a mean of 1 in each; none is nothing, as that input may come yet."""
    mean = importance.mean(axis=1, keepdims=True)
    shares: Floats = np.maximum(importance / np.where(mean > 0, mean, 1), _LEAST_SHARE).astype(np.float32)
    return shares


def _round(
    weights: Floats, bits: int, shares: Floats | None, trials: dict[int, tuple[float, float, int]] = _TRIALS
) -> tuple[Floats, NDArray[np.float16]]:
    """float32 [group, n] → integers as float32 [group, n] and float16 scales [n]."""
    scales = _scales(weights, bits, np.ones((len(weights), 1), np.float32) if shares is None else shares, trials)
    return _integers(weights, scales.astype(np.float32), float(1 << (bits - 1))), scales


def _scales(
    weights: Floats, bits: int, shares: Floats, trials: dict[int, tuple[float, float, int]] = _TRIALS
) -> NDArray[np.float16]:
    """The best scales [n] of groups, float32 [group, n], whose errors weigh `shares` [group, n or 1]."""
    best = np.empty(weights.shape[1], np.float32)
    inverses = (1 / np.linspace(*trials[bits])).astype(np.float32)
    native.group_scales(best, weights, np.ascontiguousarray(shares), inverses, bits)
    # Clamped: rounding up past the largest float16 would give infinity.
    return np.clip(best, -LARGEST_SCALE, LARGEST_SCALE).astype(np.float16)


def _integers(weights: Floats, scale: Floats, half: float) -> Floats:
    safe = np.where(scale == 0, np.float32(np.inf), scale)
    q: Floats = np.clip(np.rint(weights / safe), -half, half - 1)
    return q
