"""Weights of norms, and orders of rows, as the native program takes them."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from localinfer.graph.ops import Attend, DeltaNet, GatedMLP, Head, Linear, Mixture, Norm
from localinfer.graph.stored import Order
from localinfer.graph.weights import Checkpoint

Vector = NDArray[np.float32]
Orders = Mapping[str, Order]
"""Of matrices whose rows are not taken as they are stored, by name, where each row comes from."""
AS_THEY_ARE: Orders = {}


def norm_weight(checkpoint: Checkpoint, norm: Norm) -> Vector:
    """The norm's weight, with its offset and scale applied once and for all; ones if it has none."""
    if not norm.name:
        return np.ones(norm.size, np.float32)
    weight = checkpoint.vector(f"{norm.name}.weight") + np.float32(norm.offset)
    return weight if norm.scale == 1.0 else weight * np.float32(norm.scale)


def head_norm(checkpoint: Checkpoint, op: Head) -> tuple[Vector, Vector | None]:
    """Weight and bias of the norm before the head, times what the logits are scaled by."""
    scale, bias = np.float32(op.scale), norm_bias(checkpoint, op.norm)
    return norm_weight(checkpoint, op.norm) * scale, None if bias is None else bias * scale


def norm_bias(checkpoint: Checkpoint, norm: Norm) -> Vector | None:
    """What the native program knows a LayerNorm by: its bias, empty if it has none."""
    if not norm.centered:
        return None
    return checkpoint.vector(f"{norm.name}.bias") if norm.bias else np.empty(0, np.float32)


def eps_of(op: Attend | GatedMLP) -> float:
    """That of all its norms but the one behind it: the native program has one for them."""
    found = {norm.eps for norm in op.norms() if norm is not op.post_norm}
    (eps,) = found or {norm.eps for norm in op.norms()}
    return eps


def rope_order(op: Attend, rows: int) -> Order:
    """Where `rows` rows of queries or keys come from, so that what is turned together lies half of it apart: a score is
    the same in any order of its sum's terms."""
    turned = 2 * len(op.rope.inv_freq)
    head = np.arange(op.head_dim)
    head[:turned] = np.concatenate([head[:turned:2], head[1:turned:2]])
    order: Order = (np.arange(0, rows, op.head_dim)[:, None] + head).reshape(-1)
    return order


def gates_last(op: Attend) -> Order:
    """Where the rows of q come from, so that all queries come before all gates."""
    rows = np.arange(op.q.rows).reshape(op.heads, 2, op.head_dim)
    order: Order = rows.transpose(1, 0, 2).reshape(-1)
    return order


def by_part(op: DeltaNet, linears: Sequence[Linear], sizes: Sequence[int]) -> Orders:
    """The same for rows of which each key head has parts of `sizes`: the parts of all heads together."""
    if not op.by_key_head:
        return AS_THEY_ARE
    (linear,) = linears
    rows = np.split(np.arange(linear.rows).reshape(op.heads, -1), np.cumsum(sizes)[:-1], axis=1)
    return {linear.name: np.concatenate([part.reshape(-1) for part in rows])}


def ordered(norm: Vector | None, op: Attend) -> Vector | None:
    return norm[rope_order(op, norm.size)] if norm is not None and op.rope.interleaved else norm


def routing_of(op: Mixture) -> dict[str, Any]:
    """How the native program is told which experts a row goes to, with what weights, and how they are clamped."""
    routing, (limit, alpha) = op.routing, op.clamp or (0.0, 0.0)
    return {
        "top_k": op.chosen,
        "score": routing.score,
        "renormalise": routing.renormalise,
        "least_sum": routing.least_sum,
        "added_sum": routing.added_sum,
        "scale": routing.scale,
        "groups": routing.groups,
        "top_groups": routing.chosen_groups,
        "limit": limit,
        "alpha": alpha,
    }


def around_experts(checkpoint: Checkpoint, op: Mixture) -> dict[str, Vector | None]:
    """Vectors of a mixture beside its first norm and biases of matrices."""
    norms = {"router_norm": op.router_norm, "post_norm": op.post_norm, "beside_norm": op.beside_norm}
    bias = checkpoint.vector(op.choice_bias[0]).reshape(-1) if op.choice_bias else None
    scale = checkpoint.vector(op.expert_scale) if op.expert_scale else None
    found = {name: None if norm is None else norm_weight(checkpoint, norm) for name, norm in norms.items()}
    return {"choice_bias": bias, "expert_scale": scale, **found}
