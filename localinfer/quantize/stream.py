"""Calibration text on its way through the model, layer by layer, as the quantized model will see it.

Each matrix is quantized for the inputs that the already quantized part gives it, with activations rounded as the
kernels round them. One layer is in memory at a time, and the residual stream of all sequences: in a file once it is
large. Going over a layer again with its quantized weights gives the same numbers, so a run that was stopped needs
nothing but the layers it has written.
"""

import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from localinfer.graph.ops import Attend, GatedMLP, Linear
from localinfer.graph.weights import Checkpoint
from localinfer.reference.executor import Executor

IN_MEMORY = 1 << 30
"""Bytes of the residual stream above which it lies in a file."""

Half = Attend | GatedMLP
Stage = tuple[Linear, ...]
"""Matrices with one input, rounded together."""

Fit = Callable[[Half, Stage, Tensor], dict[str, Tensor]]
"""Is given half a layer, the matrices of a stage in it and the mean of x x' over their inputs x; returns the matrices
as quantized, and vectors that changed with them."""

Inputs = Callable[[Tensor], Tensor]
Rounding = tuple[int, int]
"""(largest integer, group) of the activations that meet a matrix: 127, or 32512 for two int8 planes."""


def rounded(x: Tensor, rounding: Rounding) -> Tensor:
    """Activations [..., K] as the kernels see them: integers by group, times their scale."""
    top, group = rounding
    grouped = x.reshape(*x.shape[:-1], -1, group)
    largest = grouped.abs().amax(-1, keepdim=True)
    integers = torch.round(grouped * torch.where(largest > 0, top / largest, 0))
    return (integers * (largest / top)).reshape(x.shape)


class Stream(Executor):
    """The residual stream of `tokens` [sequences, length] at one layer after another.

    `table` [tokens of the vocabulary that occur, hidden] holds the embeddings as stored, scaled; `roundings` says for
    each matrix how its inputs are rounded. `scratch` is a folder for the file of a large stream.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        tokens: NDArray[np.int32],
        embed: Callable[[NDArray[np.int32]], Tensor],
        roundings: Mapping[str, Rounding],
        scratch: Path,
    ) -> None:
        super().__init__(checkpoint)
        self.roundings = roundings
        sequences, length = tokens.shape
        shape = (sequences, length, checkpoint.spec.hidden_size)
        self.x = _space(shape, scratch)
        for number, sequence in enumerate(tokens):
            self.x[number] = embed(sequence)

    @torch.no_grad()
    def quantize(self, halves: Sequence[Half], fit: Fit) -> None:
        """Take the stream through one layer; after each stage all is computed with what `fit` has made of it."""
        for half in halves:
            first, last = self._stages(half)
            self.put(fit(half, first[0], self._moments(map(first[1], self.x), first[0][0])))
            linear = last[0][0]
            if 4 * self.x.shape[0] * self.x.shape[1] * linear.cols <= IN_MEMORY:
                inputs = [last[1](x) for x in self.x]
                self.put(fit(half, last[0], self._moments(inputs, linear)))
                self._advance(half, inputs)
            else:
                self.put(fit(half, last[0], self._moments(map(last[1], self.x), linear)))
                self._advance(half, map(last[1], self.x))
        self.forget()

    @torch.no_grad()
    def pass_over(self, halves: Sequence[Half], matrices: Mapping[str, Tensor]) -> None:
        """Take the stream through a layer that is quantized already."""
        self.put(matrices)
        for half in halves:
            self._advance(half, map(self._stages(half)[1][1], self.x))
        self.forget()

    def put(self, tensors: Mapping[str, Tensor]) -> None:
        """Use these matrices (by the name of the linear layer) and vectors (by tensor name) from here on."""
        self._kept.update(tensors)

    def forget(self) -> None:
        """Let go of the weights of the layer."""
        self._kept.clear()

    def linear(self, linear: Linear, x: Tensor) -> Tensor:
        return super().linear(linear, rounded(x, self.roundings[linear.name]))

    def _stages(self, half: Half) -> tuple[tuple[Stage, Inputs], tuple[Stage, Inputs]]:
        """The two stages of half a layer, and how the input of each comes from the residual stream."""
        if isinstance(half, Attend):
            return ((half.q, half.k, half.v), lambda x: self.norm(half.norm, x)), ((half.o,), partial(self.mixed, half))
        return ((half.gate, half.up), lambda x: self.norm(half.norm, x)), ((half.down,), partial(self.hidden, half))

    def _moments(self, inputs: Iterable[Tensor], linear: Linear) -> Tensor:
        total = torch.zeros(linear.cols, linear.cols)
        for x in inputs:
            seen = rounded(x, self.roundings[linear.name])
            total.addmm_(seen.T, seen)
        return total / (self.x.shape[0] * self.x.shape[1])

    def _advance(self, half: Half, inputs: Iterable[Tensor]) -> None:
        """Add to the stream what the half layer makes of the inputs of its last stage."""
        last = half.o if isinstance(half, Attend) else half.down
        for x, seen in zip(self.x, inputs, strict=True):
            x += self.norm(half.post_norm, self.linear(last, seen))


def _space(shape: tuple[int, ...], scratch: Path) -> Tensor:
    """Room for the stream, in memory or in a file without a name, which goes with the process."""
    nbytes = 4 * int(np.prod(shape))
    if nbytes <= IN_MEMORY:
        return torch.empty(shape)
    with tempfile.TemporaryFile(dir=scratch) as file:
        file.truncate(nbytes)
        return torch.from_numpy(np.memmap(file, np.float32, "r+", shape=shape))
