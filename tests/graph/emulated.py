"""The torch executor with the native program's roundings put in: integer activations, and a KV cache of 16 or 8 bits.

What is left between the two is the order of float32 sums, and the rare value that stands so near the middle between
two integers (or two halves) that this order decides.
"""

from typing import Literal

import torch
from torch import Tensor

from localinfer.graph.ops import Attend, Linear
from localinfer.graph.packing import activation_bits
from localinfer.graph.weights import Checkpoint
from localinfer.reference.executor import Executor


class Emulated(Executor):
    """Runs `checkpoint` as the native program means to."""

    def __init__(self, checkpoint: Checkpoint, kv_bits: Literal[8, 16]) -> None:
        super().__init__(checkpoint)
        self.kv_bits = kv_bits
        self.most = 32512 if activation_bits(checkpoint) == 16 else 127

    def mixed(self, op: Attend, x: Tensor) -> Tensor:
        """The kernels take the columns of a head in the order in which they turn them."""
        order, rotary = list(range(op.head_dim)), 2 * len(op.rope.inv_freq)
        if op.rope.interleaved:
            order = [*range(0, rotary, 2), *range(1, rotary, 2), *range(rotary, op.head_dim)]
        self.order = torch.tensor(order)
        return super().mixed(op, x)

    def linear(self, linear: Linear, x: Tensor) -> Tensor:
        bits, group, *_ = self.checkpoint.form(linear.name)
        return super().linear(linear, x if bits == 16 else to_integers(x, group, self.most))

    def rounded(self, what: Literal["q", "k", "v"], x: Tensor) -> Tensor:
        if self.kv_bits == 8:
            size = x.shape[-1]
            if what == "v":
                return to_integers(x, size, 127)
            back = turned(to_integers(turned(x[..., self.order]), size, 127)) / (size & -size)
            return back[..., torch.argsort(self.order)]
        return x if what == "q" else x.half().float()


def turned(x: Tensor) -> Tensor:
    """Heads x [..., d] under the Walsh-Hadamard transform of each of their largest powers of two of columns: twice is
    as often what was there."""
    size = x.shape[-1]
    found, half = x.reshape(-1, size & -size), 1
    while half < found.shape[1]:
        pairs = found.view(-1, found.shape[1] // (2 * half), 2, half)
        found = torch.stack((pairs[:, :, 0] + pairs[:, :, 1], pairs[:, :, 0] - pairs[:, :, 1]), 2).reshape(found.shape)
        half *= 2
    return found.reshape(x.shape)


def to_integers(x: Tensor, group: int, top: int) -> Tensor:
    """x [..., k] rounded to integers up to `top` with one scale a group, and back."""
    groups = x.reshape(*x.shape[:-1], -1, group)
    most = groups.abs().amax(-1, keepdim=True)
    whole = torch.round(groups * torch.where(most > 0, top / most, 0.0))
    return (whole * (most / top)).reshape(x.shape)
