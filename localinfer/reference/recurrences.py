"""What recurrent operations do with their states, row after row."""

import torch
from torch import Tensor


def unit(x: Tensor) -> Tensor:
    """Vectors divided by their length, which is a little larger than it is."""
    return x * torch.rsqrt(x.pow(2).sum(-1, keepdim=True) + 1e-6)


def delta_rule(state: Tensor, q: Tensor, k: Tensor, v: Tensor, decay: Tensor, beta: Tensor) -> tuple[Tensor, Tensor]:
    """Rows q, k [n, heads, key_dim] and v [n, heads, value_dim] through `state` [heads, key_dim, value_dim], with decay
    and beta [n, heads]: what they read, [n, heads, value_dim], and the state after them."""
    read = []
    for i in range(len(q)):
        state = state * decay[i, :, None, None]
        change = beta[i, :, None] * (v[i] - torch.einsum("hkv,hk->hv", state, k[i]))
        state = state + k[i, :, :, None] * change[:, None, :]
        read.append(torch.einsum("hkv,hk->hv", state, q[i]))
    return torch.stack(read), state


def scan_rule(state: Tensor, q: Tensor, k: Tensor, change: Tensor, decay: Tensor) -> tuple[Tensor, Tensor]:
    """The same without a correction: `change` [n, heads, value_dim] is what k writes."""
    read = []
    for i in range(len(q)):
        state = state * decay[i, :, None, None] + k[i, :, :, None] * change[i, :, None, :]
        read.append(torch.einsum("hkv,hk->hv", state, q[i]))
    return torch.stack(read), state
