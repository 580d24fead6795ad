"""The same graph as a plain 16-bit program runs it: torch in bfloat16, with a KV cache, and no trick at all.

This is what everything is compared with when no other library is there: the naive way that costs what it costs.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from localinfer.graph.ops import Attend, DeltaNet, DepthwiseConv, Linear, Mamba2, Norm
from localinfer.graph.weights import Checkpoint
from localinfer.reference.executor import Executor, capped, gated_heads, visible
from localinfer.reference.recurrences import delta_rule, scan_rule


class CachedExecutor(Executor):
    """Reads a text in pieces; keys and values of what came before are kept, in bfloat16."""

    def __init__(self, checkpoint: Checkpoint, context: int = 0) -> None:
        """`context`: tokens that a text may come to; 0: as many as the model was made for."""
        super().__init__(checkpoint)
        self.context = context or checkpoint.spec.max_context
        self._past: dict[str, tuple[Tensor, Tensor]] = {}
        self._before: dict[str, Tensor] = {}
        self._at = 0

    def start(self) -> None:
        """Begin another text."""
        self._past.clear()
        self._before.clear()
        self._at = 0

    @torch.inference_mode()
    def read(self, token_ids: Sequence[int], *, all_rows: bool = False) -> Tensor:
        """Scores after the last of `token_ids`, float32 [1, vocab]; after each of them with `all_rows`."""
        x = self.scores(token_ids, 0 if all_rows else -1)
        self._at += len(token_ids)
        return x.float()

    def mixed(self, op: Attend, x: Tensor) -> Tensor:
        """As the meaning of attention has it, over the cache and these rows."""
        *heads, gates = self.projected(op, x, self._at)
        out = self.attended(op, *(part.to(x.dtype) for part in heads))
        return gated_heads(op, out, gates)

    def attended(self, op: Attend, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """What these rows see, all heads side by side."""
        n = q.shape[0]
        if op.q.name in self._past:
            before = self._past[op.q.name]
            k, v = torch.cat((before[0], k)), torch.cat((before[1], v))
        self._past[op.q.name] = (k, v)
        mask = visible(self._at + n, op.window)[self._at :]
        if op.softcap or op.sinks:
            shared = op.heads // op.kv_heads
            k, v = (part.repeat_interleave(shared, dim=1) for part in (k, v))
            scores = capped(torch.einsum("qhd,khd->hqk", q, k) * op.scale, op.softcap)
            weights = self.shares(op, scores.masked_fill(~mask, float("-inf")))
            return torch.einsum("hqk,khd->qhd", weights, v).reshape(n, -1)
        out = torch.nn.functional.scaled_dot_product_attention(
            q.transpose(0, 1)[None],
            k.transpose(0, 1)[None],
            v.transpose(0, 1)[None],
            attn_mask=mask,
            scale=op.scale,
            enable_gqa=True,
        )
        return out[0].transpose(0, 1).reshape(n, -1)

    def conv(self, conv: DepthwiseConv, x: Tensor) -> Tensor:
        """The convolution over these rows and the last ones before them."""
        before = self._before.get(conv.name, x.new_zeros(conv.length - 1, conv.channels))
        self._before[conv.name] = torch.cat((before, x))[1 - conv.length :]
        return self.conv_after(conv, before, x)

    def recurrence(self, op: DeltaNet, q: Tensor, k: Tensor, v: Tensor, decay: Tensor, beta: Tensor) -> Tensor:
        """The same on the states, float32, that the rows before left."""
        state = self._before.get(op.rates, v.new_zeros(op.value_heads, op.key_dim, op.value_dim))
        read, self._before[op.rates] = delta_rule(state, q, k, v, decay, beta)
        return read

    def scan(self, op: Mamba2, q: Tensor, k: Tensor, change: Tensor, decay: Tensor) -> Tensor:
        state = self._before.get(op.rates, change.new_zeros(op.heads, op.state_dim, op.head_dim))
        read, self._before[op.rates] = scan_rule(state, q, k, change, decay)
        return read

    def norm(self, norm: Norm | None, x: Tensor) -> Tensor:
        """In float32, then narrow again, as every 16-bit program does it."""
        return x if norm is None else super().norm(norm, x.float()).to(x.dtype)

    def weight(self, linear: Linear) -> Tensor:
        """The matrix [rows, cols] in bfloat16."""
        if linear.name not in self._cached:
            self._cached[linear.name] = torch.from_numpy(self.checkpoint.matrix(linear.name)).bfloat16()
        return self._cached[linear.name]

    def linear(self, linear: Linear, x: Tensor) -> Tensor:
        bias = self.vector(f"{linear.name}.bias").to(x.dtype) if linear.bias else None
        return torch.nn.functional.linear(x, self.weight(linear), bias)
