"""Gemma 3, text (Gemma Team, 2025): five layers with a short sliding window, then one that sees everything.

Norms before and after each half, with weights stored as w - 1; queries and keys normed by head; GELU; the embedding is
scaled by the root of its width. Sliding layers have their own RoPE base; full ones may be stretched linearly.
"""

import struct
from collections.abc import Mapping
from typing import Any

from localinfer.graph.families.layers import Style, decoder
from localinfer.graph.fields import Fields
from localinfer.graph.graph import Graph
from localinfer.graph.rope import Rope, rope_from
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
    config = read_config(values, "gemma3_text")
    sizes = read_sizes(config)
    bias = config.flag("attention_bias")
    windows = _windows(config, sizes["layers"])
    local, full = _ropes(config, sizes["head_dim"])
    return ModelSpec(
        model_type="gemma3_text",
        **sizes,
        tied=read_tied(config),
        activation=read_activation(config, "hidden_activation"),
        qkv_bias=bias,
        o_bias=bias,
        attention_scale=config.number("query_pre_attn_scalar", 1e-3, 1e6) ** -0.5,
        embed_scale=to_bfloat16(sizes["hidden_size"] ** 0.5),
        logit_softcap=config.number("final_logit_softcapping", 1e-3, 1e6)
        if config.has("final_logit_softcapping")
        else 0,
        windows=windows,
        ropes=tuple(local if window else full for window in windows),
    )


def graph(spec: ModelSpec) -> Graph:
    """x += norm(attention(norm(x))); x += norm(mlp(norm(x))); a layer. Every norm multiplies by 1 + w."""
    return decoder(
        spec,
        Style(
            qk_norm="head",
            offset=1.0,
            post_norm="post_attention_layernorm",
            mlp_norm="pre_feedforward_layernorm",
            mlp_post_norm="post_feedforward_layernorm",
        ),
    )


def to_bfloat16(value: float) -> float:
    """The nearest bfloat16, ties to even: the embedding's scale as the model was trained with it (25.3 is 25.25)."""
    bits: int = struct.unpack("<I", struct.pack("<f", value))[0]
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000
    nearest: float = struct.unpack("<f", struct.pack("<I", rounded))[0]
    return nearest


def _windows(config: Fields, layers: int) -> tuple[int, ...]:
    if config.has("layer_types"):
        return read_windows(config, layers, ())
    every = config.integer("sliding_window_pattern", 1, MOST_LAYERS)
    return read_windows(config, layers, tuple((i + 1) % every != 0 for i in range(layers)))


def _ropes(config: Fields, head_dim: int) -> tuple[Rope, Rope]:
    """RoPE of the sliding and of the full layers; new spelling: one object a layer type."""
    settings = config.table("rope_parameters")
    local = settings.table("sliding_attention")
    full = settings.table("full_attention").under(config.table("rope_scaling"))
    for one in (local, full):
        one.refuse("truncate", True)  # transformers does not read it here
    return (
        rope_from(local, config, head_dim, base="rope_local_base_freq"),
        rope_from(full, config, head_dim),
    )
