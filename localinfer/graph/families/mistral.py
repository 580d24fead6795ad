"""Mistral 7B (Jiang et al., 2023) and its small successors: Llama's layer, with a sliding window in early versions."""

from collections.abc import Mapping
from typing import Any

from localinfer.graph.families.layers import decoder
from localinfer.graph.graph import Graph
from localinfer.graph.rope import read_rope
from localinfer.graph.spec import MOST_CONTEXT, ModelSpec, read_activation, read_config, read_sizes, read_tied


def spec(values: Mapping[str, Any]) -> ModelSpec:
    """Check config.json and read the model's numbers from it."""
    config = read_config(values, "mistral")
    sizes = read_sizes(config)
    window = config.integer("sliding_window", 1, MOST_CONTEXT) if config.has("sliding_window") else 0
    config.refuse("attention_bias", False)
    config.refuse("layer_types")  # it makes another family of it, with other defaults
    return ModelSpec(
        model_type="mistral",
        **sizes,
        tied=read_tied(config),
        activation=read_activation(config, "hidden_act"),
        attention_scale=sizes["head_dim"] ** -0.5,
        windows=(window,) * sizes["layers"],
        ropes=(read_rope(config, sizes["head_dim"]),) * sizes["layers"],
    )


def graph(spec: ModelSpec) -> Graph:
    """The same layers as Llama's."""
    return decoder(spec)
