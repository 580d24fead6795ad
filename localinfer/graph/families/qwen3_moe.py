"""Qwen3 with experts (Yang et al., 2025): Qwen3's attention; most feed-forward halves are mixtures."""

from collections.abc import Mapping
from typing import Any

from localinfer.graph.families.layers import Style, decoder
from localinfer.graph.graph import Graph
from localinfer.graph.rope import read_rope
from localinfer.graph.spec import (
    MOST_CONTEXT,
    ModelSpec,
    Routing,
    read_activation,
    read_config,
    read_mixture,
    read_sizes,
    read_sparse_layers,
    read_tied,
)


def spec(values: Mapping[str, Any]) -> ModelSpec:
    """Check config.json and read the model's numbers from it."""
    config = read_config(values, "qwen3_moe")
    sizes = read_sizes(config)
    bias = config.flag("attention_bias")
    slides = config.flag("use_sliding_window") and config.has("sliding_window")
    window = config.integer("sliding_window", 1, MOST_CONTEXT) if slides else 0
    return ModelSpec(
        model_type="qwen3_moe",
        **sizes,
        tied=read_tied(config),
        activation=read_activation(config, "hidden_act"),
        qkv_bias=bias,
        o_bias=bias,
        attention_scale=sizes["head_dim"] ** -0.5,
        windows=(window,) * sizes["layers"],
        ropes=(read_rope(config, sizes["head_dim"]),) * sizes["layers"],
        mixture=read_mixture(
            config,
            "num_local_experts" if "num_local_experts" in values else "num_experts",
            "moe_intermediate_size",
            layers=read_sparse_layers(config, sizes["layers"]),
            routing=Routing(renormalise=config.flag("norm_topk_prob")),
        ),
    )


def graph(spec: ModelSpec) -> Graph:
    """x += attention(norm(x)) with normed queries and keys; x += mixture(norm(x)); a layer."""
    return decoder(spec, Style(qk_norm="head"))
