"""Calibration text on its way through the model, layer by layer, as the quantized model will see it.

Each matrix is quantized for the inputs that the already quantized part gives it, with activations rounded as the
kernels round them. Beside it the original model reads the same text, so that a matrix can be asked to give what the
original gave, and not only to keep what it makes of inputs that are off already (GPTAQ, Li et al., 2025). One layer is
in memory at a time, and the residual streams of all sequences: in files once they are large. Going over a layer again
with its quantized weights gives the same numbers, so a run that was stopped needs only the layers it has written.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from localinfer.graph.ops import Attend, DeltaNet, GatedMLP, Head, LayerOp, Linear, Mamba2, Mixture, ShortConv
from localinfer.quantize.moments import Fit, Moments, Stage, add_square, whole
from localinfer.quantize.readers import Streams, grid, in_memory, space_for
from localinfer.quantize.stream_experts import Experts
from localinfer.reference.executor import Executor

Inputs = Callable[[Tensor], Tensor]
Again = Callable[[], Iterable[Tensor]]


class Stream(Streams):
    """Takes the streams through one layer after another."""

    @torch.no_grad()
    def quantize(self, ops: Sequence[LayerOp], fit: Fit, look: Callable[[], None] = lambda: None) -> None:
        """Take the stream through one layer; after each stage all is computed with what `fit` has made of it. `look`
        is called with each sequence, and ends it by raising."""
        self.look = look
        for op, holds in _with_holds(ops):
            if isinstance(op, Mixture):
                self._through_experts(op, holds, fit)
                continue
            (first, normed), (last, inner) = _stages(self, op)
            (_, true_normed), (_, true_inner) = _stages(self.original, op)
            self.put(fit(op, first, self._shared_moments(first[0], normed, true_normed)))
            seen = self._cached_if_small(last[0], inner)
            self.put(fit(op, last, self._last_moments(op, last[0], seen, true_inner, holds)))
            self._add(self, op, (self.product(last[0], x) for x in seen()), holds)
        self.forget()

    @torch.no_grad()
    def head_moments(self, head: Head, linear: Linear, look: Callable[[], None] = lambda: None) -> Moments:
        """Of the inputs of `head`, as its matrix `linear` sees them, once the stream has passed all layers."""
        self.look = look
        inputs, true_inputs = (partial(model.norm, head.norm) for model in (self, self.original))
        return self._shared_moments(linear, inputs, true_inputs)

    @torch.no_grad()
    def pass_over(self, ops: Sequence[LayerOp], matrices: Mapping[str, Tensor]) -> None:
        """Take the stream through a layer that is quantized already."""
        self.put(matrices)
        for op, holds in _with_holds(ops):
            if isinstance(op, Mixture):
                self._through_experts(op, holds)
                continue
            self._advance(self, op, self._each(_stages(self, op)[1][1], self.x), holds)
            if self.true is not None:
                self._advance(self.original, op, self._each(_stages(self.original, op)[1][1], self.true), holds)
        self.forget()

    def _each(self, inputs: Inputs, stream: Tensor) -> Iterator[Tensor]:
        for x in stream:
            self.look()
            yield inputs(x)

    def _cached_if_small(self, linear: Linear, inputs: Inputs) -> Again:
        """The inputs of a stage, its only matrix `linear`, as that sees them: computed once if there is room for them,
        which integers take less of."""
        rounding, numbers = self.roundings.get(linear.name), self.x.shape[0] * self.x.shape[1] * linear.cols
        if not in_memory(numbers * (4 if rounding is None else 1 + (rounding[0] > 127))):
            return lambda: (self.seen(linear, x) for x in self._each(inputs, self.x))
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
            seen = self.seen(linear, x)
            add_square(second, seen)
            if self.true is not None and apart is not None:
                apart.addmm_((true_inputs(self.true[number]) - seen).T, seen)
        count = self.x.shape[0] * self.x.shape[1]
        return Moments(whole(second).div_(count), count, None if apart is None else apart.div_(count))

    def _last_moments(self, op: LayerOp, linear: Linear, seen: Again, true_inputs: Inputs, holds: bool) -> Moments:
        """Of the last stage of `op`, its only matrix `linear`; takes the original's stream through `op`."""
        count = self.x.shape[0] * self.x.shape[1]
        if self.true is None:
            squares = torch.zeros(linear.cols)
            for x in seen():
                squares += x.square().sum(0)
            return Moments(squares / count, count)
        second = torch.zeros(linear.cols, linear.cols)
        outputs = torch.zeros(linear.rows, linear.cols)  # the sum of W t x'
        true = self._each(true_inputs, self.true)
        bias = self.vector(f"{linear.name}.bias") if linear.bias else 0.0

        def true_outputs() -> Iterator[Tensor]:
            for x, t in zip(seen(), true, strict=True):
                wanted = self.original.linear(linear, t)
                add_square(second, x)
                outputs.addmm_((wanted - bias).T, x)
                yield wanted

        self._add(self.original, op, true_outputs(), holds)
        whole(second).div_(count)
        return Moments(
            second, count, missing=outputs.div_(count).addmm_(self.original.weight(linear), second, alpha=-1)
        )

    def _through_experts(self, op: Mixture, holds: bool, fit: Fit | None = None) -> None:
        for mine, sums in Experts(self, op, fit).sums().items():
            self._add(self if mine else self.original, op, sums.view_as(self.x), holds)

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
        to = space_for(tuple(stream.shape), self.scratch) if holds else stream
        for number, output in enumerate(outputs):
            self.look()
            added = model.norm(op.output_norm(), output)
            if holds:
                to[number] = added
                continue
            before = [] if held is None else [held[number]]
            to[number] = model.joined(op, to[number], [*before, added])
        if holds:
            self._held[mine] = to


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
