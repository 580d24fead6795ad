"""Mixtral (Jiang et al., 2024): Mistral's attention; every feed-forward half is a mixture, its weights sum to 1."""

from collections.abc import Mapping
from typing import Any

from localinfer.graph.families.layers import MixtureStyle, Style, decoder
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
    read_tied,
)
from localinfer.graph.stacked import Stack

STYLE = Style(mixture=MixtureStyle(block="block_sparse_moe", expert=("w1", "w3", "w2")))
STACKED = {
    "experts.gate_up_proj": Stack(("w1.weight", "w3.weight")),
    "experts.down_proj": Stack(("w2.weight",)),
}
"""Tensors of all experts of a layer."""


def tensor_name(stored: str) -> str:
    """The graph's name of a stored tensor; since its version 5 transformers calls the block `mlp`."""
    return stored.replace(".mlp.", ".block_sparse_moe.")


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
            routing=Routing(renormalise=True),
        ),
    )


def graph(spec: ModelSpec) -> Graph:
    """x += attention(norm(x)); x += mixture(norm(x)); a layer."""
    return decoder(spec, STYLE)
