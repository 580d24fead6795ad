"""Rounding that costs a layer's output least: GPTQ, then descent. Arrays in, integers and scales out.

What is minimized for each row w of a matrix is (w - v) H (w - v), v the row as it will be stored and H the mean of
x x' over the layer's inputs as the kernels will see them. GPTQ (Frantar et al., 2022) rounds column by column and moves
what each rounding costs into the columns still to come. With H = R R', R upper triangular, that is: each column is
rounded from its weight and from what the errors before it leave for it, so no inverse is needed (QuIP, Chee et al.,
2023). Two things differ from the first code: whole groups are taken in the order of their importance, so the stored
order stays as it is, and each group's scales are searched when its turn comes, from the weights as moved by then. The
descent that follows goes round the groups and changes one scale or one integer at a time to the best value given all
others (QuantEase, Behdin et al., 2023), so it can only improve. Rows do not depend on each other: parts of them are
rounded side by side.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from localinfer import native
from localinfer.quantize.scales import (
    BAD_INPUTS,
    LARGEST_SCALE,
    MEASURED_ROWS,
    Floats,
    group_scales,
    require_scalable,
    round_rows,
)
from localinfer.quantize.torch_threads import threads

DAMPING = 0.03
"""Added to the diagonal of H, as a share of its mean; doubled until H can be factored."""

MOVED = 0.5
"""How much of the way to the original's outputs weights go. Measured as KL divergence on other text: all of it loses
what half of it wins, since the way is learned from few tokens."""

MOST_DAMPING = 1.0
SWEEPS = 3
TOGETHER = 256
"""Columns, about, for which what all others did is added up at once."""

MOST_ROWS, LEAST_ROWS = 2048, 128
"""Of a part; between them as many as keep all threads busy."""

NO_FACTOR = "the second moments of its inputs cannot be factored: rounded to the nearest"

Quantized = tuple[Tensor, Tensor]
"""Integers [N, K] and scales [N, K / group], both as float32."""


@dataclass(frozen=True, slots=True)
class Fitted:
    """int8 [N, K], float16 [N, K / group], and what it costs each output: d H d beside w H w, float32 [N]."""

    values: NDArray[np.int8]
    scales: NDArray[np.float16]
    error: Floats
    power: Floats
    note: str = ""
    """What went wrong on the way, if something did."""


@dataclass(frozen=True, slots=True)
class Factor:
    """H of the columns in `order` [K], with `damping` added to its diagonal, is R R'; `upper` [K, K] is R."""

    order: Tensor
    damping: float
    upper: Tensor


def fit(
    weights: Tensor, hessian: Tensor, bits: int, group: int, factor: Factor | None = None, *, sweeps: int = SWEEPS
) -> Fitted:
    """Round float32 `weights` [N, K] for inputs of `hessian` [K, K]; `group` divides K. `factor`: its, if known.

    Row by row the result is never worse than importance-weighted rounding to the nearest. An H that is not finite or
    cannot be factored leaves that rounding, and says so in `note`. Raises `OverflowError` for weights beyond float16.
    """
    require_scalable(weights.numpy(), bits)
    known = factor or factored(hessian, group)
    if known is None:
        plain = fit_nearest(weights, hessian, bits, group)
        return plain if plain.note else replace(plain, note=NO_FACTOR)
    importance = hessian.diagonal().clamp_min(0)

    def part(rows: Tensor) -> Fitted:
        q, s = with_feedback(rows, known, bits, group)
        q, s = descend(rows, hessian, q, s, bits, sweeps, known.damping)
        error = _factored_cost(rows - dequantized(q, s), known)
        plain_q, plain_s = nearest(rows, importance, bits, group)
        plain_error = _factored_cost(rows - dequantized(plain_q, plain_s), known)
        worse = error > plain_error
        q[worse], s[worse], error[worse] = plain_q[worse], plain_s[worse], plain_error[worse]
        return _fitted(q, s, error, _factored_cost(rows, known))

    return _side_by_side(part, weights)


def moved(
    weights: Tensor,
    factor: Factor | None,
    *,
    apart: Tensor | None = None,
    missing: Tensor | None = None,
    share: float = MOVED,
) -> Tensor:
    """The weights on their way to those that come nearest to the original outputs from inputs that are off already.

    `apart` [K, K] is the mean of (t - x) x', t being the inputs of the original model and x those of the quantized one,
    of which `factor` is; or `missing` [N, K] is that of W (t - x) x'. The weights stay as they are without a factor,
    and where that is not finite.
    """
    known = apart if missing is None else missing
    if factor is None or known is None or not bool(torch.isfinite(known).all()):
        return weights
    ordered = torch.linalg.solve_triangular(factor.upper.T, known[:, factor.order], upper=False, left=False)
    shift = torch.empty_like(known)
    shift[:, factor.order] = torch.linalg.solve_triangular(factor.upper, ordered, upper=True, left=False)
    return weights.add(weights @ shift if missing is None else shift, alpha=share)


def fit_nearest(weights: Tensor, hessian: Tensor | None, bits: int, group: int) -> Fitted:
    """Round each weight by itself, with scales that weigh each column by the mean square of its input.

    `hessian` may be its diagonal [K] alone; then inputs count as independent of each other in what it costs. That is
    measured of some rows of a large matrix, and is 0 of all others, as their power is. None: columns weigh alike.
    """
    require_scalable(weights.numpy(), bits)
    usable = hessian is not None and bool(torch.isfinite(hessian).all())
    note = "" if usable or hessian is None else BAD_INPUTS
    hessian = hessian if hessian is not None and usable else torch.ones(weights.shape[1])
    importance = (hessian.diagonal() if hessian.dim() == 2 else hessian).clamp_min(0) if usable else None
    q, s = nearest(weights, importance, bits, group)
    some = slice(None, None, -(-len(weights) // MEASURED_ROWS))
    error, power = torch.zeros(len(weights)), torch.zeros(len(weights))
    error[some], power[some] = cost(weights[some], q[some], s[some], hessian), _cost(weights[some], hessian)
    return _fitted(q, s, error, power, note)


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


def factored(hessian: Tensor, group: int) -> Factor | None:
    """H with as little added to its diagonal as lets it be factored; `None` if nothing helps, or it is not finite."""
    if not bool(torch.isfinite(hessian).all()):
        return None
    order = order_of_groups(hessian.diagonal().clamp_min(0), group)
    backwards = order.flip(0)  # the lower factor of the columns turned round is the upper one, turned round
    turned = hessian[backwards][:, backwards]
    mean, share = float(hessian.diagonal().mean()), DAMPING
    while mean > 0 and share <= MOST_DAMPING:
        for kind in (torch.float32, torch.float64):
            damped = turned.to(kind, copy=True)
            damped.diagonal().add_(share * mean)
            lower, failed = torch.linalg.cholesky_ex(damped)
            if not failed and bool(torch.isfinite(lower.diagonal()).all()):
                return Factor(order, share * mean, lower.float().flip(0, 1))
        share *= 2
    return None


def with_feedback(weights: Tensor, factor: Factor, bits: int, group: int) -> Quantized:
    """GPTQ: a column takes up what rounding the earlier ones, in the factor's order, has cost."""
    upper, order = factor.upper, factor.order
    own = upper.diagonal()
    strength = own.square()  # of an error that later columns take up as well as they can
    off = weights[:, order].T.contiguous()  # [K, N]: weights, and errors once they are rounded
    q = torch.empty_like(off)
    s = torch.empty(len(off) // group, off.shape[1])
    for start, end in _blocks(len(off), group):
        wanted = (upper[:start, start:end].T @ off[:start]).div_(own[start:end, None]).add_(off[start:end])
        for first in range(start, end, group):
            last = first + group
            block = wanted[first - start : last - start]
            block.addmm_((upper[start:first, first:last] / own[first:last]).T, off[start:first])
            scale = torch.from_numpy(group_scales(block.numpy(), bits, strength[first:last].numpy())).float()
            left = (upper[first:last, first:last] / own[first:last]).contiguous()
            now = off[first:last].numpy()
            native.round_forward(q[first:last].numpy(), now, block.numpy(), scale.numpy(), left.numpy(), bits)
            s[int(order[first]) // group] = scale
    back = torch.empty_like(weights)
    back[:, order] = q.T
    return back, s.T.contiguous()


def descend(
    weights: Tensor, hessian: Tensor, q: Tensor, s: Tensor, bits: int, sweeps: int, damping: float = 0.0
) -> Quantized:
    """Go round the groups `sweeps` times: each scale, then each integer, becomes the best one given all the others.

    `damping` counts as added to the diagonal of `hessian`.
    """
    group = weights.shape[1] // s.shape[1]
    off = (weights - dequantized(q, s)).T.contiguous()  # [K, N]
    q, s = q.T.contiguous(), s.T.contiguous()
    for start, end in [block for _ in range(sweeps) for block in _blocks(len(off), group)]:
        slopes = torch.addmm(off[start:end], hessian[start:end], off, beta=damping)
        for first in range(start, end, group):
            last = first + group
            inner = hessian[first:last, first:last].clone()
            inner.diagonal().add_(damping)
            integers, scale = q[first:last], s[first // group]
            before = integers * scale
            s[first // group] = _best_given_others(integers, scale, slopes[first - start : last - start], inner, bits)
            change = before - integers * s[first // group]
            off[first:last] += change
            slopes[last - start :].addmm_(hessian[last:end, first:last], change)
    return q.T.contiguous(), s.T.contiguous()


def _best_given_others(integers: Tensor, scale: Tensor, slope: Tensor, inner: Tensor, bits: int) -> Tensor:
    """The best scale [N] of one group, which is returned, and then integers [group, N], which are changed in place."""
    new = _refitted(scale, integers, slope, inner)
    slope -= inner @ ((new - scale) * integers)
    native.round_again(integers.numpy(), slope.numpy(), new.numpy(), inner.numpy(), bits)
    return new


def _refitted(scale: Tensor, integers: Tensor, slope: Tensor, inner: Tensor) -> Tensor:
    """The best scale of one group in each row, as float16 has it; zero stays zero."""
    curve, pull = ((inner @ integers) * integers).sum(0), (integers * slope).sum(0)
    better = (scale + pull / curve).clamp(-LARGEST_SCALE, LARGEST_SCALE).half().float()
    change = better - scale
    # Rounding to float16 may have carried it past the far side of the valley.
    gains = change * (change * curve - 2 * pull) < 0
    return torch.where((curve > 0) & (scale != 0) & (better != 0) & gains, better, scale)


def cost(weights: Tensor, q: Tensor, s: Tensor, hessian: Tensor) -> Tensor:
    """d H d of each row."""
    return _cost(weights - dequantized(q, s), hessian)


def _cost(d: Tensor, hessian: Tensor) -> Tensor:
    return ((d @ hessian) * d).sum(1) if hessian.dim() == 2 else d.square() @ hessian


def _factored_cost(d: Tensor, factor: Factor) -> Tensor:
    """d H d of each row [N, K], as |d R|² without the damping: half the work."""
    ordered, total = d[:, factor.order], -factor.damping * d.square().sum(1)
    for start, end in _blocks(d.shape[1], TOGETHER):
        total += (ordered[:, :end] @ factor.upper[:end, start:end]).square_().sum(1)
    return total.clamp_min_(0)


def dequantized(q: Tensor, s: Tensor) -> Tensor:
    """Integers [N, K] times scales [N, K / group]."""
    rows, columns = q.shape
    return (q.view(rows, s.shape[1], -1) * s[:, :, None]).view(rows, columns)


def _blocks(columns: int, group: int) -> Iterator[tuple[int, int]]:
    """Whole groups of all columns, about `TOGETHER` columns each: first, last + 1."""
    wide = group * max(1, TOGETHER // group)
    return ((first, min(first + wide, columns)) for first in range(0, columns, wide))


def _side_by_side(fit_part: Callable[[Tensor], Fitted], weights: Tensor) -> Fitted:
    """`fit_part` of all rows, as many at once as torch has threads here."""
    workers = torch.get_num_threads()
    rows = min(MOST_ROWS, max(LEAST_ROWS, -(-len(weights) // workers)))
    with threads(1), ThreadPoolExecutor(workers, thread_name_prefix="fit") as pool:
        parts = list(pool.map(fit_part, torch.split(weights, rows)))
    return Fitted(
        values=np.concatenate([part.values for part in parts]),
        scales=np.concatenate([part.scales for part in parts]),
        error=np.concatenate([part.error for part in parts]),
        power=np.concatenate([part.power for part in parts]),
    )


def _fitted(q: Tensor, s: Tensor, error: Tensor, power: Tensor, note: str = "") -> Fitted:
    return Fitted(q.to(torch.int8).numpy(), s.half().numpy(), error.numpy(), power.numpy(), note)
