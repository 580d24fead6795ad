"""Command R7B and A (Cohere, 2024): attention and MLP read one LayerNorm, side by side; three layers with a sliding
window, whose neighbours are rotated together, then one that sees everything and does not rotate."""

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
    config = read_config(values, "cohere2")
    sizes = read_sizes(config, norm_eps="layer_norm_eps")
    bias = config.flag("attention_bias")
    windows = _windows(config, sizes["layers"])
    rope, none = read_rope(config, sizes["head_dim"], interleaved=True), still(sizes["head_dim"])
    return ModelSpec(
        model_type="cohere2",
        **sizes,
        tied=read_tied(config),
        activation=read_activation(config, "hidden_act"),
        qkv_bias=bias,
        o_bias=bias,
        attention_scale=sizes["head_dim"] ** -0.5,
        logit_scale=config.number("logit_scale", 1e-6, 1e6),
        windows=windows,
        ropes=tuple(rope if window else none for window in windows),
    )


def graph(spec: ModelSpec) -> Graph:
    """x += attention(norm(x)) + mlp(norm(x)); a layer."""
    return decoder(spec, Style(centered=True, beside=True))


def _windows(config: Fields, layers: int) -> tuple[int, ...]:
    every = 1
    if config.get("layer_types") is None:
        every = config.integer("sliding_window_pattern", 1, MOST_LAYERS)
    return read_windows(config, layers, tuple((i + 1) % every != 0 for i in range(layers)))
