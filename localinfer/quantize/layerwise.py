"""The first part of `qat`: one decoder layer after another is trained to give what the original's gives.

A layer's inputs are those that the layers before it, already trained, give it; what it should come to is the residual
stream of the original model, so that it also makes up for what is off by then. Errors count by the size of the token's
stream, as the norms after it will see them. Each layer is judged on sequences that it was not trained on, and what did
not help is taken back.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from localinfer.graph.ops import LayerOp
from localinfer.quantize.moving import Moving, adam
from localinfer.quantize.student import Runner, Student

JUDGES = 4
"""So many more judge what came of it."""

PASSES = 3


@dataclass(frozen=True, slots=True)
class Rates:
    """Learning rates of the first steps: `scales` as a share of them, `numbers` in steps of the scale."""

    scales: float
    numbers: float


class Layerwise:
    """Trains the layers of `student`, on `sequences` at most. The first `held_out` of `ids` [sequences, length] are not
    used to train on. Layers must be trained in their order, or be passed over."""

    def __init__(
        self, teacher: Runner, student: Student, moving: Moving, ids: Tensor, held_out: int, sequences: int
    ) -> None:
        self.teacher, self.student, self.moving = teacher, student, moving
        self._layers = student.checkpoint.graph.layers
        self.count = len(self._layers)
        self._judges = min(JUDGES, held_out)
        self._ids = torch.cat([ids[: self._judges], ids[held_out : held_out + sequences]])
        self._x: list[Tensor] = []
        self._true: list[Tensor] = []

    @torch.no_grad()
    def pass_over(self, change: Tensor, layers: int) -> None:
        """Take the streams through the first `layers` layers, trained already."""
        self.student.become(change)
        self._x = [self.student.embedded(ids) for ids in self._ids]
        self._true = [self.teacher.embedded(ids) for ids in self._ids]
        for ops in self._layers[:layers]:
            self._x = [self.student.after(ops, x) for x in self._x]
            self._true = [self.teacher.after(ops, x) for x in self._true]

    def train(self, change: Tensor, layer: int, rates: Rates, late: Callable[[], bool]) -> Tensor:
        """Train layer number `layer` until it is `late`, or done; returns `change` with that of its parts."""
        ops, student, moving = self._layers[layer], self.student, self.moving
        with torch.no_grad():
            self._true = [self.teacher.after(ops, x) for x in self._true]
        every = (linear.name for op in ops for linear in op.linears())
        matrices = [name for name in every if name in student.integers]
        norms = dict.fromkeys(f"{norm.name}.weight" for op in ops for norm in op.norms())
        names = [*matrices, *norms]
        indices = torch.cat([torch.arange(*student.ranges[name].indices(len(change))) for name in names])
        before, numbers = self._error(ops, change), moving.copy(matrices)
        mean, square = torch.zeros(len(indices)), torch.zeros(len(indices))
        new, steps = change.clone(), PASSES * (len(self._ids) - self._judges)
        student.learn = moving.learn
        for step in range(1, steps + 1):
            height = 1 - (step - 1) / steps
            moving.step, moving.rate = step, rates.numbers * height
            student.become(new)
            slopes = self._slopes(ops, self._number(layer, step))[indices] * student.first[indices]
            moved, mean, square = adam(new[indices], mean, square, slopes, step, rates.scales * height)
            if bool(torch.isfinite(moved).all()):
                new[indices] = moved
            if late():
                break
        student.learn = None
        if not self._error(ops, new) < before:
            moving.put_back(numbers)
            new = change
        student.become(new)
        with torch.no_grad():
            self._x = [student.after(ops, x) for x in self._x]
        return new

    def forget(self) -> None:
        """Let go of the streams."""
        self._x, self._true = [], []

    def _number(self, layer: int, step: int) -> int:
        """The sequence for a step: all of them once in each pass, shuffled."""
        count = len(self._ids) - self._judges
        turn, at = divmod(step - 1, count)
        order = list(range(count))
        random.Random(f"{layer} {turn}").shuffle(order)
        return self._judges + order[at]

    def _slopes(self, ops: Sequence[LayerOp], number: int) -> Tensor:
        """Of all that can be trained, for one sequence."""
        student, true = self.student, self._true[number]
        student.slopes.zero_()
        y = student.after(ops, self._x[number])
        y.backward((y.detach() - true) * _weights(true))  # type: ignore[no-untyped-call]
        return student.slopes

    @torch.no_grad()
    def _error(self, ops: Sequence[LayerOp], change: Tensor) -> float:
        """Of the sequences that judge, with `change` as it would be stored."""
        streams = list(zip(self._x, self._true, strict=True))[: self._judges]
        self.student.become(change)
        self.student.as_stored()
        errors = [(self.student.after(ops, x) - true).pow(2) * _weights(true) for x, true in streams]
        return float(torch.stack(errors).mean())


def _weights(true: Tensor) -> Tensor:
    """What an error counts at each position of a stream [n, hidden]."""
    return 1 / (true.pow(2).mean(-1, keepdim=True) + 1e-9) / len(true)
