"""Qwen3 dense (Yang et al., 2025): no biases, but queries and keys are normed head by head before RoPE."""

from collections.abc import Mapping
from typing import Any

from localinfer.graph.families.layers import Style, decoder
from localinfer.graph.graph import Graph
from localinfer.graph.rope import read_rope
from localinfer.graph.spec import ModelSpec, read_activation, read_config, read_sizes, read_tied, read_upper_windows


def spec(values: Mapping[str, Any]) -> ModelSpec:
    """Check config.json and read the model's numbers from it."""
    config = read_config(values, "qwen3")
    sizes = read_sizes(config)
    bias = config.flag("attention_bias")
    return ModelSpec(
        model_type="qwen3",
        **sizes,
        tied=read_tied(config),
        activation=read_activation(config, "hidden_act"),
        qkv_bias=bias,
        o_bias=bias,
        attention_scale=sizes["head_dim"] ** -0.5,
        windows=read_upper_windows(config, sizes["layers"]),
        ropes=(read_rope(config, sizes["head_dim"]),) * sizes["layers"],
    )


def graph(spec: ModelSpec) -> Graph:
    """x += attention(norm(x)) with normed queries and keys; x += mlp(norm(x)); a layer."""
    return decoder(spec, Style(qk_norm="head"))
