"""OLMoE (Muennighoff et al., 2024): queries and keys normed all heads at once; every feed-forward half is a mixture."""

from collections.abc import Mapping
from typing import Any

from localinfer.graph.families.layers import Style, decoder
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


def spec(values: Mapping[str, Any]) -> ModelSpec:
    """Check config.json and read the model's numbers from it."""
    config = read_config(values, "olmoe")
    sizes = read_sizes(config)
    config.refuse("clip_qkv")
    bias = config.flag("attention_bias")
    return ModelSpec(
        model_type="olmoe",
        **sizes,
        tied=read_tied(config),
        activation=read_activation(config, "hidden_act"),
        qkv_bias=bias,
        o_bias=bias,
        attention_scale=sizes["head_dim"] ** -0.5,
        windows=(0,) * sizes["layers"],
        ropes=(read_rope(config, sizes["head_dim"]),) * sizes["layers"],
        mixture=read_mixture(
            config,
            "num_experts",
            "intermediate_size",
            layers=(True,) * sizes["layers"],
            routing=Routing(renormalise=config.flag("norm_topk_prob")),
        ),
    )


def graph(spec: ModelSpec) -> Graph:
    """x += attention(norm(x)) with normed queries and keys; x += mixture(norm(x)); a layer."""
    return decoder(spec, Style(qk_norm="all"))
