"""Scales and norm gains trained end to end, with the integers frozen: the small model's words become the original's.

What is minimized is KL(original || small) of the next token over the whole vocabulary, on calibration text, through the
model as it will run: activations rounded to int8 as the kernels round them, with gradients passed straight through the
rounding. Every trained number is its first value times 1 + c, and Adam moves the c. The learning rate falls with the
work done, or with the time used if there is a limit to it and that is nearer.
"""

import math
import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from torch.utils.checkpoint import checkpoint as recomputed

from localinfer.formats.compressed import unpack
from localinfer.graph.ops import Attend, Embed, GatedMLP, Head, Linear, Norm
from localinfer.graph.stored import IntLinear
from localinfer.graph.weights import Checkpoint
from localinfer.quantize.stream import rounded
from localinfer.reference.executor import Executor, visible

RATE = 2e-3
"""Of the first steps: about the share by which a scale may change in one."""

WARM_UP = 0.05
"""Share of the work in which the rate rises to `RATE`."""

CHECKS = 5
"""So often the held-out text is looked at."""

PASSES = 2
"""Over the calibration text, if no time limit ends it before."""

HELD_OUT = 8
"""Sequences that are never trained on."""

_BETAS, _EPS = (0.9, 0.99), 1e-8
_ROWS = 128
"""Positions whose scores over the vocabulary are in memory at once."""


@dataclass(frozen=True, slots=True)
class State:
    """Where a training stands, after `step` sequences; all that is needed to go on with the same numbers."""

    step: int
    used: float
    """Seconds."""
    check: int
    """How many looks at the held-out text there were."""
    given: float
    """KL divergence on held-out text before the first step; of `best` it is `least`."""
    least: float
    change: Tensor
    mean: Tensor
    square: Tensor
    best: Tensor


def half_width() -> torch.dtype:
    """What matrices are multiplied in: bfloat16 where the processor has instructions for it (up to 4 times faster)."""
    has = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    return torch.bfloat16 if has() else torch.float32


class _Scaled(torch.autograd.Function):
    """x @ (integers * scales).T; the matrix is made when it is needed and never kept."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, scales: Tensor, integers: Tensor) -> Tensor:
        ctx.save_for_backward(x, scales, integers)
        return x @ _matrix(integers, scales, x.dtype).T

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> tuple[Tensor, Tensor, None]:
        x, scales, integers = ctx.saved_tensors
        slope = slopes[0]
        by_weight = (slope.T @ x).view(integers.shape)
        return slope @ _matrix(integers, scales, x.dtype), (by_weight * integers).sum(-1, dtype=torch.float32), None


def _matrix(integers: Tensor, scales: Tensor, kind: torch.dtype) -> Tensor:
    """int8 [rows, groups, group] times float32 [rows, groups] → [rows, columns]."""
    return (integers * scales.to(kind)[..., None]).view(len(integers), -1)


class _Runner(Executor):
    """The graph on one sequence, matrices multiplied in `kind`."""

    def __init__(self, model: Checkpoint, kind: torch.dtype) -> None:
        super().__init__(model)
        self.kind = kind

    def embedded(self, ids: Tensor) -> Tensor:
        embed = next(op for op in self.checkpoint.graph.ops if isinstance(op, Embed))
        return self.weight(embed.table)[ids].float() * embed.scale

    def half(self, op: Attend | GatedMLP, x: Tensor) -> Tensor:
        return x + (self.attend(op, x) if isinstance(op, Attend) else self.gated_mlp(op, x))

    def through(self, ids: Tensor) -> Tensor:
        """The residual stream after all layers."""
        x = self.embedded(ids)
        for op in self.checkpoint.graph.ops:
            if isinstance(op, Attend | GatedMLP):
                x = self.half(op, x)
        return x

    def attention(self, op: Attend, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        # Kept by position and head; torch wants heads first.
        q, k, v = (x.to(self.kind).transpose(0, 1)[None] for x in (q, k, v))
        mask = visible(q.shape[2], op.window) if op.window else None
        out = scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=mask is None, scale=op.scale)
        return out[0].transpose(0, 1).flatten(1).float()

    def linear(self, linear: Linear, x: Tensor) -> Tensor:
        y = (x.to(self.kind) @ self.weight(linear).T).float()
        return y + self.vector(f"{linear.name}.bias") if linear.bias else y

    def weight(self, linear: Linear) -> Tensor:
        if linear.name not in self._kept:
            self._kept[linear.name] = torch.from_numpy(self.checkpoint.matrix(linear.name)).to(self.kind)
        return self._kept[linear.name]


class Student(_Runner):
    """A quantized model whose scales and norm gains can be trained: `values`, a view for each tensor in `parts`."""

    def __init__(self, model: Checkpoint, kind: torch.dtype) -> None:
        super().__init__(model, kind)
        tables = {op.table for op in model.graph.ops if isinstance(op, Embed | Head)}
        self._integers: dict[str, Tensor] = {}
        self._tables = {linear.name for linear in tables}
        firsts: dict[str, Tensor] = {}
        for linear in model.graph.linears():
            if linear in tables:
                continue
            matrix = model.linear(linear.name)
            assert isinstance(matrix, IntLinear)
            integers = torch.from_numpy(unpack(matrix.packed, matrix.bits, matrix.cols))
            self._integers[linear.name] = integers.view(matrix.rows, -1, matrix.group)
            firsts[linear.name] = torch.from_numpy(matrix.scales).float()
        self._offsets = {f"{norm.name}.weight": norm.offset for norm in model.graph.norms()}
        firsts |= {name: torch.from_numpy(model.vector(name)) + offset for name, offset in self._offsets.items()}
        self.first = torch.cat([values.flatten() for values in firsts.values()])
        self.values, self.slopes = self.first.clone(), torch.zeros_like(self.first)
        self.parts: dict[str, Tensor] = {}
        at = 0
        for name, values in firsts.items():
            part = slice(at, at + values.numel())
            at = part.stop
            leaf = self.values[part].view_as(values).detach().requires_grad_()
            leaf.grad = self.slopes[part].view_as(values)
            self.parts[name] = leaf

    @torch.no_grad()
    def become(self, change: Tensor) -> None:
        """Every trained number is its first value times 1 + `change`."""
        torch.mul(self.first, 1 + change, out=self.values)

    def stored(self, change: Tensor) -> dict[str, NDArray[Any]]:
        """What to write for `change`, as "NAME scales" (float16) of a matrix and "NAME norm" (float32)."""
        self.become(change)
        self.as_stored()
        told: dict[str, NDArray[Any]] = {}
        for name, leaf in self.parts.items():
            values = leaf.detach().clone()
            if name in self._offsets:
                told[name.removesuffix(".weight") + " norm"] = (values - self._offsets[name]).numpy()
            else:
                told[f"{name} scales"] = values.half().numpy()
        return told

    def as_stored(self) -> None:
        """Take the scales as float16 has them."""
        with torch.no_grad():
            for name, leaf in self.parts.items():
                if name in self._integers:
                    leaf.copy_(leaf.clamp(-65504, 65504).half().float())

    def half(self, op: Attend | GatedMLP, x: Tensor) -> Tensor:
        if not torch.is_grad_enabled():
            return super().half(op, x)
        again: Tensor = recomputed(super().half, op, x, use_reentrant=False, preserve_rng_state=False)
        return again

    def linear(self, linear: Linear, x: Tensor) -> Tensor:
        _, group = self.checkpoint.form(linear.name)
        seen = x + (rounded(x.detach(), (127, group)) - x.detach())  # straight through
        if linear.name in self._tables:
            return super().linear(linear, seen)
        y: Tensor = _Scaled.apply(  # type: ignore[no-untyped-call]
            seen.to(self.kind), self.parts[linear.name], self._integers[linear.name]
        ).float()
        return y + self.vector(f"{linear.name}.bias") if linear.bias else y

    def vector(self, name: str) -> Tensor:
        return self.parts[name] - self._offsets[name] if name in self._offsets else super().vector(name)

    def norm(self, norm: Norm | None, x: Tensor) -> Tensor:
        return x if norm is None else super().norm(norm, x)


class Distillation:
    """Trains `model`, the small form of `original`, on `tokens` [sequences, 512]; some of these are held out.

    One step takes one sequence. Nothing depends on the clock until `seconds` of a limit end it.
    """

    def __init__(
        self, original: Checkpoint, model: Checkpoint, tokens: NDArray[np.int32], seed: int, seconds: float = 0.0
    ) -> None:
        kind = half_width()
        self.teacher, self.student = _Runner(original, kind), Student(model, kind)
        self.seed, self.seconds = seed, seconds
        ids = torch.from_numpy(tokens).long()
        count = min(HELD_OUT, max(1, len(ids) // 8))
        self.held_out, self.text = ids[:count], ids[count:]
        self.steps = PASSES * len(self.text)
        self._seen: dict[int, Tensor] = {}
        self._head = next(op for op in original.graph.ops if isinstance(op, Head))

    def begin(self) -> State:
        """Before the first step."""
        none = torch.zeros_like(self.student.first)
        self.student.become(none)
        given = self.divergence()
        return State(0, 0.0, 0, given, given, none, none.clone(), none.clone(), none.clone())

    def progress(self, state: State) -> float:
        """From 0 to 1, by steps or by time."""
        return min(1.0, max(state.step / self.steps, state.used / self.seconds if self.seconds else 0.0))

    def run(self, state: State, clock: Callable[[], float], on_step: Callable[[State], None]) -> State:
        """Go on from `state` to the end; `on_step` is told of each state."""
        before = clock() - state.used
        while (share := self.progress(state)) < 1:
            state = replace(self._step(state, share), used=clock() - before)
            due = int(self.progress(state) * CHECKS + 1e-9)
            if due > state.check:
                state = self._checked(replace(state, check=due))
                state = replace(state, used=clock() - before)
            on_step(state)
        return state

    def _checked(self, state: State) -> State:
        self.student.become(state.change)
        now = self.divergence()
        return replace(state, least=now, best=state.change.clone()) if now < state.least else state

    @torch.no_grad()
    def divergence(self) -> float:
        """Mean KL(original || small) on held-out text, with the values as they would be stored."""
        self.student.as_stored()
        each = [
            self._compare(-1 - i, ids, self.student.through(ids), learn=False)[0] for i, ids in enumerate(self.held_out)
        ]
        mean = sum(each) / len(each)
        return mean if math.isfinite(mean) else math.inf

    def _step(self, state: State, share: float) -> State:
        student = self.student
        student.become(state.change)
        student.slopes.zero_()
        turn, at = divmod(state.step, len(self.text))
        order = list(range(len(self.text)))
        random.Random(f"{self.seed} {turn}").shuffle(order)
        ids = self.text[order[at]]
        x = student.through(ids)
        _, slope = self._compare(order[at], ids, x.detach(), learn=True)
        x.backward(slope)  # type: ignore[no-untyped-call]
        slopes = student.slopes * student.first
        step = state.step + 1
        mean = _BETAS[0] * state.mean + (1 - _BETAS[0]) * slopes
        square = _BETAS[1] * state.square + (1 - _BETAS[1]) * slopes**2
        rate = RATE * min(1.0, share / WARM_UP + 0.1) * (1 + math.cos(math.pi * share)) / 2
        move = (mean / (1 - _BETAS[0] ** step)) / ((square / (1 - _BETAS[1] ** step)).sqrt() + _EPS)
        change = (state.change - rate * move).clamp(-0.5, 0.5)
        if not bool(torch.isfinite(change).all()):
            return replace(state, step=step)  # a step into nothing is not taken
        return replace(state, step=step, change=change, mean=mean, square=square)

    def _compare(self, number: int, ids: Tensor, x: Tensor, *, learn: bool) -> tuple[float, Tensor]:
        """KL divergence a position, and if we `learn` its slope by the residual stream `x` after the layers."""
        if number not in self._seen:
            with torch.no_grad():
                self._seen[number] = self.teacher.through(ids)
        total, slopes = 0.0, []
        for true, mine in zip(torch.split(self._seen[number], _ROWS), torch.split(x, _ROWS), strict=True):
            with torch.no_grad():
                wanted = self.teacher.head(self._head, true).log_softmax(-1)
            leaf = mine.clone().requires_grad_(learn)
            got = self.student.head(self._head, leaf)
            apart = (wanted.exp() * (wanted - got.log_softmax(-1))).sum() / len(x)
            total += float(apart.detach())
            if learn:
                apart.backward()  # type: ignore[no-untyped-call]
                assert leaf.grad is not None
                slopes.append(leaf.grad)
        return total, torch.cat(slopes) if slopes else x
