"""Scales for the input channels of matrices that share one input (AWQ, Lin et al., 2023). Arrays in, arrays out.

A column with large inputs is multiplied by s before rounding and its input divided by it, so that its weights fall on a
finer grid. s is the root mean square of the input to some power between 0 and 1: the power that leaves the least error
in the output. The division costs nothing at run time where a norm's weight can take it up.
"""

import torch
from torch import Tensor

from localinfer.quantize.gptq import cost, nearest

POWERS = tuple(i / 10 for i in range(11))
MOST_ROWS = 256
"""As many rows, spread over the matrices, tell which power is best."""


def channel_scales(weights: Tensor, hessian: Tensor, bits: int, group: int) -> Tensor:
    """The scales [K] to multiply the columns of `weights` [N, K] by; all ones if none is better.

    `hessian` [K, K] is the mean of x x' over the inputs x; if it is not finite or all zero, nothing is scaled.
    """
    ones = torch.ones(weights.shape[1])
    if not bool(torch.isfinite(hessian).all()) or float(hessian.diagonal().max()) <= 0:
        return ones
    rows = weights[:: -(-len(weights) // MOST_ROWS)]
    size = hessian.diagonal().clamp_min(0).sqrt()
    size = size.clamp_min(1e-4 * float(size.max()) + 1e-30)  # of columns without input
    best, least = ones, float("inf")
    for power in POWERS:
        scale = size**power
        scale = scale / (scale.max().sqrt() * scale.min().sqrt())
        columns, inputs = scaled(rows, hessian, scale)
        q, s = nearest(columns, inputs.diagonal(), bits, group)
        loss = float(cost(columns, q, s, inputs).double().sum())
        if loss < least:
            best, least = scale, loss
    return best


def scaled(weights: Tensor, hessian: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
    """The same layer seen through `scale`: its weights times it, its inputs divided by it."""
    return weights * scale, hessian / (scale[:, None] * scale)
