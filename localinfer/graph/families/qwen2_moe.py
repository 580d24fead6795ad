"""Qwen1.5 and Qwen2 with experts (Qwen team, 2024): Qwen2's attention; mixtures with a shared expert behind a gate."""

from collections.abc import Mapping
from typing import Any

from localinfer.graph.families.layers import decoder
from localinfer.graph.graph import Graph
from localinfer.graph.rope import read_rope
from localinfer.graph.spec import (
    ModelSpec,
    Routing,
    read_activation,
    read_config,
    read_mixture,
    read_sizes,
    read_sparse_layers,
    read_tied,
    read_windows,
)


def spec(values: Mapping[str, Any]) -> ModelSpec:
    """Check config.json and read the model's numbers from it. Where layers slide, every other one of the first
    `max_window_layers` does, unless `layer_types` says which."""
    config = read_config(values, "qwen2_moe")
    sizes = read_sizes(config)
    slides, first = config.flag("use_sliding_window"), config.integer("max_window_layers", 0, 1 << 24)
    sliding = tuple(slides and layer % 2 == 0 and layer < first for layer in range(sizes["layers"]))
    return ModelSpec(
        model_type="qwen2_moe",
        **sizes,
        tied=read_tied(config),
        activation=read_activation(config, "hidden_act"),
        qkv_bias=config.flag("qkv_bias"),
        attention_scale=sizes["head_dim"] ** -0.5,
        windows=read_windows(config, sizes["layers"], sliding, on=slides),
        ropes=(read_rope(config, sizes["head_dim"]),) * sizes["layers"],
        mixture=read_mixture(
            config,
            "num_experts",
            "moe_intermediate_size",
            layers=read_sparse_layers(config, sizes["layers"]),
            routing=Routing(renormalise=config.flag("norm_topk_prob")),
            shared_inner=config.integer("shared_expert_intermediate_size", 1, 1 << 20),
        ),
    )


def graph(spec: ModelSpec) -> Graph:
    """x += attention(norm(x)); x += mixture(norm(x)); a layer."""
    return decoder(spec)
