"""Granite 3 and 4, dense (IBM, 2024): Llama's layer with four numbers: on embeddings, on what layers
add, on scores and on logits."""

from collections.abc import Mapping
from typing import Any

from localinfer.graph.families.layers import decoder
from localinfer.graph.fields import Fields
from localinfer.graph.graph import Graph
from localinfer.graph.rope import read_rope
from localinfer.graph.spec import ModelSpec, read_activation, read_config, read_sizes, read_tied


def spec(values: Mapping[str, Any]) -> ModelSpec:
    """Check config.json and read the model's numbers from it."""
    config = read_config(values, "granite")
    sizes = read_sizes(config)
    return ModelSpec(
        model_type="granite",
        **sizes,
        tied=read_tied(config),
        activation=read_activation(config, "hidden_act"),
        **common(config),
        mlp_bias=config.has("mlp_bias") and config.flag("mlp_bias"),
        attention_scale=config.number("attention_multiplier", 1e-6, 1e6),
        windows=(0,) * sizes["layers"],
        ropes=(read_rope(config, sizes["head_dim"]),) * sizes["layers"],
    )


def common(config: Fields) -> dict[str, Any]:
    """What all of Granite's models read alike: biases of attention, and three of the four numbers."""
    bias = config.flag("attention_bias")
    return {
        "qkv_bias": bias,
        "o_bias": bias,
        "embed_scale": config.number("embedding_multiplier", 1e-6, 1e6),
        "residual_scale": config.number("residual_multiplier", 1e-3, 1e3),
        "logit_scale": 1 / config.number("logits_scaling", 1e-6, 1e6),
    }


def graph(spec: ModelSpec) -> Graph:
    """The same layers as Llama's; the spec has the numbers."""
    return decoder(spec)
