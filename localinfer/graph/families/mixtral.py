"""Mixtral (Jiang et al., 2024): Mistral's attention; every feed-forward half is a mixture, its weights sum to 1."""

from collections.abc import Mapping
from typing import Any

from localinfer.graph.families.layers import attend, decoder, mixture
from localinfer.graph.ops import Graph
from localinfer.graph.rope import read_rope
from localinfer.graph.spec import (
    MOST_CONTEXT,
    ModelSpec,
    read_activation,
    read_config,
    read_mixture,
    read_sizes,
    read_tied,
)


def spec(values: Mapping[str, Any]) -> ModelSpec:
    """Check config.json and read the model's numbers from it."""
    config = read_config(values, "mixtral")
    sizes = read_sizes(config)
    window = config.integer("sliding_window", 1, MOST_CONTEXT) if config.has("sliding_window") else 0
    return ModelSpec(
        model_type="mixtral",
        **sizes,
        tied=read_tied(config),
        activation=read_activation(config, "hidden_act"),
        attention_scale=sizes["head_dim"] ** -0.5,
        windows=(window,) * sizes["layers"],
        ropes=(read_rope(config, sizes["head_dim"]),) * sizes["layers"],
        mixture=read_mixture(
            config,
            "num_experts" if "num_experts" in values else "num_local_experts",
            "intermediate_size",
            layers=(True,) * sizes["layers"],
            renormalise=True,
        ),
    )


def graph(spec: ModelSpec) -> Graph:
    """x += attention(norm(x)); x += mixture(norm(x)); a layer."""
    names = ("w1", "w3", "w2")
    halves = (mixture(spec, layer, block="block_sparse_moe", names=names) for layer in range(spec.layers))
    return decoder(spec, layers=((attend(spec, layer), half) for layer, half in enumerate(halves)))
