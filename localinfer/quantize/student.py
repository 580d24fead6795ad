"""Models as they are while one learns from the other: the graph in torch, on one sequence, with slopes where wanted.

Activations are rounded to int8 as the kernels round them and slopes are passed straight through the rounding. Where
the processor multiplies bfloat16 fast, matrices are multiplied in that.
"""

from collections.abc import Callable
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from torch.utils.checkpoint import checkpoint as recomputed

from localinfer.formats.compressed import unpack
from localinfer.graph.ops import Attend, LayerOp, Linear, Norm
from localinfer.graph.stored import IntLinear
from localinfer.graph.weights import Checkpoint
from localinfer.quantize.readers import rounded
from localinfer.reference.executor import Executor, as_stream, visible

MOST_CACHED = 3 << 30
"""Bytes of activations of one sequence above which layers are computed again on the way back, and not kept."""

Learn = Callable[[str, Tensor], None]
"""Is given the slope by a whole matrix, [rows, groups, group], when it is known."""


def half_width() -> torch.dtype:
    """What matrices are multiplied in: bfloat16 where the processor has instructions for it (up to 4 times faster)."""
    has = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    return torch.bfloat16 if has() else torch.float32


class Runner(Executor):
    """The graph on one sequence, matrices multiplied in `kind`."""

    def __init__(self, model: Checkpoint, kind: torch.dtype) -> None:
        super().__init__(model)
        self.kind = kind

    def embedded(self, ids: Tensor) -> Tensor:
        """Token ids [n] to the first residual stream [n, hidden]."""
        embed = self.checkpoint.graph.embed
        return as_stream(embed, self.weight(embed.table)[ids].float())

    def attention(self, op: Attend, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        if op.softcap:  # torch's own attention knows none
            return super().attention(op, q, k, v)
        # Kept by position and head; torch wants heads first.
        q, k, v = (x.to(self.kind).transpose(0, 1)[None] for x in (q, k, v))
        mask = visible(q.shape[2], op.window) if op.window else None
        out = scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=mask is None, scale=op.scale)
        return out[0].transpose(0, 1).flatten(1).float()

    def linear(self, linear: Linear, x: Tensor) -> Tensor:
        y = (x.to(self.kind) @ self.weight(linear).T).float()
        return y + self.vector(f"{linear.name}.bias") if linear.bias else y

    def weight(self, linear: Linear) -> Tensor:
        if linear.name not in self._cached:
            self._cached[linear.name] = torch.from_numpy(self.checkpoint.matrix(linear.name)).to(self.kind)
        return self._cached[linear.name]


class _Seen(torch.autograd.Function):
    """Activations as the kernels see them, in the type that matrices are multiplied in."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, group: int, kind: torch.dtype) -> Tensor:
        return rounded(x, (127, group)).to(kind)

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> tuple[Tensor, None, None]:
        return slopes[0].float(), None, None


class _Scaled(torch.autograd.Function):
    """x @ matrix.T, `matrix` being `integers` times `scales`; its slope goes to `learn` and, summed, to the scales."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, scales: Tensor, integers: Tensor, matrix: Tensor, learn: Any) -> Tensor:
        ctx.save_for_backward(x, matrix)
        ctx.integers, ctx.learn = integers, learn  # not saved: others of them change on the way back
        return x @ matrix.T

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> tuple[Tensor, Tensor, None, None, None]:
        x, matrix = ctx.saved_tensors
        slope, integers = slopes[0], ctx.integers
        by_input = slope @ matrix
        by_weight = (slope.T @ x).view(integers.shape)
        by_scale = (by_weight * integers).sum(-1, dtype=torch.float32)
        if ctx.learn is not None:
            ctx.learn(by_weight)
        return by_input, by_scale, None, None, None


class Student(Runner):
    """A quantized model whose scales and norm gains can be trained: `values`, a view for each tensor in `parts`.

    `integers` [rows, groups, group] of each matrix, views of `numbers`, may be changed too; `learn`, if there is one,
    is told their slopes.
    """

    def __init__(self, model: Checkpoint, kind: torch.dtype) -> None:
        super().__init__(model, kind)
        tables = model.graph.tables
        self.integers: dict[str, Tensor] = {}
        self.bits: dict[str, int] = {}
        self.learn: Learn | None = None
        self._tables = {linear.name for linear in tables}
        floats = model.graph.unquantized
        self._floats = {linear.name for linear in floats}
        self._matrices: dict[str, Tensor] = {}
        self._last: tuple[Tensor, Tensor] | None = None
        firsts: dict[str, Tensor] = {}
        body = [linear for linear in model.graph.linears() if linear not in tables | floats]
        self.numbers = torch.empty(sum(linear.rows * linear.cols for linear in body), dtype=torch.int8)
        at = 0
        for linear in body:
            matrix = model.linear(linear.name)
            assert isinstance(matrix, IntLinear)
            integers = self.numbers[at : at + matrix.rows * matrix.cols].view(matrix.rows, -1, matrix.group)
            integers.copy_(torch.from_numpy(unpack(matrix.packed, matrix.bits, matrix.cols)).view(integers.shape))
            self.integers[linear.name], self.bits[linear.name] = integers, matrix.bits
            firsts[linear.name] = torch.from_numpy(matrix.scales).float()
            at += integers.numel()
        self._offsets = {f"{norm.name}.weight": norm.offset for norm in model.graph.norms()}
        firsts |= {name: torch.from_numpy(model.vector(name)) + offset for name, offset in self._offsets.items()}
        self.first = torch.cat([values.flatten() for values in firsts.values()])
        self.values, self.slopes = self.first.clone(), torch.zeros_like(self.first)
        self.parts: dict[str, Tensor] = {}
        self.ranges: dict[str, slice] = {}
        at = 0
        for name, values in firsts.items():
            part = slice(at, at + values.numel())
            at = part.stop
            leaf = self.values[part].view_as(values).detach().requires_grad_()
            leaf.grad = self.slopes[part].view_as(values)
            self.parts[name], self.ranges[name] = leaf, part
        spec = model.spec
        width = 24 * spec.hidden_size + 8 * max(linear.cols for linear in model.graph.linears())
        self._bytes_a_token = 4 * width * spec.layers

    @torch.no_grad()
    def become(self, change: Tensor) -> None:
        """Every trained number is its first value times 1 + `change`."""
        torch.mul(self.first, 1 + change, out=self.values)
        self._matrices.clear()

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
                if name in self.integers:
                    leaf.copy_(leaf.clamp(-65504, 65504).half().float())
        self._matrices.clear()

    def added(self, op: LayerOp, x: Tensor) -> Tensor:
        if not torch.is_grad_enabled() or self._bytes_a_token * len(x) <= MOST_CACHED:
            return super().added(op, x)
        again: Tensor = recomputed(super().added, op, x, use_reentrant=False, preserve_rng_state=False)
        return again

    def linear(self, linear: Linear, x: Tensor) -> Tensor:
        if linear.name in self._floats:
            return super().linear(linear, x)
        seen = self._seen(x, self.checkpoint.form(linear.name)[1])
        if linear.name in self._tables:
            return super().linear(linear, seen)
        name, learn = linear.name, self.learn
        told = None if learn is None else lambda slope: learn(name, slope)
        integers = self.integers[name]
        y: Tensor = _Scaled.apply(  # type: ignore[no-untyped-call]
            seen, self.parts[name], integers, self._matrix(name), told
        ).float()
        return y + self.vector(f"{name}.bias") if linear.bias else y

    def _seen(self, x: Tensor, group: int) -> Tensor:
        """`x` as rounded; query, key and value have the same, and gate and up."""
        if self._last is None or self._last[0] is not x:
            self._last = (x, _Seen.apply(x, group, self.kind))  # type: ignore[no-untyped-call]
        return self._last[1]

    def _matrix(self, name: str) -> Tensor:
        """Integers times scales, [rows, columns]; made when it is first asked for after a change."""
        if name not in self._matrices:
            with torch.no_grad():
                integers, scales = self.integers[name], self.parts[name]
                self._matrices[name] = (integers * scales.to(self.kind)[..., None]).view(len(integers), -1)
        return self._matrices[name]

    def vector(self, name: str) -> Tensor:
        return self.parts[name] - self._offsets[name] if name in self._offsets else super().vector(name)

    def norm(self, norm: Norm | None, x: Tensor) -> Tensor:
        return x if norm is None else super().norm(norm, x)
