"""Phi-3 and Phi-4, Phi-4-mini (Microsoft, 2024): Llama's layer with queries, keys and values in one matrix,
gates and ups in another; a part of each head is rotated, by LongRoPE for long texts."""

from collections.abc import Mapping
from typing import Any

from localinfer.graph.families.layers import decoder
from localinfer.graph.graph import Graph
from localinfer.graph.rope import read_rope
from localinfer.graph.spec import MOST_CONTEXT, ModelSpec, read_activation, read_config, read_sizes, read_tied

FUSED = {
    "self_attn.qkv_proj": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "mlp.gate_up_proj": ("mlp.gate_proj", "mlp.up_proj"),
}
"""Stored matrices that are several of the graph's, one after the other."""


def spec(values: Mapping[str, Any]) -> ModelSpec:
    """Check config.json and read the model's numbers from it."""
    config = read_config(values, "phi3")
    sizes = read_sizes(config)
    config.integer("original_max_position_embeddings", 1, MOST_CONTEXT)
    window = config.integer("sliding_window", 1, MOST_CONTEXT) if config.has("sliding_window") else 0
    return ModelSpec(
        model_type="phi3",
        **sizes,
        tied=read_tied(config),
        activation=read_activation(config, "hidden_act"),
        attention_scale=sizes["head_dim"] ** -0.5,
        windows=(window,) * sizes["layers"],
        ropes=(read_rope(config, sizes["head_dim"], partial=True, types=("default", "longrope")),) * sizes["layers"],
    )


def graph(spec: ModelSpec) -> Graph:
    """The same layers as Llama's."""
    return decoder(spec)
