"""Qwen3.5 and 3.6 with experts (Qwen team, 2026; 35B-A3B): Qwen3.5's layers, every feed-forward half a mixture with a
shared expert behind a gate."""

from collections.abc import Mapping
from typing import Any

from localinfer.graph.families import qwen3_next
from localinfer.graph.families.wrapped import text_name
from localinfer.graph.graph import Graph
from localinfer.graph.spec import MOST_LAYERS, ModelSpec, Routing, read_config, read_mixture

tensor_name = text_name
ahead = qwen3_next.ahead


def spec(values: Mapping[str, Any]) -> ModelSpec:
    """Check config.json and read the model's numbers from it."""
    config = read_config(values, "qwen3_5_moe_text")
    experts = read_mixture(
        config,
        "num_experts",
        "moe_intermediate_size",
        layers=(True,) * config.integer("num_hidden_layers", 1, MOST_LAYERS),
        routing=Routing(renormalise=True),
        shared_inner=config.integer("shared_expert_intermediate_size", 1, 1 << 20),
    )
    return qwen3_next.read_spec(config, "qwen3_5_moe_text", experts, inner="moe_intermediate_size")


def graph(spec: ModelSpec) -> Graph:
    """x += attention or delta net of norm(x); x += mixture(norm(x)); a layer."""
    return qwen3_next.layered(spec, fused=False)
