"""LFM2 (Liquid AI, 2025): most layers mix rows by a short gated convolution, a few by attention.

Norm, then either half; SwiGLU after a second norm. Queries and keys are normed by head. Older files name the
feed-forward width, the tied head and the layers with attention otherwise, and say the width before it is adjusted.
"""

from collections.abc import Mapping
from typing import Any

from localinfer.graph.families.layers import Style, attend, decoder
from localinfer.graph.fields import Fields
from localinfer.graph.graph import Graph
from localinfer.graph.ops import DepthwiseConv, GatedMLP, LayerOp, Linear, Norm, ShortConv
from localinfer.graph.rope import read_rope
from localinfer.graph.spec import ModelSpec, read_config, read_sizes, read_tied

STYLE = Style(
    norm="operator_norm",
    o="out_proj",
    qk_norm="head",
    q_norm="q_layernorm",
    k_norm="k_layernorm",
    final_norm="model.embedding_norm",
)
MOST_LENGTH = 16
"""Rows that a convolution may see; published models have 3."""


def spec(values: Mapping[str, Any]) -> ModelSpec:
    """Check config.json and read the model's numbers from it."""
    config = read_config(values, "lfm2")
    sizes = read_sizes(config, norm_eps="norm_eps", inner="block_ff_dim" if "block_ff_dim" in values else None)
    sizes["intermediate_size"] = _width(config, sizes["intermediate_size"])
    attention = _attention_layers(config, sizes["layers"])
    return ModelSpec(
        model_type="lfm2",
        **sizes,
        tied=read_tied(config, "tie_embedding" if "tie_embedding" in values else "tie_word_embeddings"),
        activation="silu",
        attention_scale=sizes["head_dim"] ** -0.5,
        windows=(0,) * sizes["layers"],
        ropes=(read_rope(config, sizes["head_dim"]),) * sizes["layers"],
        conv_layers=tuple(layer not in attention for layer in range(sizes["layers"])),
        conv_length=config.integer("conv_L_cache", 2, MOST_LENGTH),
        conv_bias=config.flag("conv_bias"),
    )


def graph(spec: ModelSpec) -> Graph:
    """x += attention or convolution of norm(x); x += mlp(norm(x)); a layer."""
    layers = ((mixer(spec, layer), mlp(spec, layer)) for layer in range(spec.layers))
    return decoder(spec, STYLE, layers)


def mixer(spec: ModelSpec, layer: int) -> LayerOp:
    """Attention or convolution of one layer."""
    at, hidden = f"model.layers.{layer}", spec.hidden_size
    if not spec.conv_layers[layer]:
        return attend(spec, layer, STYLE)
    return ShortConv(
        norm=Norm(f"{at}.operator_norm", hidden, spec.norm_eps),
        in_proj=Linear(f"{at}.conv.in_proj", 3 * hidden, hidden, spec.conv_bias),
        conv=DepthwiseConv(f"{at}.conv.conv", hidden, spec.conv_length, spec.conv_bias),
        out_proj=Linear(f"{at}.conv.out_proj", hidden, hidden, spec.conv_bias),
    )


def mlp(spec: ModelSpec, layer: int) -> GatedMLP:
    """The feed-forward half of one layer."""
    at, hidden, inner = f"model.layers.{layer}", spec.hidden_size, spec.intermediate_size
    return GatedMLP(
        norm=Norm(f"{at}.ffn_norm", hidden, spec.norm_eps),
        gate=Linear(f"{at}.feed_forward.w1", inner, hidden),
        up=Linear(f"{at}.feed_forward.w3", inner, hidden),
        down=Linear(f"{at}.feed_forward.w2", hidden, inner),
    )


def _width(config: Fields, said: int) -> int:
    """The feed-forward width: two thirds of what is said, times a factor, rounded up, where that is asked for."""
    multiple = config.integer("block_multiple_of", 1, 1 << 16)
    factor = config.number("block_ffn_dim_multiplier", 1e-3, 1e3)
    if not config.flag("block_auto_adjust_ff_dim"):
        return said
    width = -(-int(factor * (2 * said // 3)) // multiple) * multiple
    if not 1 <= width <= 1 << 20:
        raise config.bad("block_ffn_dim_multiplier", "a factor that gives a width from 1 to 1048576")
    return width


def _attention_layers(config: Fields, layers: int) -> set[int]:
    types = config.words("layer_types", layers, ("full_attention", "conv"))
    if types is not None:
        return {layer for layer, kind in enumerate(types) if kind == "full_attention"}
    listed = config.get("full_attn_idxs")
    if listed is None:
        return set(range(layers))
    if not isinstance(listed, list) or not all(type(i) is int and 0 <= i < layers for i in listed):
        raise config.bad("full_attn_idxs", f"a list of layers below {layers}")
    return set(listed)
