"""The head as it is trained: the same arithmetic as `engine/draft_head.py` runs, in torch and float32."""

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from localinfer.engine.drafters import GROUP, Arrays, head_rope, shapes_of
from localinfer.errors import NotSupported
from localinfer.formats.compressed import pack
from localinfer.graph.ops import Attend, GatedMLP, Norm
from localinfer.graph.prepared import norm_weight
from localinfer.graph.spec import ModelSpec
from localinfer.graph.weights import Checkpoint
from localinfer.quantize.scales import round_rows
from localinfer.reference.executor import activated, rotate

MIXED = 0.3
"""How much of the embedding there is at first beside the residual stream."""


class HeadModel(nn.Module):
    """Begins as the target's last layer with attention, where that has no norms of its own inside, fed with the
    residual stream."""

    def __init__(self, target: Checkpoint, seed: int) -> None:
        super().__init__()
        self.spec: ModelSpec = target.spec
        draw = torch.Generator().manual_seed(seed)
        hidden = self.spec.hidden_size
        for layer in reversed(target.graph.layers):
            match layer:
                case (Attend() as attend, GatedMLP() as mlp):
                    break
        else:
            raise NotSupported("a draft head begins as a layer of attention, then a gated MLP, and the model has none")
        every = {"q": attend.q, "k": attend.k, "v": attend.v, "o": attend.o, "up": mlp.up, "down": mlp.down}
        names = {name: one for name, one in {**every, "gate": mlp.gate}.items() if one is not None}
        plain = _is_plain(attend, mlp)
        self.matrices = nn.ParameterDict()
        for name, shape in shapes_of(target, self.spec.intermediate_size).items():
            if name == "mix":
                values = torch.cat((MIXED * torch.eye(hidden), torch.eye(hidden)), 1)
                values += 0.02 * torch.randn(shape, generator=draw) / hidden**0.5
            elif plain:
                values = torch.from_numpy(target.matrix(names[name].name))
            else:
                values = torch.randn(shape, generator=draw) * (0.3 if name in ("o", "down") else 1) / shape[1] ** 0.5
            self.matrices[name] = nn.Parameter(values.float().clone())
        self.attention_norm = nn.Parameter(_norm(target, attend.norm))
        self.mlp_norm = nn.Parameter(_norm(target, mlp.norm))
        self.gains = nn.Parameter(torch.ones(2, hidden))

    def forward(self, embedded: Tensor, stream: Tensor) -> Tensor:
        """What stands for the residual stream one position on; both [batch, n, hidden]."""
        inputs = torch.cat((_unit(embedded, 1e-6) * self.gains[0], _unit(stream, 1e-6) * self.gains[1]), -1)
        x = inputs @ self.matrices["mix"].T
        x = x + self._attended(_unit(x, self.spec.norm_eps) * self.attention_norm) @ self.matrices["o"].T
        normed = _unit(x, self.spec.norm_eps) * self.mlp_norm
        gate = normed @ self.matrices["gate"].T
        gate = activated(self.spec.activation, gate)
        out: Tensor = x + (gate * (normed @ self.matrices["up"].T)) @ self.matrices["down"].T
        return out

    def _attended(self, x: Tensor) -> Tensor:
        spec, (batch, n, _) = self.spec, x.shape
        q, k, v = ((x @ self.matrices[name].T).view(batch, n, -1, spec.head_dim) for name in "qkv")
        rope = head_rope(spec)
        q, k = (torch.stack([rotate(one, rope) for one in part]).transpose(1, 2) for part in (q, k))
        v = v.transpose(1, 2)
        k, v = (part.repeat_interleave(spec.heads // spec.kv_heads, dim=1) for part in (k, v))
        out = scaled_dot_product_attention(q, k, v, is_causal=True, scale=spec.head_dim**-0.5)
        return out.transpose(1, 2).flatten(2)

    @torch.no_grad()
    def arrays(self, ids: np.ndarray) -> Arrays:
        """As it is kept: integers of 8 bits and their scales."""
        told: Arrays = {"ids": ids, "gains": self.gains.numpy().copy()}
        told |= {name: getattr(self, name).numpy().copy() for name in ("attention_norm", "mlp_norm")}
        for name, matrix in self.matrices.items():
            rounded = round_rows(matrix.numpy(), 8, GROUP)
            told |= {name: pack(rounded.values, 8), f"{name}_scale": rounded.scales}
        return told


def _is_plain(attend: Attend, mlp: GatedMLP) -> bool:
    """Whether the matrices mean in the head, which is of Llama's kind, what they mean in the layer."""
    norms = (attend.norm, mlp.norm)
    of_llama = (
        all(norm is not None and not norm.centered for norm in norms) and len((*attend.norms(), *mlp.norms())) == 2
    )
    as_scored = attend.scale == attend.head_dim**-0.5 and not attend.softcap and not attend.rope.interleaved
    biased = any(linear.bias for linear in (*attend.linears(), *mlp.linears()))
    return of_llama and as_scored and not biased and mlp.gate is not None and not mlp.beside


def _norm(target: Checkpoint, norm: Norm | None) -> Tensor:
    return torch.ones(target.spec.hidden_size) if norm is None else torch.from_numpy(norm_weight(target, norm))


def _unit(x: Tensor, eps: float) -> Tensor:
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + eps)
