"""Integers that training may change: each is the nearest to a number that moves (the straight-through estimator).

The numbers are weights in steps of their scale. At first each lies as near to the original weight as it can without
another integer becoming the nearest, so training begins from exactly the model that was given, and the weights that
were rounded from furthest away are the first to turn. The slope by a number is that by its weight, times the scale,
as if nothing were rounded. Adam moves them; what it divides by is shared by a group, which differs little and takes a
thirty-second of the memory.
"""

from collections.abc import Iterable

import torch
from torch import Tensor

from localinfer.graph.weights import Checkpoint
from localinfer.quantize.report import folds
from localinfer.quantize.student import Student

WITHIN = 0.49
"""How far from its integer a number may begin."""

BETAS, _EPS = (0.9, 0.99), 1e-10
_TINY = 1e-20


class Moving:
    """The numbers behind the integers of `student`: `at`, and of their slopes the `drift` and, by group, the `power`.

    All three are flat, in the order of the student's integers. `rate` is about how far a slope moves a number, and
    `step` counts the slopes that each matrix has had, from 1.
    """

    def __init__(self, student: Student, original: Checkpoint) -> None:
        self.student = student
        self.rate, self.step = 0.0, 1
        self.at = student.numbers.float()
        self.drift = torch.zeros(len(self.at), dtype=torch.bfloat16)
        self.power = torch.zeros(sum(integers[..., 0].numel() for integers in student.integers.values()))
        self._ranges: dict[str, tuple[slice, slice]] = {}
        first, by_group, folded = 0, 0, folds(original, student.checkpoint)
        for name, integers in student.integers.items():
            count, groups = integers.numel(), integers[..., 0].numel()
            self._ranges[name] = slice(first, first + count), slice(by_group, by_group + groups)
            first, by_group = first + count, by_group + groups
            weights = torch.from_numpy(original.matrix(name) * folded.get(name, 1)).float().view(integers.shape)
            scales = student.parts[name].detach()[..., None]
            away = torch.where(scales == 0, 0, weights / torch.where(scales == 0, 1, scales) - integers)
            self._view(name)[0].add_(away.clamp(-WITHIN, WITHIN))

    def _view(self, name: str) -> tuple[Tensor, Tensor, Tensor]:
        shape = self.student.integers[name].shape
        numbers, groups = self._ranges[name]
        return self.at[numbers].view(shape), self.drift[numbers].view(shape), self.power[groups].view(shape[:-1])

    @torch.no_grad()
    def learn(self, name: str, slope: Tensor) -> None:
        """Move the numbers of matrix `name` against `slope` [rows, groups, group], and the integers with them."""
        at, drift, power = self._view(name)
        scales = self.student.parts[name].detach()
        slope = slope.float() * torch.sign(scales)[..., None]
        now = slope.pow(2).mean(-1)
        if not bool(torch.isfinite(now).all()):
            return
        power.lerp_(now, 1 - BETAS[1])
        drift.lerp_(slope.to(drift.dtype), 1 - BETAS[0])
        size = (power / (1 - BETAS[1] ** self.step)).sqrt_().add_(_TINY).mul_(1 - BETAS[0] ** self.step)
        at.addcmul_(drift.float(), (self.rate / size)[..., None], value=-1)
        self._follow(name)

    def take(self, at: Tensor, drift: Tensor, power: Tensor) -> None:
        """Go on from these."""
        self.at, self.drift, self.power = at, drift, power
        for name in self.student.integers:
            self._follow(name)

    def copy(self, names: Iterable[str]) -> dict[str, Tensor]:
        """The numbers of these matrices, for `put_back`."""
        return {name: self._view(name)[0].clone() for name in names}

    def put_back(self, numbers: dict[str, Tensor]) -> None:
        """Take back what happened to some numbers since they were copied."""
        for name, values in numbers.items():
            self._view(name)[0].copy_(values)
            self._follow(name)

    def _follow(self, name: str) -> None:
        """Make each integer of a matrix the nearest there is to its number."""
        half, at = 1 << (self.student.bits[name] - 1), self._view(name)[0]
        at.clamp_(-half - 0.5, half - 0.5)
        self.student.integers[name].copy_(at.round().clamp_(-half, half - 1))

    def forget(self) -> None:
        """Begin another training: the numbers stay, what was learned of their slopes goes."""
        self.drift.zero_()
        self.power.zero_()
        self.step = 1


def adam(
    change: Tensor, mean: Tensor, square: Tensor, slopes: Tensor, step: int, rate: float
) -> tuple[Tensor, Tensor, Tensor]:
    """One step of Adam, the `step`th: what was trained, and the means of its slopes and of their squares."""
    mean = BETAS[0] * mean + (1 - BETAS[0]) * slopes
    square = BETAS[1] * square + (1 - BETAS[1]) * slopes**2
    move = (mean / (1 - BETAS[0] ** step)) / ((square / (1 - BETAS[1] ** step)).sqrt() + _EPS)
    return (change - rate * move).clamp(-0.5, 0.5), mean, square
