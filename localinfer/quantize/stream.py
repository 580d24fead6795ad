"""Calibration text on its way through the model, layer by layer, as the quantized model will see it.

Each matrix is quantized for the inputs that the already quantized part gives it, with activations rounded as the
kernels round them. Beside it the original model reads the same text, so that a matrix can be asked to give what the
original gave, and not only to keep what it makes of inputs that are off already (GPTAQ, Li et al., 2025). One layer is
in memory at a time, and the residual streams of all sequences: in files once they are large. Going over a layer again
with its quantized weights gives the same numbers, so a run that was stopped needs only the layers it has written.
"""

import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import repeat
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from localinfer.graph.ops import Attend, GatedMLP, LayerOp, Linear, ShortConv
from localinfer.graph.weights import Checkpoint
from localinfer.reference.executor import Executor

IN_MEMORY = 1 << 30
"""Bytes of the residual stream above which it lies in a file."""

Stage = tuple[Linear, ...]
"""Matrices with one input, rounded together."""

Fit = Callable[[LayerOp, Stage, Tensor, Tensor | None], dict[str, Tensor]]
"""Is given an operation, the matrices of a stage of it, the mean of x x' over their inputs x, and that of (t - x) x',
t the original model's inputs; returns the matrices as quantized, and vectors that changed with them."""

Inputs = Callable[[Tensor], Tensor]
Again = Callable[[], Iterable[Tensor]]
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
        self.original = Executor(checkpoint)
        self.roundings = roundings
        self._scratch = scratch
        self._held: dict[str, Tensor] = {}
        sequences, length = tokens.shape
        shape = (sequences, length, checkpoint.spec.hidden_size)
        self.x = _space(shape, scratch)
        self.true = _space(shape, scratch) if follow else None
        table = checkpoint.graph.embed
        full = self.original.weight(table.table) if follow else None
        for number, sequence in enumerate(tokens):
            self.x[number] = embed(sequence)
            if self.true is not None and full is not None:
                self.true[number] = full[torch.from_numpy(sequence).long()] * table.scale
        self._look: Callable[[], None] = lambda: None
        self.forget()

    @torch.no_grad()
    def quantize(self, ops: Sequence[LayerOp], fit: Fit, look: Callable[[], None] = lambda: None) -> None:
        """Take the stream through one layer; after each stage all is computed with what `fit` has made of it. `look`
        is called with each sequence, and ends it by raising."""
        self._look = look
        for op, holds in _with_holds(ops):
            first, last = _stages(self, op)
            true_first, true_last = _stages(self.original, op)
            moments = self._moments(first[0][0], self._through(first[1]), self._true(true_first[1]))
            self.put(fit(op, first[0], *moments))
            inputs, true = self._cached_if_small(last), self._cached_if_small(true_last, original=True)
            self.put(fit(op, last[0], *self._moments(last[0][0], inputs, true)))
            self._advance(op, inputs, true, holds)
        self.forget()

    @torch.no_grad()
    def pass_over(self, ops: Sequence[LayerOp], matrices: Mapping[str, Tensor]) -> None:
        """Take the stream through a layer that is quantized already."""
        self.put(matrices)
        for op, holds in _with_holds(ops):
            inputs = self._through(_stages(self, op)[1][1])
            self._advance(op, inputs, self._true(_stages(self.original, op)[1][1]), holds)
        self.forget()

    def put(self, tensors: Mapping[str, Tensor]) -> None:
        """Use these matrices (by the name of the linear layer) and vectors (by tensor name) from here on."""
        self._cached.update(tensors)

    def forget(self) -> None:
        """Let go of the weights of the layer."""
        self._cached.clear()
        self.original.forget()

    def linear(self, linear: Linear, x: Tensor) -> Tensor:
        return super().linear(linear, rounded(x, self.roundings[linear.name]))

    def _through(self, inputs: Inputs) -> Again:
        """The inputs of a stage for all sequences, computed each time they are asked for."""
        return lambda: self._each(inputs, self.x)

    def _true(self, inputs: Inputs) -> Again | None:
        """The same in the original model."""
        true = self.true
        return None if true is None else lambda: self._each(inputs, true)

    def _each(self, inputs: Inputs, stream: Tensor) -> Iterator[Tensor]:
        for x in stream:
            self._look()
            yield inputs(x)

    def _cached_if_small(self, stage: tuple[Stage, Inputs], original: bool = False) -> Again | None:
        """As `_through` or `_true`, computed once if there is room for them."""
        again = self._true(stage[1]) if original else self._through(stage[1])
        if again is None or 4 * self.x.shape[0] * self.x.shape[1] * stage[0][0].cols > IN_MEMORY:
            return again
        cached = list(again())
        return lambda: cached

    def _moments(self, linear: Linear, inputs: Again | None, true: Again | None) -> tuple[Tensor, Tensor | None]:
        assert inputs is not None
        total = torch.zeros(linear.cols, linear.cols)
        apart = torch.zeros(linear.cols, linear.cols) if true else None
        count = self.x.shape[0] * self.x.shape[1]
        originals = true() if true else repeat(None)
        for x, t in zip(inputs(), originals, strict=False):
            seen = rounded(x, self.roundings[linear.name])
            total.addmm_(seen.T, seen)
            if apart is not None and t is not None:
                apart.addmm_((t - seen).T, seen)
        return total / count, None if apart is None else apart / count

    def _advance(self, op: LayerOp, inputs: Again | None, true: Again | None, holds: bool) -> None:
        """Add to the streams what `op` makes of the inputs of its last stage; `holds`: once the next one adds to them,
        which reads the same."""
        ((last,),) = op.fused()[1:]
        for name, stream, model, seen in (("x", self.x, self, inputs), ("true", self.true, self.original, true)):
            if stream is None or seen is None:
                continue
            held = self._held.pop(name, None)
            to = _space(tuple(stream.shape), self._scratch) if holds else stream
            for number, given in enumerate(seen()):
                self._look()
                added = model.norm(op.output_norm(), model.linear(last, given))
                if holds:
                    to[number] = added
                    continue
                if held is not None:
                    to[number] += held[number]
                to[number] += added
            if holds:
                self._held[name] = to


INNER: Mapping[type[LayerOp], Callable[[Executor], Callable[[Any, Tensor], Tensor]]] = {
    Attend: lambda model: model.mixed,
    GatedMLP: lambda model: model.hidden,
    ShortConv: lambda model: model.convolved,
}
"""What computes the input of an operation's last stage from the residual stream."""


def _stages(model: Executor, op: LayerOp) -> tuple[tuple[Stage, Inputs], tuple[Stage, Inputs]]:
    """The two stages of `op`, and how the input of each comes from the residual stream in `model`."""
    first, last = op.fused()
    return (first, partial(model.norm, op.input_norm())), (last, partial(INNER[type(op)](model), op))


def _with_holds(ops: Sequence[LayerOp]) -> Iterator[tuple[LayerOp, bool]]:
    """Each operation, and whether the next one reads what it reads."""
    for op, after in zip(ops, [*ops[1:], None], strict=True):
        yield op, after is not None and after.reads_before()


def _space(shape: tuple[int, ...], scratch: Path) -> Tensor:
    """Room for the stream, in memory or in a file without a name, which goes with the process."""
    nbytes = 4 * int(np.prod(shape))
    if nbytes <= IN_MEMORY:
        return torch.empty(shape)
    with tempfile.TemporaryFile(dir=scratch) as file:
        file.truncate(nbytes)
        return torch.from_numpy(np.memmap(file, np.float32, "r+", shape=shape))
