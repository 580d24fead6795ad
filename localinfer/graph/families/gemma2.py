"""Gemma 2 (Gemma Team, 2024): norms before and after each half, with weights stored as w - 1; GELU; scores and logits
are capped softly; every other layer has a sliding window."""

from collections.abc import Mapping
from typing import Any

from localinfer.graph.families.gemma3_text import to_bfloat16
from localinfer.graph.families.layers import Style, decoder
from localinfer.graph.graph import Graph
from localinfer.graph.rope import read_rope
from localinfer.graph.spec import ModelSpec, read_activation, read_config, read_sizes, read_tied, read_windows


def spec(values: Mapping[str, Any]) -> ModelSpec:
    """Check config.json and read the model's numbers from it."""
    config = read_config(values, "gemma2")
    sizes = read_sizes(config)
    bias = config.flag("attention_bias")
    caps = (
        config.number(name, 1e-3, 1e6) if config.has(name) else 0.0
        for name in ("attn_logit_softcapping", "final_logit_softcapping")
    )
    attention_softcap, logit_softcap = caps
    return ModelSpec(
        model_type="gemma2",
        **sizes,
        tied=read_tied(config),
        activation=read_activation(config, "hidden_activation"),
        qkv_bias=bias,
        o_bias=bias,
        attention_scale=config.number("query_pre_attn_scalar", 1e-3, 1e6) ** -0.5,
        attention_softcap=attention_softcap,
        embed_scale=to_bfloat16(sizes["hidden_size"] ** 0.5),
        logit_softcap=logit_softcap,
        windows=read_windows(config, sizes["layers"], tuple(i % 2 == 0 for i in range(sizes["layers"]))),
        ropes=(read_rope(config, sizes["head_dim"]),) * sizes["layers"],
    )


def graph(spec: ModelSpec) -> Graph:
    """x += norm(attention(norm(x))); x += norm(mlp(norm(x))); a layer. Every norm multiplies by 1 + w."""
    return decoder(
        spec,
        Style(
            offset=1.0,
            post_norm="post_attention_layernorm",
            mlp_norm="pre_feedforward_layernorm",
            mlp_post_norm="post_feedforward_layernorm",
        ),
    )
