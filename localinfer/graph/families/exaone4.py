"""EXAONE 4 (LG AI Research, 2025): norms only after attention and MLP, and on each head of queries and keys; where
some layers have a sliding window, the others do not rotate."""

from collections.abc import Mapping
from typing import Any

from localinfer.graph.families.layers import Style, decoder
from localinfer.graph.fields import Fields
from localinfer.graph.graph import Graph
from localinfer.graph.rope import read_rope, still
from localinfer.graph.spec import (
    MOST_LAYERS,
    ModelSpec,
    read_activation,
    read_config,
    read_sizes,
    read_tied,
    read_windows,
)


def spec(values: Mapping[str, Any]) -> ModelSpec:
    """Check config.json and read the model's numbers from it."""
    config = read_config(values, "exaone4")
    sizes = read_sizes(config)
    windows = _windows(config, sizes["layers"])
    rope, none = read_rope(config, sizes["head_dim"]), still(sizes["head_dim"])
    mixed = config.has("sliding_window")
    return ModelSpec(
        model_type="exaone4",
        **sizes,
        tied=read_tied(config),
        activation=read_activation(config, "hidden_act"),
        attention_scale=sizes["head_dim"] ** -0.5,
        windows=windows,
        ropes=tuple(none if mixed and not window else rope for window in windows),
    )


def graph(spec: ModelSpec) -> Graph:
    """x += norm(attention(x)); x += norm(mlp(x)); a layer."""
    return decoder(
        spec,
        Style(
            norm="",
            post_norm="post_attention_layernorm",
            mlp_norm="",
            mlp_post_norm="post_feedforward_layernorm",
            qk_norm="head",
        ),
    )


def _windows(config: Fields, layers: int) -> tuple[int, ...]:
    every = 1
    if config.get("layer_types") is None:
        if not config.has("sliding_window"):
            raise config.bad(
                "layer_types", "a list, where there is no sliding_window"
            )  # transformers has no model then
        every = config.integer("sliding_window_pattern", 1, MOST_LAYERS)
    return read_windows(config, layers, tuple((i + 1) % every != 0 for i in range(layers)))
