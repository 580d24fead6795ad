"""The two models that calibration text goes through, and where each of them is: what is rounded, and the original."""

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from localinfer.graph.ops import Attend, Linear
from localinfer.graph.weights import Checkpoint
from localinfer.reference.executor import Executor, as_stream

IN_MEMORY = 1 << 30
"""Bytes of the residual stream above which it lies in a file."""

Rounding = tuple[int, int]
"""(largest integer, group) of the activations that meet a matrix: 127, or 32512 for two int8 planes."""


def rounded(x: Tensor, rounding: Rounding) -> Tensor:
    """Activations [..., K] as the kernels see them: integers by group, times their scale."""
    integers, scales = grid(x, rounding)
    return integers.mul_(scales).flatten(-2)


def grid(x: Tensor, rounding: Rounding) -> tuple[Tensor, Tensor]:
    """The integers, as float32 [..., K / group, group], and scales [..., K / group, 1] of activations [..., K]."""
    top, group = rounding
    grouped = x.reshape(*x.shape[:-1], -1, group)
    low, high = grouped.aminmax(dim=-1, keepdim=True)
    largest = torch.maximum(high, low.neg_())
    integers = (grouped * torch.where(largest > 0, top / largest, 0)).round_()
    return integers, largest / top


class Reader(Executor):
    """Runs the original model, faster than the reference where attention is plain."""

    def attention(self, op: Attend, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        if op.softcap or (op.window and op.window < len(q)):
            return super().attention(op, q, k, v)
        q, k, v = (x.transpose(0, 1)[None] for x in (q, k, v))  # without a batch it is half as fast
        return scaled_dot_product_attention(q, k, v, is_causal=True, scale=op.scale)[0].transpose(0, 1).flatten(1)


class Streams(Reader):
    """The model as it is quantized so far, the original beside it, and the residual streams of `tokens` [sequences,
    length] in both: `x` and `true` [sequences, length, hidden].

    `table` [tokens of the vocabulary that occur, hidden] holds the embeddings as stored, scaled; `roundings` says for
    each matrix how its inputs are rounded. `scratch` is a folder for the files of large streams. Without `follow` the
    original model is left out.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        tokens: NDArray[np.int32],
        embed: Callable[[NDArray[np.int32]], Tensor],
        roundings: Mapping[str, Rounding],
        scratch: Path,
        follow: bool = True,
    ) -> None:
        super().__init__(checkpoint)
        self.original = Reader(checkpoint)
        self.roundings = roundings
        self.scratch = scratch
        self._held: dict[bool, Tensor] = {}
        self._latest: tuple[Tensor, Rounding, Tensor] | None = None
        sequences, length = tokens.shape
        shape = (sequences, length, checkpoint.spec.hidden_size)
        self.x = space_for(shape, scratch)
        self.true = space_for(shape, scratch) if follow else None
        table = checkpoint.graph.embed
        full = self.original.weight(table.table) if follow else None
        for number, sequence in enumerate(tokens):
            self.x[number] = embed(sequence)
            if self.true is not None and full is not None:
                self.true[number] = as_stream(table, full[torch.from_numpy(sequence).long()])
        self.look: Callable[[], None] = lambda: None
        self.forget()

    def put(self, tensors: Mapping[str, Tensor]) -> None:
        """Use these matrices (by the name of the linear layer) and vectors (by tensor name) from here on."""
        self._cached.update(tensors)

    def forget(self) -> None:
        """Let go of the weights of the layer."""
        self._cached.clear()
        self._latest = None
        self.original.forget()

    def linear(self, linear: Linear, x: Tensor) -> Tensor:
        return self.product(linear, self.seen(linear, x))

    def product(self, linear: Linear, seen: Tensor) -> Tensor:
        """Of `linear` and its inputs as it sees them."""
        return super().linear(linear, seen)

    def seen(self, linear: Linear, x: Tensor) -> Tensor:
        """`x` as `linear` sees it, which may be one of floats; kept for the next matrix, which may read the same."""
        if linear.name not in self.roundings:
            return x
        rounding = self.roundings[linear.name]
        if self._latest is None or self._latest[0] is not x or self._latest[1] != rounding:
            self._latest = (x, rounding, rounded(x, rounding))
        return self._latest[2]

    def space(self, columns: int) -> Tensor:
        """Room for all rows of the stream, sequence after sequence, with so many columns."""
        sequences, length, _ = self.x.shape
        return space_for((sequences * length, columns), self.scratch)


def in_memory(nbytes: int) -> bool:
    """Whether so much is kept in memory."""
    return nbytes <= IN_MEMORY


def space_for(shape: tuple[int, ...], scratch: Path) -> Tensor:
    """Room for the stream, in memory or in a file without a name, which goes with the process."""
    nbytes = 4 * int(np.prod(shape))
    if in_memory(nbytes):
        return torch.empty(shape)
    with tempfile.TemporaryFile(dir=scratch) as file:
        file.truncate(nbytes)
        return torch.from_numpy(np.memmap(file, np.float32, "r+", shape=shape))
