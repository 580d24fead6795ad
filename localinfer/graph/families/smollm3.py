"""SmolLM3 (Hugging Face, 2025): Llama's layer, but every fourth one does not rotate (NoPE; Yang et al., 2025)."""

from collections.abc import Mapping
from typing import Any

from localinfer.graph.families.layers import decoder
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
    config = read_config(values, "smollm3")
    sizes = read_sizes(config)
    bias = config.flag("attention_bias")
    rotated = _rotated(config, sizes["layers"])
    sliding = config.flag("use_sliding_window")
    slides = tuple(sliding and config.has("sliding_window") and not one for one in rotated)
    rope, none = read_rope(config, sizes["head_dim"]), still(sizes["head_dim"])
    return ModelSpec(
        model_type="smollm3",
        **sizes,
        tied=read_tied(config),
        activation=read_activation(config, "hidden_act"),
        qkv_bias=bias,
        o_bias=bias,
        mlp_bias=config.has("mlp_bias") and config.flag("mlp_bias"),
        attention_scale=sizes["head_dim"] ** -0.5,
        windows=read_windows(config, sizes["layers"], slides, on=sliding),
        ropes=tuple(rope if one else none for one in rotated),
    )


def graph(spec: ModelSpec) -> Graph:
    """The same layers as Llama's; where nothing rotates all frequencies are 0."""
    return decoder(spec)


def _rotated(config: Fields, layers: int) -> tuple[bool, ...]:
    """Of each layer, whether its queries and keys are rotated."""
    every = config.integer("no_rope_layer_interval", 1, MOST_LAYERS)
    listed = config.get("no_rope_layers")  # named after what it turns off, but 1 is on
    if listed is None:
        return tuple((i + 1) % every != 0 for i in range(layers))
    if not isinstance(listed, list) or len(listed) != layers or not all(type(i) is int and i in (0, 1) for i in listed):
        raise config.bad("no_rope_layers", f"a list of {layers} zeros and ones")
    return tuple(one == 1 for one in listed)
