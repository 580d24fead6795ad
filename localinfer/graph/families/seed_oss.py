"""Seed-OSS (ByteDance, 2025): Llama's layer with biases on queries, keys and values, and one on the output if asked."""

from collections.abc import Mapping
from typing import Any

from localinfer.graph.families.layers import decoder
from localinfer.graph.graph import Graph
from localinfer.graph.rope import read_rope
from localinfer.graph.spec import ModelSpec, read_activation, read_config, read_sizes, read_tied


def spec(values: Mapping[str, Any]) -> ModelSpec:
    """Check config.json and read the model's numbers from it."""
    config = read_config(values, "seed_oss")
    sizes = read_sizes(config)
    return ModelSpec(
        model_type="seed_oss",
        **sizes,
        tied=read_tied(config),
        activation=read_activation(config, "hidden_act"),
        qkv_bias=config.flag("attention_bias"),
        o_bias=config.flag("attention_out_bias"),
        mlp_bias=config.has("mlp_bias") and config.flag("mlp_bias"),
        attention_scale=sizes["head_dim"] ** -0.5,
        windows=(0,) * sizes["layers"],
        ropes=(read_rope(config, sizes["head_dim"]),) * sizes["layers"],
    )


def graph(spec: ModelSpec) -> Graph:
    """The same layers as Llama's; the spec has the biases."""
    return decoder(spec)
