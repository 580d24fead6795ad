"""The meaning of the operations, in plain torch and float32: an op at a time, the whole text at once, no cache.

Slow on purpose. Everything faster is compared with this. Long because each operation has its meaning here.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import accumulate
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn.functional import gelu, silu, softplus

from localinfer.graph.graph import together
from localinfer.graph.ops import (
    Attend,
    DeltaNet,
    DepthwiseConv,
    Embed,
    Expert,
    GatedMLP,
    Head,
    LayerInput,
    LayerOp,
    Linear,
    Mamba2,
    Mixture,
    Norm,
    ShortConv,
)
from localinfer.graph.rope import Rope
from localinfer.graph.spec import Activation
from localinfer.graph.weights import Checkpoint
from localinfer.reference.recurrences import delta_rule, scan_rule, unit


def logits(checkpoint: Checkpoint, token_ids: Sequence[int]) -> Tensor:
    """Scores of the next token after each of `token_ids`, float32 [n, vocab]."""
    return Executor(checkpoint).logits(token_ids)


class Executor:
    """Runs the graph of `checkpoint`. Weights are read at first use and kept, in float32."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.checkpoint = checkpoint
        self.context = 0
        """Tokens that the text may come to, where RoPE depends on it; 0: those of one call."""
        self._cached: dict[str, Tensor] = {}
        self._inputs: Tensor | None = None
        self._shares_kv = checkpoint.graph.shares_kv
        self._kept: list[tuple[Tensor, Tensor]] = []

    @torch.no_grad()
    def logits(self, token_ids: Sequence[int]) -> Tensor:
        """Scores of the next token after each of `token_ids`, float32 [n, vocab]."""
        return self.scores(token_ids)

    def scores(self, token_ids: Sequence[int], first: int = 0) -> Tensor:
        """The same after the rows from `first` on (negative: the last ones) only."""
        x = self.through(torch.tensor(list(token_ids), dtype=torch.long))
        return self.head(self.checkpoint.graph.head, x[first:])

    def through(self, ids: Tensor) -> Tensor:
        """The residual stream after all layers."""
        return self.after(self.checkpoint.graph.body, self.embedded(ids))

    def after(self, ops: Iterable[LayerOp], x: Tensor) -> Tensor:
        """The residual stream [n, hidden] after these operations."""
        for several in together(ops):
            x = self.joined(several[-1], x, [self.added(op, x) for op in several])
        return x

    def joined(self, op: LayerOp, x: Tensor, added: Sequence[Tensor]) -> Tensor:
        """The residual stream after `op`, the last of those that add this to it."""
        norm, name = op.joint_norm(), op.stream_scale()
        for one in added if norm is None else [self.norm(norm, torch.stack(list(added)).sum(0))]:
            x = x + one
        return x * self.vector(name).to(x.dtype) if name else x

    def embedded(self, ids: Tensor) -> Tensor:
        """Token ids [n] to the first residual stream [n, hidden]."""
        embed = self.checkpoint.graph.embed
        x = as_stream(embed, self.weight(embed.table)[ids])
        self._kept = []
        self._inputs = self.layer_inputs(ids, x)
        return x

    def layer_inputs(self, ids: Tensor, x: Tensor) -> Tensor | None:
        """What these tokens give to each layer, [n, layers, size]; x their embedding."""
        op = self.checkpoint.graph.inputs
        if op is None:
            return None
        shape = (len(ids), -1, op.norm.size)
        projected = (self.linear(op.project, x) * op.project_scale).view(shape)
        tokens = (self.weight(op.table)[ids] * op.table_scale).view(shape)
        return (self.norm(op.norm, projected) + tokens) * op.scale

    def layer_input(self, op: LayerInput, x: Tensor) -> Tensor:
        """What a layer's own input adds to the residual stream `x` [n, hidden]."""
        assert self._inputs is not None
        part = self._inputs[:, op.layer]
        return self.norm(
            op.post_norm, self.linear(op.project, activated(op.activation, self.linear(op.gate, x)) * part)
        )

    def added(self, op: LayerOp, x: Tensor) -> Tensor:
        """What `op` adds to the residual stream `x` [n, hidden]."""
        return ADDED[type(op)](self, op, x)

    def attend(self, op: Attend, x: Tensor) -> Tensor:
        """What attention adds to the residual stream `x` [n, hidden]."""
        return self.norm(op.post_norm, self.linear(op.o, self.mixed(op, x)))

    def mixed(self, op: Attend, x: Tensor) -> Tensor:
        """The values that attention mixed, all heads side by side: the input of `op.o`."""
        q, k, v, gates = self.projected(op, x)
        q, k, v = self.rounded("q", q), self.rounded("k", k), self.rounded("v", v)
        shared = op.heads // op.kv_heads  # that many query heads, in a row, read one key head
        out = self.attention(op, q, k.repeat_interleave(shared, dim=1), v.repeat_interleave(shared, dim=1))
        return gated_heads(op, out, gates)

    def projected(self, op: Attend, x: Tensor, first: int = 0) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        """Queries, keys and values [n, heads, head_dim] of rows that stand at positions `first` and on, and gates
        [n, heads * head_dim] if there are such."""
        n = x.shape[0]
        normed = self.norm(op.norm, x)
        q, gates = self.linear(op.q, normed), None
        if op.gate is not None:
            gates = self.linear(op.gate, normed)
        elif op.gated:
            q, gates = (part.reshape(n, -1) for part in q.view(n, op.heads, -1).chunk(2, dim=-1))
        q = self.ready_heads(op, op.q_norm, q, op.heads, first, op.rope.growth)
        if op.k is None:
            return q, *self._kept[op.kv_of], gates
        keys = self.linear(op.k, normed)
        k = self.ready_heads(op, op.k_norm, keys, op.kv_heads, first)
        values = keys if op.v is None else self.linear(op.v, normed)
        v = self.norm(op.v_norm, values.view(n, op.kv_heads, op.head_dim))
        if self._shares_kv:
            self._kept.append((k, v))
        return q, k, v, gates

    def ready_heads(
        self, op: Attend, norm: Norm | None, x: Tensor, heads: int, first: int, growth: float = 0.0
    ) -> Tensor:
        """Queries or keys x [n, heads * head_dim], normed and rotated: [n, heads, head_dim]."""
        if norm is not None and norm.size != op.head_dim:
            x, norm = self.norm(norm, x), None
        x = x.view(x.shape[0], heads, op.head_dim)
        if op.norm_after_rope:
            return self.norm(norm, rotate(x, op.rope, first, growth, self.context))
        return rotate(self.norm(norm, x), op.rope, first, growth, self.context)

    def attention(self, op: Attend, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Values [n, heads, head_dim] mixed as queries and keys say, all heads side by side."""
        n = q.shape[0]
        scores = capped(torch.einsum("qhd,khd->hqk", q, k) * op.scale, op.softcap)
        scores = scores.masked_fill(~visible(n, op.window), float("-inf"))
        out = torch.einsum("hqk,khd->qhd", self.shares(op, scores), v)
        return out.reshape(n, -1)

    def shares(self, op: Attend, scores: Tensor) -> Tensor:
        """The softmax of scores [heads, n, tokens]; a sink takes its share, which goes nowhere."""
        if not op.sinks:
            return scores.softmax(dim=-1)
        sinks = self.vector(op.sinks).to(scores.dtype)[:, None, None].expand(-1, scores.shape[1], 1)
        return torch.cat((scores, sinks), dim=-1).softmax(dim=-1)[..., :-1]

    def gated_mlp(self, op: GatedMLP, x: Tensor) -> Tensor:
        """What the feed-forward half adds to the residual stream `x` [n, hidden]."""
        return self.norm(op.post_norm, self.linear(op.down, self.hidden(op, x)))

    def hidden(self, op: GatedMLP, x: Tensor) -> Tensor:
        """Activated gates times ups: the input of `op.down`."""
        normed = self.norm(op.norm, x)
        inner = self.gated(op.gate, op.up, op.activation, normed)
        return inner if op.inner_scale == 1.0 else inner * op.inner_scale

    def gated(self, gate: Linear | None, up: Linear, activation: Activation, normed: Tensor) -> Tensor:
        """Activated gates times ups of rows that are normed; without a gate, activated ups."""
        x = self.linear(up if gate is None else gate, normed)
        x = activated(activation, x)
        return x if gate is None else x * self.linear(up, normed)

    def mixture(self, op: Mixture, x: Tensor) -> Tensor:
        """What the experts add to the residual stream `x` [n, hidden]."""
        normed = self.norm(op.norm, x)
        weights, chosen = self.routes(op, x, normed)
        read = normed if op.latent is None else self.linear(op.latent[0], normed)
        total = torch.zeros_like(read)
        for number, expert in enumerate(op.experts):
            rows, at = torch.where(chosen == number)
            if len(rows):
                made = self.linear(expert.down, self.expert(op, expert, read[rows]))
                total[rows] += weights[rows, at, None].to(made.dtype) * made
        if op.latent is not None:
            total = self.linear(op.latent[1], total)
        if op.shared is not None:
            made = self.linear(op.shared.down, self.expert(op, op.shared, normed))
            gate = 1.0 if op.shared_gate is None else self.linear(op.shared_gate, normed).sigmoid()
            total += gate * made
        return self.norm(op.post_norm, total)

    def routes(self, op: Mixture, x: Tensor, normed: Tensor) -> tuple[Tensor, Tensor]:
        """Of rows `x` [n, hidden], which experts read as `normed`, the weights and numbers of the chosen ones."""
        read = normed if op.router_norm is None else self.norm(op.router_norm, x)
        return self.routed(op, self.linear(op.router, read).float())

    def routed(self, op: Mixture, logits: Tensor) -> tuple[Tensor, Tensor]:
        """Of router logits [n, experts] the weights and numbers of the chosen experts, [n, chosen] each."""
        routing = op.routing
        scores = logits.softmax(dim=-1) if routing.score == "softmax" else logits.sigmoid()
        worth = scores if op.choice_bias is None else scores + self.vector(op.choice_bias[0]).reshape(-1)
        if routing.groups > 1:
            grouped = worth.view(len(worth), routing.groups, -1)
            best = grouped.topk(2, dim=-1).values.sum(dim=-1)
            kept = best.sort(dim=-1, descending=True, stable=True).indices[:, : routing.chosen_groups]
            outside = torch.ones_like(best, dtype=torch.bool).scatter_(1, kept, False)
            worth = grouped.masked_fill(outside[..., None], float("-inf")).flatten(1)
        chosen = torch.sort(worth, dim=-1, descending=True, stable=True).indices[:, : op.chosen]
        weights = scores.gather(1, chosen)
        if routing.renormalise:
            weights = weights / (weights.sum(dim=-1, keepdim=True).clamp(min=routing.least_sum) + routing.added_sum)
        weights = weights * routing.scale
        return weights * self.vector(op.expert_scale)[chosen] if op.expert_scale else weights, chosen

    def expert(self, op: Mixture, expert: Expert, normed: Tensor) -> Tensor:
        """Activated gates times ups of rows that are normed: the input of `expert.down`."""
        if op.clamp is None or expert.gate is None:
            return self.gated(expert.gate, expert.up, op.activation, normed)
        limit, alpha = op.clamp
        gate = self.linear(expert.gate, normed).clamp(max=limit)
        up = self.linear(expert.up, normed).clamp(min=-limit, max=limit)
        return gate * torch.sigmoid(alpha * gate) * (up + 1)

    def short_conv(self, op: ShortConv, x: Tensor) -> Tensor:
        """What a gated short convolution adds to the residual stream `x` [n, hidden]."""
        return self.linear(op.out_proj, self.convolved(op, x))

    def convolved(self, op: ShortConv, x: Tensor) -> Tensor:
        """The gated result of the convolution: the input of `op.out_proj`."""
        b, c, u = self.linear(op.in_proj, self.norm(op.norm, x)).chunk(3, dim=-1)
        return c * self.conv(op.conv, b * u)

    def conv(self, conv: DepthwiseConv, x: Tensor) -> Tensor:
        """The convolution over rows `x` [n, channels], which begin the text."""
        return self.conv_after(conv, x.new_zeros(conv.length - 1, conv.channels), x)

    def conv_after(self, conv: DepthwiseConv, before: Tensor, x: Tensor) -> Tensor:
        """The same after the rows `before` [length - 1, channels]."""
        taps = self.vector(f"{conv.name}.weight")[:, 0].to(x.dtype)
        bias = self.vector(f"{conv.name}.bias").to(x.dtype) if conv.bias else 0
        windows = torch.cat((before, x)).unfold(0, conv.length, 1)  # [n, channels, length]
        return (windows * taps).sum(-1) + bias

    def delta_net(self, op: DeltaNet, x: Tensor) -> Tensor:
        """What a gated delta net adds to the residual stream `x` [n, hidden]."""
        return self.linear(op.out_proj, self.corrected(op, x))

    def corrected(self, op: DeltaNet, x: Tensor) -> Tensor:
        """What its heads read, normed and gated: the input of `op.out_proj`."""
        n, normed = x.shape[0], self.norm(op.norm, x)
        keys, values, each = op.heads * op.key_dim, op.value_heads * op.value_dim, op.value_heads // op.heads
        of_key_head = (op.key_dim, op.key_dim, each * op.value_dim, each * op.value_dim)
        q, k, v, z = self.parts_of(op, op.inputs, normed, of_key_head)
        b, a = (part.float() for part in self.parts_of(op, op.gates, normed, (each, each)))
        columns = cut(torch.cat((q, k, v), dim=-1), [conv.channels for conv in op.convs])
        convolved = [self.conv(conv, part) for conv, part in zip(op.convs, columns, strict=True)]
        mixed = silu(torch.cat(convolved, dim=-1)).float()
        q, k, v = cut(mixed, (keys, keys, values))
        q, k = (unit(part.view(n, op.heads, op.key_dim)).repeat_interleave(each, dim=1) for part in (q, k))
        decay = torch.exp(-self.vector(op.rates).exp() * softplus(a + self.vector(op.dt_bias)))
        beta, v = op.beta_scale * b.sigmoid(), v.view(n, -1, op.value_dim)
        read = self.recurrence(op, q * op.key_dim**-0.5, k, v, decay, beta)
        out: Tensor = self.norm(op.out_norm, read).to(x.dtype).reshape(n, -1) * silu(z)
        return out

    def parts_of(
        self, op: DeltaNet, linears: tuple[Linear, ...], normed: Tensor, sizes: tuple[int, ...]
    ) -> list[Tensor]:
        """The parts [n, ...] of the rows of `linears`, of which each key head has so many columns."""
        x = torch.cat([self.linear(one, normed) for one in linears], dim=-1)
        if not op.by_key_head:
            return cut(x, [op.heads * size for size in sizes])
        return [part.reshape(x.shape[0], -1) for part in cut(x.view(x.shape[0], op.heads, -1), sizes)]

    def recurrence(self, op: DeltaNet, q: Tensor, k: Tensor, v: Tensor, decay: Tensor, beta: Tensor) -> Tensor:
        """What value heads read of their states, [n, value heads, value_dim]; the text begins here."""
        return delta_rule(v.new_zeros(op.value_heads, op.key_dim, op.value_dim), q, k, v, decay, beta)[0]

    def mamba2(self, op: Mamba2, x: Tensor) -> Tensor:
        """What Mamba-2 adds to the residual stream `x` [n, hidden]."""
        return self.linear(op.out_proj, self.scanned(op, x))

    def scanned(self, op: Mamba2, x: Tensor) -> Tensor:
        """What its heads give, normed and gated: the input of `op.out_proj`."""
        n, normed = x.shape[0], self.norm(op.norm, x)
        inner, states, each = op.heads * op.head_dim, op.groups * op.state_dim, op.heads // op.groups
        by_z, by_u, by_b, by_c, by_dt = op.scales
        c, b, u, z = (self.linear(one, normed) for one in op.inputs)
        columns = torch.cat((u * by_u, b * by_b, c * by_c), dim=-1)
        u, b, c = cut(silu(self.conv(op.conv, columns)).float(), (inner, states, states))
        b, c = (part.view(n, op.groups, -1).repeat_interleave(each, dim=1) for part in (b, c))
        u = u.view(n, op.heads, -1)
        step = softplus(self.linear(op.dt, normed).float() * by_dt + self.vector(op.dt_bias)).clamp(*op.dt_limit)
        decay = torch.exp(-self.vector(op.rates).exp() * step)
        out = self.scan(op, c, b, step[..., None] * u, decay) + self.vector(op.skip)[:, None] * u
        return self.behind_heads(op, out.reshape(n, -1), silu(z.float() * by_z)).to(x.dtype)

    def behind_heads(self, op: Mamba2, out: Tensor, gates: Tensor) -> Tensor:
        """What heads give [n, heads * head_dim], normed and gated."""
        if op.out_norm is None:
            return out * gates * op.out_scale
        weight = self.vector(f"{op.out_norm.name}.weight")
        out = out if op.norm_before_gate else out * gates
        grouped = out.view(len(out), op.norm_groups, -1)
        inverse = torch.rsqrt(grouped.pow(2).mean(-1, keepdim=True) + op.out_norm.eps)
        out = (grouped * inverse).flatten(1) * weight * op.out_scale
        return out * gates if op.norm_before_gate else out

    def scan(self, op: Mamba2, q: Tensor, k: Tensor, change: Tensor, decay: Tensor) -> Tensor:
        """What heads read of their states, [n, heads, head_dim]; the text begins here."""
        return scan_rule(change.new_zeros(op.heads, op.state_dim, op.head_dim), q, k, change, decay)[0]

    def head(self, op: Head, x: Tensor) -> Tensor:
        """Scores [n, vocab] of the residual stream `x` [n, hidden]."""
        return capped(self.linear(op.table, self.norm(op.norm, x)) * op.scale, op.softcap)

    def linear(self, linear: Linear, x: Tensor) -> Tensor:
        """x [..., cols] → [..., rows]."""
        y = x @ self.weight(linear).T
        return y + self.vector(f"{linear.name}.bias") if linear.bias else y

    def norm(self, norm: Norm | None, x: Tensor) -> Tensor:
        """RMSNorm or LayerNorm over the last axis; no norm leaves `x` alone."""
        if norm is None:
            return x
        if norm.centered:
            x = x - x.mean(-1, keepdim=True)
        inverse = torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + norm.eps)
        if not norm.name:
            return x * inverse
        normed = x * inverse * ((self.vector(f"{norm.name}.weight") + norm.offset) * norm.scale)
        return normed + self.vector(f"{norm.name}.bias") if norm.bias else normed

    def rounded(self, what: Literal["q", "k", "v"], x: Tensor) -> Tensor:
        """Queries, keys or values [n, heads, head_dim] as the KV cache gives them back; here exactly as they were.

        An executor that imitates a smaller cache overrides this.
        """
        return x

    def forget(self) -> None:
        """Let go of the weights read so far; they are read again when they are needed."""
        self._cached.clear()

    def drop(self, linears: Iterable[Linear]) -> None:
        """Let go of these matrices alone."""
        for linear in linears:
            self._cached.pop(linear.name, None)

    def weight(self, linear: Linear) -> Tensor:
        """The matrix [rows, cols] in float32."""
        if linear.name not in self._cached:
            self._cached[linear.name] = torch.from_numpy(self.checkpoint.matrix(linear.name))
        return self._cached[linear.name]

    def vector(self, name: str) -> Tensor:
        """A tensor that is no matrix, such as a norm weight, in float32."""
        if name not in self._cached:
            self._cached[name] = torch.from_numpy(self.checkpoint.vector(name))
        return self._cached[name]


ADDED: Mapping[type[LayerOp], Callable[[Executor, Any, Tensor], Tensor]] = {
    Attend: Executor.attend,
    GatedMLP: Executor.gated_mlp,
    ShortConv: Executor.short_conv,
    DeltaNet: Executor.delta_net,
    Mamba2: Executor.mamba2,
    Mixture: Executor.mixture,
    LayerInput: Executor.layer_input,
}
"""What runs each kind of operation."""


def cut(x: Tensor, sizes: Sequence[int]) -> list[Tensor]:
    """`x` [..., sum of sizes] in parts of these sizes."""
    return list(x.tensor_split(list(accumulate(sizes))[:-1], dim=-1))


def gated_heads(op: Attend, out: Tensor, gates: Tensor | None) -> Tensor:
    """What heads give, [n, heads * head_dim], at its scale and times the sigmoid of its gates."""
    out = out if gates is None else out * gates.sigmoid()
    return out if op.out_scale == 1.0 else out * op.out_scale


def as_stream(embed: Embed, rows: Tensor) -> Tensor:
    """Rows of the table as the first layer gets them."""
    rows = rows * embed.scale
    if embed.norm is None:
        return rows
    return rows * torch.rsqrt(rows.pow(2).mean(-1, keepdim=True) + embed.norm.eps)


def activated(activation: Activation, x: Tensor) -> Tensor:
    """SiLU, GELU, GELU by tanh, or the square of ReLU."""
    if activation == "relu2":
        return x.relu().square()
    return silu(x) if activation == "silu" else gelu(x, approximate="none" if activation == "gelu" else "tanh")


def capped(scores: Tensor, cap: float) -> Tensor:
    """cap * tanh(scores / cap); 0 is no cap."""
    return cap * torch.tanh(scores / cap) if cap else scores


def rotate(x: Tensor, rope: Rope, first: int = 0, growth: float = 0.0, context: int = 0) -> Tensor:
    """RoPE on x [n, heads, head_dim]; row i is at position `first` + i. Angles in float64, as in the native tables.

    Frequencies are those of a context that ends with these rows, or of `context` where that is longer. `growth`: that
    of queries.
    """
    position = torch.arange(first, first + x.shape[0], dtype=torch.float64)
    angle = position[:, None] * torch.tensor(rope.frequencies(max(context, first + x.shape[0])), dtype=torch.float64)
    grown = 1 + growth * torch.log1p(torch.floor(position / rope.growth_every))
    factor = rope.attention_factor * grown[:, None, None]
    cos, sin = (f(angle)[:, None, :].mul(factor).float() for f in (torch.cos, torch.sin))
    turned, rest = x[..., : 2 * angle.shape[1]], x[..., 2 * angle.shape[1] :]
    a, b = (turned[..., 0::2], turned[..., 1::2]) if rope.interleaved else turned.chunk(2, dim=-1)
    parts = (a * cos - b * sin, b * cos + a * sin)
    joined = torch.stack(parts, dim=-1).flatten(-2) if rope.interleaved else torch.cat(parts, dim=-1)
    return torch.cat((joined, rest), dim=-1)


def visible(n: int, window: int) -> Tensor:
    """Who sees whom, bool [n, n]: row p is true at 0..p, or at the last `window` of them."""
    behind = torch.arange(n)[:, None] - torch.arange(n)[None, :]
    return (behind >= 0) & (behind < window) if window else behind >= 0
