"""Granite 3 with experts (IBM, 2024): Granite's four numbers; every feed-forward half is a mixture whose weights are a
softmax over the chosen experts."""

from collections.abc import Mapping
from typing import Any

from localinfer.graph.families.granite import common
from localinfer.graph.families.layers import MixtureStyle, Style, decoder
from localinfer.graph.graph import Graph
from localinfer.graph.rope import read_rope
from localinfer.graph.spec import (
    ModelSpec,
    Routing,
    read_activation,
    read_config,
    read_mixture,
    read_sizes,
    read_tied,
)
from localinfer.graph.stacked import STACKED as NEW
from localinfer.graph.stacked import Stack

STACKED = {
    **NEW,
    "input_linear.weight": Stack(("gate_proj.weight", "up_proj.weight")),
    "output_linear.weight": Stack(("down_proj.weight",)),
}
"""Tensors of all experts of a layer."""


def tensor_name(stored: str) -> str:
    """The graph's name of a stored tensor."""
    return stored.replace(".router.layer.", ".router.")


def spec(values: Mapping[str, Any]) -> ModelSpec:
    """Check config.json and read the model's numbers from it."""
    config = read_config(values, "granitemoe")
    sizes = read_sizes(config)
    scale = sizes["head_dim"] ** -0.5
    if config.has("attention_multiplier"):
        scale = config.number("attention_multiplier", 1e-6, 1e6)
    return ModelSpec(
        model_type="granitemoe",
        **sizes,
        tied=read_tied(config),
        activation=read_activation(config, "hidden_act"),
        **common(config),
        attention_scale=scale,
        windows=(0,) * sizes["layers"],
        ropes=(read_rope(config, sizes["head_dim"]),) * sizes["layers"],
        mixture=read_mixture(
            config,
            "num_local_experts",
            "intermediate_size",
            layers=(True,) * sizes["layers"],
            routing=Routing(renormalise=True),
        ),
    )


def graph(spec: ModelSpec) -> Graph:
    """x += attention(norm(x)); x += mixture(norm(x)); a layer; the spec has the numbers."""
    return decoder(spec, Style(mixture=MixtureStyle(block="block_sparse_moe", router="router")))
