"""Gemma 3, text (Gemma Team, 2025): five layers with a short sliding window, then one that sees everything.

Norms before and after each half, with weights stored as w - 1; queries and keys normed by head; GELU; the embedding is
scaled by the root of its width. Sliding layers have their own RoPE base; full ones may be stretched linearly.
"""

import struct
from collections.abc import Mapping
from typing import Any

from localinfer.graph.families.layers import attend, decoder, gated_mlp
from localinfer.graph.fields import Fields
from localinfer.graph.ops import Graph, Op
from localinfer.graph.rope import Rope, rope_from
from localinfer.graph.spec import MOST_CONTEXT, MOST_LAYERS, ModelSpec, read_activation, read_sizes, read_windows

_GLOBAL_THETA, _LOCAL_THETA = 1_000_000.0, 10_000.0


def spec(values: Mapping[str, Any]) -> ModelSpec:
    """Check config.json and read the model's numbers from it. Absent fields have the published defaults."""
    config = Fields(values)
    sizes = read_sizes(config, max_context=131072, vocab_size=262208, heads=8, kv_heads=4, head_dim=256)
    config.refuse("use_bidirectional_attention", False)
    config.refuse("attn_logit_softcapping")
    bias = config.flag("attention_bias", default=False)
    windows = _windows(config, sizes["layers"])
    local, whole = _ropes(config, sizes["head_dim"])
    return ModelSpec(
        model_type="gemma3_text",
        **sizes,
        tied=config.flag("tie_word_embeddings", default=True),
        activation=read_activation(config, "hidden_activation", "gelu_pytorch_tanh"),
        qkv_bias=bias,
        o_bias=bias,
        attention_scale=config.number("query_pre_attn_scalar", 1e-3, 1e6, 256) ** -0.5,
        embed_scale=to_bfloat16(sizes["hidden_size"] ** 0.5),
        logit_softcap=config.number("final_logit_softcapping", 1e-3, 1e6)
        if config.has("final_logit_softcapping")
        else 0,
        windows=windows,
        ropes=tuple(local if window else whole for window in windows),
    )


def graph(spec: ModelSpec) -> Graph:
    """x += norm(attention(norm(x))); x += norm(mlp(norm(x))); a layer. Every norm multiplies by 1 + w."""
    layers: list[Op] = []
    for layer in range(spec.layers):
        layers += [
            attend(spec, layer, qk_norm=True, post_norm="post_attention_layernorm", offset=1.0),
            gated_mlp(
                spec,
                layer,
                norm="pre_feedforward_layernorm",
                post_norm="post_feedforward_layernorm",
                offset=1.0,
            ),
        ]
    return decoder(spec, layers, offset=1.0)


def to_bfloat16(value: float) -> float:
    """The nearest bfloat16, ties to even: the embedding's scale as the model was trained with it (25.3 is 25.25)."""
    bits: int = struct.unpack("<I", struct.pack("<f", value))[0]
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000
    nearest: float = struct.unpack("<f", struct.pack("<I", rounded))[0]
    return nearest


def _windows(config: Fields, layers: int) -> tuple[int, ...]:
    every = config.integer("sliding_window_pattern", 1, MOST_LAYERS, 6)
    window = config.integer("sliding_window", 1, MOST_CONTEXT, 4096)
    return read_windows(config, layers, window, tuple((i + 1) % every != 0 for i in range(layers)))


def _ropes(config: Fields, head_dim: int) -> tuple[Rope, Rope]:
    """RoPE of the sliding and of the full layers; new spelling: one object a layer type."""
    whole_theta = config.number("rope_theta", 1.0, 1e15, _GLOBAL_THETA)
    local_theta = config.number("rope_local_base_freq", 1.0, 1e15, _LOCAL_THETA)
    settings = config.table("rope_parameters")
    scaling = config.table("rope_scaling")
    whole = scaling if scaling.values else settings.table("full_attention")
    local = rope_from(settings.table("sliding_attention"), head_dim, local_theta)
    return local, rope_from(whole, head_dim, whole_theta)
