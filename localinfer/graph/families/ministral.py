"""Ministral 8B (Mistral AI, 2024): Mistral's layer, each with the sliding window or without."""

from collections.abc import Mapping
from typing import Any

from localinfer.graph.families.layers import decoder
from localinfer.graph.graph import Graph
from localinfer.graph.rope import read_rope
from localinfer.graph.spec import ModelSpec, read_activation, read_config, read_sizes, read_tied, read_windows


def spec(values: Mapping[str, Any]) -> ModelSpec:
    """Check config.json and read the model's numbers from it."""
    config = read_config(values, "ministral")
    if not config.has("head_dim"):
        raise config.bad("head_dim", "a whole number from 2 to 4096")  # without it transformers has no scale
    sizes = read_sizes(config)
    return ModelSpec(
        model_type="ministral",
        **sizes,
        tied=read_tied(config),
        activation=read_activation(config, "hidden_act"),
        attention_scale=sizes["head_dim"] ** -0.5,
        windows=read_windows(config, sizes["layers"], (config.has("sliding_window"),) * sizes["layers"]),
        ropes=(read_rope(config, sizes["head_dim"]),) * sizes["layers"],
    )


def graph(spec: ModelSpec) -> Graph:
    """The same layers as Llama's."""
    return decoder(spec)
