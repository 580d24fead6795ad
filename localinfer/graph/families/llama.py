"""Llama 2 and 3 (Touvron et al., 2023; Dubey et al., 2024), and models of the same shape: SmolLM2, TinyLlama.

Grouped-query attention, RMSNorm before each half, SwiGLU. Llama 3.1 stretches its RoPE (`rope_type` llama3).
"""

from collections.abc import Mapping
from typing import Any

from localinfer.graph.families.layers import decoder
from localinfer.graph.graph import Graph
from localinfer.graph.rope import read_rope
from localinfer.graph.spec import ModelSpec, read_activation, read_config, read_sizes, read_tied


def spec(values: Mapping[str, Any]) -> ModelSpec:
    """Check config.json and read the model's numbers from it."""
    config = read_config(values, "llama")
    sizes = read_sizes(config)
    bias = config.flag("attention_bias")
    return ModelSpec(
        model_type="llama",
        **sizes,
        tied=read_tied(config),
        activation=read_activation(config, "hidden_act"),
        qkv_bias=bias,
        o_bias=bias,
        mlp_bias=config.has("mlp_bias") and config.flag("mlp_bias"),
        attention_scale=sizes["head_dim"] ** -0.5,
        windows=(0,) * sizes["layers"],
        ropes=(read_rope(config, sizes["head_dim"]),) * sizes["layers"],
    )


def graph(spec: ModelSpec) -> Graph:
    """x += attention(norm(x)); x += mlp(norm(x)); a layer."""
    return decoder(spec)
