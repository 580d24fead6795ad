"""GLM-4 of April 2025 (Z.ai): norms before and after each half, gates and ups in one matrix; half of each head is
rotated, neighbours together."""

from collections.abc import Mapping
from typing import Any

from localinfer.graph.families.layers import Style, decoder
from localinfer.graph.graph import Graph
from localinfer.graph.rope import read_rope
from localinfer.graph.spec import ModelSpec, read_activation, read_config, read_sizes, read_tied

FUSED = {"mlp.gate_up_proj": ("mlp.gate_proj", "mlp.up_proj")}
"""Stored matrices that are several of the graph's, one after the other."""


def spec(values: Mapping[str, Any]) -> ModelSpec:
    """Check config.json and read the model's numbers from it."""
    config = read_config(values, "glm4")
    sizes = read_sizes(config)
    return ModelSpec(
        model_type="glm4",
        **sizes,
        tied=read_tied(config),
        activation=read_activation(config, "hidden_act"),
        qkv_bias=config.flag("attention_bias"),
        attention_scale=sizes["head_dim"] ** -0.5,
        windows=(0,) * sizes["layers"],
        ropes=(read_rope(config, sizes["head_dim"], partial=True, interleaved=True),) * sizes["layers"],
    )


def graph(spec: ModelSpec) -> Graph:
    """x += norm(attention(norm(x))); x += norm(mlp(norm(x))); a layer."""
    return decoder(spec, Style(post_norm="post_self_attn_layernorm", mlp_post_norm="post_mlp_layernorm"))
