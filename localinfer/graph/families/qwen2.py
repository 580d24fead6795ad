"""Qwen2 and Qwen2.5 (Yang et al., 2024): Llama's layer with biases on queries, keys and values."""

from collections.abc import Mapping
from typing import Any

from localinfer.graph.families.layers import decoder
from localinfer.graph.graph import Graph
from localinfer.graph.rope import read_rope
from localinfer.graph.spec import ModelSpec, read_activation, read_config, read_sizes, read_tied, read_upper_windows


def spec(values: Mapping[str, Any]) -> ModelSpec:
    """Check config.json and read the model's numbers from it."""
    config = read_config(values, "qwen2")
    sizes = read_sizes(config)
    return ModelSpec(
        model_type="qwen2",
        **sizes,
        tied=read_tied(config),
        activation=read_activation(config, "hidden_act"),
        qkv_bias=True,
        attention_scale=sizes["head_dim"] ** -0.5,
        windows=read_upper_windows(config, sizes["layers"]),
        ropes=(read_rope(config, sizes["head_dim"]),) * sizes["layers"],
    )


def graph(spec: ModelSpec) -> Graph:
    """The same layers as Llama's; the spec has the biases."""
    return decoder(spec)
