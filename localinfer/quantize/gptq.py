"""Rounding that costs a layer's output least: GPTQ, then descent. Arrays in, integers and scales out.

What is minimized for each row w of a matrix is (w - v) H (w - v), v the row as it will be stored and H the mean of
x x' over the layer's inputs as the kernels will see them. GPTQ (Frantar et al., 2022) rounds column by column and moves
what each rounding costs into the columns still to come. Two things differ from its first code: whole groups are taken
in the order of their importance, so the stored order stays as it is, and each group's scales are searched when its turn
comes, from the weights as moved by then. The descent that follows goes round the groups and changes one scale or one
integer at a time to the best value given all others (QuantEase, Behdin et al., 2023), so it can only improve.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from localinfer.quantize.scales import LARGEST_SCALE, Floats, group_scales, require_scalable, round_rows

DAMPING = 0.03
"""Added to the diagonal of H, as a share of its mean; doubled until H can be factored."""

RIDGE = 0.05
"""The same where weights are moved to make up for inputs that are off."""

MOVED = 0.5
"""How much of that way they go. Measured as KL divergence on other text: all of it loses what half of it wins, since
the way is learned from few tokens."""

MOST_DAMPING = 1.0
SWEEPS = 3
BAD_INPUTS = "its inputs hold NaN or infinity: rounded to the nearest"
NO_FACTOR = "the second moments of its inputs cannot be factored: rounded to the nearest"


@dataclass(frozen=True, slots=True)
class Fitted:
    """int8 [N, K], float16 [N, K / group], and what it costs each output: d H d beside w H w, float32 [N]."""

    values: NDArray[np.int8]
    scales: NDArray[np.float16]
    error: Floats
    power: Floats
    note: str = ""
    """What went wrong on the way, if something did."""


def fit(weights: Tensor, hessian: Tensor, bits: int, group: int, *, sweeps: int = SWEEPS) -> Fitted:
    """Round float32 `weights` [N, K] for inputs of `hessian` [K, K]; `group` divides K.

    Row by row the result is never worse than importance-weighted rounding to the nearest. An H that is not finite or
    cannot be factored leaves that rounding, and says so in `note`. Raises `OverflowError` for weights beyond float16.
    """
    require_scalable(weights.numpy(), bits)
    if not bool(torch.isfinite(hessian).all()):
        return _fitted(weights, torch.eye(len(hessian)), *nearest(weights, None, bits, group), BAD_INPUTS)
    importance = hessian.diagonal().clamp_min(0)
    plain_q, plain_s = nearest(weights, importance, bits, group)
    order = order_of_groups(importance, group)
    factored = factor(hessian[order][:, order])
    if factored is None:
        return _fitted(weights, hessian, plain_q, plain_s, NO_FACTOR)
    damping, upper = factored
    q, s = with_feedback(weights, upper, order, bits, group)
    q, s = descend(weights, hessian + torch.eye(len(hessian)) * damping, q, s, bits, sweeps)
    worse = cost(weights, q, s, hessian) > cost(weights, plain_q, plain_s, hessian)
    q[worse], s[worse] = plain_q[worse], plain_s[worse]
    return _fitted(weights, hessian, q, s)


def moved(weights: Tensor, hessian: Tensor, apart: Tensor, share: float = MOVED) -> Tensor:
    """The weights on their way to those that come nearest to the original outputs from inputs that are off already.

    `apart` [K, K] is the mean of (t - x) x', t being the inputs of the original model and x those of the quantized one.
    The weights stay as they are where that is not finite.
    """
    ridge = RIDGE * float(hessian.diagonal().mean())
    if not (ridge > 0 and bool(torch.isfinite(hessian).all()) and bool(torch.isfinite(apart).all())):
        return weights
    lower, failed = torch.linalg.cholesky_ex(hessian + torch.eye(len(hessian)) * ridge)
    if failed:
        return weights
    shift = torch.cholesky_solve(apart.T, lower).T
    return weights + share * (weights @ shift)


def fit_nearest(weights: Tensor, hessian: Tensor, bits: int, group: int) -> Fitted:
    """Round each weight by itself, with scales that weigh each column by the mean square of its input."""
    require_scalable(weights.numpy(), bits)
    if not bool(torch.isfinite(hessian).all()):
        return _fitted(weights, torch.eye(len(hessian)), *nearest(weights, None, bits, group), BAD_INPUTS)
    return _fitted(weights, hessian, *nearest(weights, hessian.diagonal().clamp_min(0), bits, group))


def nearest(weights: Tensor, importance: Tensor | None, bits: int, group: int) -> tuple[Tensor, Tensor]:
    """Rounding each weight by itself: integers [N, K] and scales [N, K / group], both as float32."""
    given = None if importance is None else importance.contiguous().numpy()
    rounded = round_rows(weights.numpy(), bits, group, given)
    return torch.from_numpy(rounded.values).float(), torch.from_numpy(rounded.scales).float()


def order_of_groups(importance: Tensor, group: int) -> Tensor:
    """The columns, whole groups by their most important column, and within each group by importance, descending."""
    by_group = importance.view(-1, group)
    first = torch.argsort(by_group.amax(1), descending=True, stable=True)
    within = torch.argsort(by_group, dim=1, descending=True, stable=True)
    return (within + torch.arange(len(by_group))[:, None] * group)[first].flatten()


def factor(hessian: Tensor) -> tuple[float, Tensor] | None:
    """What had to be added to the diagonal of H, and U with U' U = inverse of that; `None` if nothing helps."""
    mean = float(hessian.diagonal().mean())
    share = DAMPING
    while mean > 0 and share <= MOST_DAMPING:
        for kind in (torch.float32, torch.float64):
            lower, failed = torch.linalg.cholesky_ex(
                hessian.to(kind) + torch.eye(len(hessian), dtype=kind) * share * mean
            )
            if failed:
                continue
            upper, failed = torch.linalg.cholesky_ex(torch.cholesky_inverse(lower), upper=True)
            if not failed and bool(torch.isfinite(upper).all()):
                return share * mean, upper.float()
        share *= 2
    return None


def with_feedback(weights: Tensor, upper: Tensor, order: Tensor, bits: int, group: int) -> tuple[Tensor, Tensor]:
    """GPTQ. `upper` is U of the columns in `order`; a later column takes up what rounding an earlier one has cost."""
    half = float(1 << (bits - 1))
    left = weights[:, order]
    q, s = torch.empty_like(left), torch.empty(len(left), left.shape[1] // group)
    strength = upper.diagonal().pow(-2)  # of an error that later columns take up as well as they can
    for first in range(0, left.shape[1], group):
        block, last = left[:, first : first + group].clone(), first + group
        part, errors = upper[first:last, first:last], torch.empty_like(block)
        scales = group_scales(block.T.contiguous().numpy(), bits, strength[first:last].numpy())
        scale = torch.from_numpy(scales).float()
        step = torch.where(scale == 0, torch.inf, scale)
        for j in range(group):
            column = block[:, j]
            integer = torch.clamp(torch.round(column / step), -half, half - 1)
            q[:, first + j] = integer
            error = (column - integer * scale) / part[j, j]
            errors[:, j] = error
            block[:, j:] -= error[:, None] * part[j, j:]
        s[:, int(order[first]) // group] = scale
        left[:, last:] -= errors @ upper[first:last, last:]
    back = torch.empty_like(q)
    back[:, order] = q
    return back, s


def descend(weights: Tensor, hessian: Tensor, q: Tensor, s: Tensor, bits: int, sweeps: int) -> tuple[Tensor, Tensor]:
    """Go round the groups `sweeps` times: each scale, then each integer, becomes the best one given all the others."""
    group, half = weights.shape[1] // s.shape[1], float(1 << (bits - 1))
    q, s = q.clone(), s.clone()
    left = weights - dequantized(q, s)
    for _ in range(sweeps):
        for number in range(s.shape[1]):
            part = slice(number * group, (number + 1) * group)
            inner, integers = hessian[part, part], q[:, part].clone()
            slope = left @ hessian[:, part]
            scale = _refitted(s[:, number], integers, slope, inner)
            moved = (scale - s[:, number])[:, None] * integers
            slope -= moved @ inner
            step = torch.where(scale == 0, torch.inf, scale)
            for j in range(group):
                best = torch.round(integers[:, j] + slope[:, j] / (inner[j, j] * step))
                change = torch.clamp(best, -half, half - 1) - integers[:, j]
                integers[:, j] += change
                slope -= (change * scale)[:, None] * inner[j]
            q[:, part], s[:, number] = integers, scale
            left[:, part] = weights[:, part] - integers * scale[:, None]
    return q, s


def _refitted(scale: Tensor, integers: Tensor, slope: Tensor, inner: Tensor) -> Tensor:
    """The best scale of one group in each row, as float16 has it; zero stays zero."""
    curve, pull = ((integers @ inner) * integers).sum(1), (integers * slope).sum(1)
    better = (scale + pull / curve).clamp(-LARGEST_SCALE, LARGEST_SCALE).half().float()
    change = better - scale
    # Rounding to float16 may have carried it past the far side of the valley.
    gains = change * (change * curve - 2 * pull) < 0
    return torch.where((curve > 0) & (scale != 0) & (better != 0) & gains, better, scale)


def cost(weights: Tensor, q: Tensor, s: Tensor, hessian: Tensor) -> Tensor:
    """d H d of each row."""
    d = weights - dequantized(q, s)
    return ((d @ hessian) * d).sum(1)


def dequantized(q: Tensor, s: Tensor) -> Tensor:
    """Integers [N, K] times scales [N, K / group]."""
    rows, columns = q.shape
    return (q.view(rows, s.shape[1], -1) * s[:, :, None]).view(rows, columns)


def _fitted(weights: Tensor, hessian: Tensor, q: Tensor, s: Tensor, note: str = "") -> Fitted:
    return Fitted(
        values=q.to(torch.int8).numpy(),
        scales=s.half().numpy(),
        error=cost(weights, q, s, hessian).numpy(),
        power=((weights @ hessian) * weights).sum(1).numpy(),
        note=note,
    )
