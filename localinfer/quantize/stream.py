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
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from localinfer.graph.ops import Attend, DeltaNet, GatedMLP, Head, LayerOp, Linear, Mamba2, ShortConv
from localinfer.graph.weights import Checkpoint
from localinfer.records import dataclass
from localinfer.reference.executor import Executor

IN_MEMORY = 1 << 30
"""Bytes of the residual stream above which it lies in a file."""

Stage = tuple[Linear, ...]
"""Matrices with one input, rounded together."""

TOGETHER = 512
"""Columns of second moments that are added to at once."""


@dataclass(frozen=True, slots=True)
class Moments:
    """Of the inputs x of a stage: `second` [K, K], the mean of x x'; of a last stage its diagonal [K] alone where the
    original is not followed, since nothing else is asked of it.

    Where the original model, whose inputs are t, is followed, also `apart` [K, K], the mean of (t - x) x', or of a
    single matrix W [N, K] `missing` [N, K], that of W (t - x) x'.
    """

    second: Tensor
    apart: Tensor | None = None
    missing: Tensor | None = None


Fit = Callable[[LayerOp, Stage, Moments], dict[str, Tensor]]
"""Is given an operation and the matrices of a stage of it; returns them as quantized, and vectors that changed."""

Inputs = Callable[[Tensor], Tensor]
Again = Callable[[], Iterable[Tensor]]
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


class Stream(Reader):
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
        self.original = Reader(checkpoint)
        self.roundings = roundings
        self._scratch = scratch
        self._held: dict[bool, Tensor] = {}
        self._latest: tuple[Tensor, Rounding, Tensor] | None = None
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
            (first, normed), (last, inner) = _stages(self, op)
            (_, true_normed), (_, true_inner) = _stages(self.original, op)
            self.put(fit(op, first, self._shared_moments(first[0], normed, true_normed)))
            seen = self._cached_if_small(last[0], inner)
            self.put(fit(op, last, self._last_moments(op, last[0], seen, true_inner, holds)))
            self._add(self, op, (self._product(last[0], x) for x in seen()), holds)
        self.forget()

    @torch.no_grad()
    def head_moments(self, head: Head, linear: Linear, look: Callable[[], None] = lambda: None) -> Moments:
        """Of the inputs of `head`, as its matrix `linear` sees them, once the stream has passed all layers."""
        self._look = look
        inputs, true_inputs = (partial(model.norm, head.norm) for model in (self, self.original))
        return self._shared_moments(linear, inputs, true_inputs)

    @torch.no_grad()
    def pass_over(self, ops: Sequence[LayerOp], matrices: Mapping[str, Tensor]) -> None:
        """Take the stream through a layer that is quantized already."""
        self.put(matrices)
        for op, holds in _with_holds(ops):
            self._advance(self, op, self._each(_stages(self, op)[1][1], self.x), holds)
            if self.true is not None:
                self._advance(self.original, op, self._each(_stages(self.original, op)[1][1], self.true), holds)
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
        return self._product(linear, self._seen(linear, x))

    def _product(self, linear: Linear, seen: Tensor) -> Tensor:
        """Of `linear` and its inputs as it sees them."""
        return super().linear(linear, seen)

    def _seen(self, linear: Linear, x: Tensor) -> Tensor:
        """`x` as `linear` sees it, which may be one of floats; kept for the next matrix, which may read the same."""
        if linear.name not in self.roundings:
            return x
        rounding = self.roundings[linear.name]
        if self._latest is None or self._latest[0] is not x or self._latest[1] != rounding:
            self._latest = (x, rounding, rounded(x, rounding))
        return self._latest[2]

    def _each(self, inputs: Inputs, stream: Tensor) -> Iterator[Tensor]:
        for x in stream:
            self._look()
            yield inputs(x)

    def _cached_if_small(self, linear: Linear, inputs: Inputs) -> Again:
        """The inputs of a stage, its only matrix `linear`, as that sees them: computed once if there is room for them,
        which integers take less of."""
        rounding, numbers = self.roundings.get(linear.name), self.x.shape[0] * self.x.shape[1] * linear.cols
        if numbers * (4 if rounding is None else 1 + (rounding[0] > 127)) > IN_MEMORY:
            return lambda: (self._seen(linear, x) for x in self._each(inputs, self.x))
        if rounding is None:
            cached = list(self._each(inputs, self.x))
            return lambda: cached
        kind = torch.int8 if rounding[0] <= 127 else torch.int16
        kept = [(q.to(kind), s) for q, s in (grid(x, rounding) for x in self._each(inputs, self.x))]
        return lambda: ((q * s).flatten(-2) for q, s in kept)

    def _shared_moments(self, linear: Linear, inputs: Inputs, true_inputs: Inputs) -> Moments:
        """Of a stage whose first matrix is `linear`."""
        second = torch.zeros(linear.cols, linear.cols)
        apart = None if self.true is None else torch.zeros_like(second)
        for number, x in enumerate(self._each(inputs, self.x)):
            seen = self._seen(linear, x)
            _add_square(second, seen)
            if self.true is not None and apart is not None:
                apart.addmm_((true_inputs(self.true[number]) - seen).T, seen)
        count = self.x.shape[0] * self.x.shape[1]
        return Moments(_whole(second).div_(count), None if apart is None else apart.div_(count))

    def _last_moments(self, op: LayerOp, linear: Linear, seen: Again, true_inputs: Inputs, holds: bool) -> Moments:
        """Of the last stage of `op`, its only matrix `linear`; takes the original's stream through `op`."""
        count = self.x.shape[0] * self.x.shape[1]
        if self.true is None:
            squares = torch.zeros(linear.cols)
            for x in seen():
                squares += x.square().sum(0)
            return Moments(squares / count)
        second = torch.zeros(linear.cols, linear.cols)
        outputs = torch.zeros(linear.rows, linear.cols)  # the sum of W t x'
        true = self._each(true_inputs, self.true)
        bias = self.vector(f"{linear.name}.bias") if linear.bias else 0.0

        def true_outputs() -> Iterator[Tensor]:
            for x, t in zip(seen(), true, strict=True):
                wanted = self.original.linear(linear, t)
                _add_square(second, x)
                outputs.addmm_((wanted - bias).T, x)
                yield wanted

        self._add(self.original, op, true_outputs(), holds)
        _whole(second).div_(count)
        return Moments(second, missing=outputs.div_(count).addmm_(self.original.weight(linear), second, alpha=-1))

    def _advance(self, model: Executor, op: LayerOp, inputs: Iterable[Tensor], holds: bool) -> None:
        """Take a stream through `op`, of whose last stage `inputs` are the inputs."""
        (last,) = op.fused()[-1]
        self._add(model, op, (model.linear(last, given) for given in inputs), holds)

    def _add(self, model: Executor, op: LayerOp, outputs: Iterable[Tensor], holds: bool) -> None:
        """Add to the stream of `model` the `outputs` of the last stage of `op`; `holds`: once the next operation adds
        to it, which reads the same."""
        mine = model is self
        stream = self.x if mine else self.true
        assert stream is not None
        held = self._held.pop(mine, None)
        to = _space(tuple(stream.shape), self._scratch) if holds else stream
        for number, output in enumerate(outputs):
            self._look()
            added = model.norm(op.output_norm(), output)
            if holds:
                to[number] = added
                continue
            if held is not None:
                to[number] += held[number]
            to[number] = model.joined(op, to[number], added)
        if holds:
            self._held[mine] = to


def _add_square(total: Tensor, x: Tensor) -> None:
    """Add x' x of `x` [n, K] to `total` [K, K], on and above its diagonal."""
    for first in range(0, len(total), TOGETHER):
        last = first + TOGETHER
        total[:last, first:last].addmm_(x[:, :last].T, x[:, first:last])


def _whole(total: Tensor) -> Tensor:
    """`total`, of which only what is on and above the diagonal was added to, mirrored in place."""
    for first in range(TOGETHER, len(total), TOGETHER):
        last = first + TOGETHER
        total[first:last, :first] = total[:first, first:last].T
    return total


INNER: Mapping[type[LayerOp], Callable[[Executor], Callable[[Any, Tensor], Tensor]]] = {
    Attend: lambda model: model.mixed,
    GatedMLP: lambda model: model.hidden,
    ShortConv: lambda model: model.convolved,
    DeltaNet: lambda model: model.corrected,
    Mamba2: lambda model: model.scanned,
}
"""What computes the input of an operation's last stage from the residual stream."""


def _stages(model: Executor, op: LayerOp) -> tuple[tuple[Stage, Inputs], tuple[Stage, Inputs]]:
    """The two stages of `op`, and how the input of each comes from the residual stream in `model`."""
    first, *_, last = op.fused()
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
