"""What is summed up of the inputs of matrices, for those who round them."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from localinfer.graph.ops import LayerOp, Linear

Stage = tuple[Linear, ...]
"""Matrices with one input, rounded together."""

TOGETHER = 512
"""Columns of second moments that are added to at once."""


@dataclass(frozen=True, slots=True)
class Moments:
    """Of the inputs x [rows, K] of a stage: `second` [K, K], the mean of x x'; of a last stage its diagonal [K] alone
    where the original is not followed, since nothing else is asked of it.

    Where the original model, whose inputs are t, is followed, also `apart` [K, K], the mean of (t - x) x', or of a
    single matrix W [N, K] `missing` [N, K], that of W (t - x) x'.
    """

    second: Tensor
    rows: int
    apart: Tensor | None = None
    missing: Tensor | None = None


Fit = Callable[[LayerOp, Stage, Moments], dict[str, Tensor]]
"""Is given an operation and the matrices of a stage of it; returns them as quantized, and vectors that changed."""


def add_square(total: Tensor, x: Tensor) -> None:
    """Add x' x of `x` [n, K] to `total` [K, K], on and above its diagonal."""
    for first in range(0, len(total), TOGETHER):
        last = first + TOGETHER
        total[:last, first:last].addmm_(x[:, :last].T, x[:, first:last])


def whole(total: Tensor) -> Tensor:
    """`total`, of which only what is on and above the diagonal was added to, mirrored in place."""
    for first in range(TOGETHER, len(total), TOGETHER):
        last = first + TOGETHER
        total[first:last, :first] = total[:first, first:last].T
    return total
