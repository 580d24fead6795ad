"""A stream of calibration text on its way through a mixture of experts: each expert for the rows that choose it.

Both models route for themselves: what the quantized one sends to an expert is what that one is rounded for, and the
original's expert is asked what it makes of the same rows. One expert's matrices are in memory at a time, beside the
inputs and the sums of all rows, which are flat here: sequence after sequence.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from localinfer.graph.ops import Expert, Linear, Mixture
from localinfer.quantize.moments import Fit, Moments, Stage, add_square, whole
from localinfer.quantize.readers import Streams
from localinfer.reference.executor import Executor

ROWS = 4096
"""Rows that go through a matrix at once."""


@dataclass(slots=True)
class _Side:
    """One of the two models: what its experts read, which rows choose them, and what they add up to."""

    model: Executor
    normed: Tensor
    read: Tensor
    chosen: Tensor
    weights: Tensor
    total: Tensor

    def rows_of(self, expert: int) -> tuple[Tensor, Tensor]:
        """The rows that chose `expert`, and the weights [n, 1] that they give it."""
        rows, at = torch.where(self.chosen == expert)
        return rows, self.weights[rows, at, None]


class Experts:
    """Takes `stream` through `op`; `fit` None: its matrices are quantized already."""

    def __init__(self, stream: Streams, op: Mixture, fit: Fit | None) -> None:
        self._stream, self._op, self._fit = stream, op, fit
        self._mine = self._side(stream, stream.x)
        self._true = None if stream.true is None else self._side(stream.original, stream.true)
        self._sides = [side for side in (self._mine, self._true) if side is not None]
        self._every = torch.arange(len(self._mine.normed))

    def sums(self) -> dict[bool, Tensor]:
        """What `op` adds to the stream of the quantized model (True) and, where it is followed, of the original."""
        into, out_of = self._op.latent or (None, None)
        if into is not None:
            self._fit_first((into,), self._every, latent=False)
            for side in self._sides:
                side.read = self._through(side, into, side.normed)
                side.total = self._stream.space(into.rows).zero_()
        for number, expert in enumerate(self._op.experts):
            rows, _ = self._mine.rows_of(number)
            self._fit_expert(expert, rows, latent=True)
            for side in self._sides:
                self._add(side, expert, *side.rows_of(number))
            self._drop(expert)
        if out_of is not None:
            for side in self._sides:
                side.read = side.total
            self._fit_first((out_of,), self._every, latent=True)
            for side in self._sides:
                side.total = self._through(side, out_of, side.read)
        if self._op.shared is not None:
            self._fit_expert(self._op.shared, self._every, latent=False)
            for side in self._sides:
                self._add_shared(side, self._op.shared)
        return {side is self._mine: side.total for side in self._sides}

    def _side(self, model: Executor, stream: Tensor) -> _Side:
        op, flat = self._op, stream.view(-1, stream.shape[-1])
        normed, total = (self._stream.space(flat.shape[1]) for _ in range(2))
        parts = []
        for part in self._parts(torch.arange(len(flat))):
            normed[part] = model.norm(op.norm, flat[part])
            parts.append(model.routes(op, flat[part], normed[part]))
        weights, chosen = (torch.cat(one) for one in zip(*parts, strict=True))
        return _Side(model, normed, normed, chosen, weights, total.zero_())

    def _parts(self, rows: Tensor) -> Iterator[Tensor]:
        for first in range(0, len(rows), ROWS):
            self._stream.look()
            yield rows[first : first + ROWS]

    def _through(self, side: _Side, linear: Linear, x: Tensor) -> Tensor:
        made = self._stream.space(linear.rows)
        for part in self._parts(self._every):
            made[part] = side.model.linear(linear, x[part])
        return made

    def _fit_expert(self, expert: Expert, rows: Tensor, *, latent: bool) -> None:
        self._fit_first(expert.inputs(), rows, latent=latent)
        if self._fit is not None:
            self._stream.put(self._fit(self._op, (expert.down,), self._last_moments(expert, rows, latent=latent)))

    def _fit_first(self, stage: Stage, rows: Tensor, *, latent: bool) -> None:
        """Round matrices whose inputs are `rows` as the experts read them, or not `latent` as the norm gives them."""
        if self._fit is not None:
            self._stream.put(self._fit(self._op, stage, self._first_moments(stage[0], rows, latent=latent)))

    def _first_moments(self, linear: Linear, rows: Tensor, *, latent: bool) -> Moments:
        second = torch.zeros(linear.cols, linear.cols)
        apart = None if self._true is None else torch.zeros_like(second)
        for part in self._parts(rows):
            seen = self._stream.seen(linear, _read(self._mine, latent)[part])
            add_square(second, seen)
            if self._true is not None and apart is not None:
                apart.addmm_((_read(self._true, latent)[part] - seen).T, seen)
        count = max(1, len(rows))
        return Moments(whole(second).div_(count), len(rows), None if apart is None else apart.div_(count))

    def _last_moments(self, expert: Expert, rows: Tensor, *, latent: bool) -> Moments:
        """Of the inputs of `expert.down`."""
        down, count, original = expert.down, max(1, len(rows)), self._stream.original
        second, outputs = torch.zeros(down.cols, down.cols), torch.zeros(down.rows, down.cols)
        bias = self._stream.vector(f"{down.name}.bias") if down.bias else 0.0
        for part in self._parts(rows):
            seen = self._stream.seen(down, self._inner(self._mine, expert, part, latent=latent))
            add_square(second, seen)
            if self._true is not None:
                wanted = original.linear(down, self._inner(self._true, expert, part, latent=latent))
                outputs.addmm_((wanted - bias).T, seen)
        whole(second).div_(count)
        if self._true is None:
            return Moments(second.diagonal().clone(), len(rows))
        missing = outputs.div_(count).addmm_(original.weight(down), second, alpha=-1)
        return Moments(second, len(rows), missing=missing)

    def _inner(self, side: _Side, expert: Expert, part: Tensor, *, latent: bool) -> Tensor:
        return side.model.expert(self._op, expert, _read(side, latent)[part])

    def _add(self, side: _Side, expert: Expert, rows: Tensor, weights: Tensor) -> None:
        done = 0
        for part in self._parts(rows):
            made = side.model.linear(expert.down, self._inner(side, expert, part, latent=True))
            side.total[part] += weights[done : done + len(part)] * made
            done += len(part)

    def _add_shared(self, side: _Side, shared: Expert) -> None:
        op, model = self._op, side.model
        for part in self._parts(self._every):
            made = model.linear(shared.down, self._inner(side, shared, part, latent=False))
            gate = 1.0 if op.shared_gate is None else model.linear(op.shared_gate, side.normed[part]).sigmoid()
            side.total[part] += gate * made

    def _drop(self, expert: Expert) -> None:
        for side in self._sides:
            side.model.drop(expert.linears())


def _read(side: _Side, latent: bool) -> Tensor:
    return side.read if latent else side.normed
