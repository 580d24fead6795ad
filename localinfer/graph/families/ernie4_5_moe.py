"""ERNIE 4.5 with experts (Baidu, 2025): ERNIE's attention; experts are chosen by score and a bias, and some are shared.
The first layers may have one feed-forward half for all rows."""

from collections.abc import Mapping
from typing import Any

from localinfer.graph.families.layers import MixtureStyle, Style, decoder
from localinfer.graph.fields import Fields
from localinfer.graph.graph import Graph
from localinfer.graph.rope import read_rope
from localinfer.graph.spec import (
    MOST_LAYERS,
    ModelSpec,
    Routing,
    read_activation,
    read_config,
    read_mixture,
    read_sizes,
    read_tied,
)

_NAMES = MixtureStyle(
    shared="shared_experts", shared_gate="", choice_bias="moe_statics.e_score_correction_bias", choice_bias_is_row=True
)


def tensor_name(stored: str) -> str:
    """The graph's name of a stored tensor; transformers 5 has the bias of the choice at the router."""
    return stored.replace(".gate.moe_statics.", ".moe_statics.")


def spec(values: Mapping[str, Any]) -> ModelSpec:
    """Check config.json and read the model's numbers from it."""
    config = read_config(values, "ernie4_5_moe")
    config.refuse("num_experts_per_tok", config.get("moe_k"))  # another name of it to transformers
    sizes = read_sizes(config)
    config.refuse("use_bias", False)
    inner = config.integer("moe_intermediate_size", 1, 1 << 20)
    return ModelSpec(
        model_type="ernie4_5_moe",
        **sizes,
        tied=read_tied(config),
        activation=read_activation(config, "hidden_act"),
        attention_scale=sizes["head_dim"] ** -0.5,
        windows=(0,) * sizes["layers"],
        ropes=(read_rope(config, sizes["head_dim"], interleaved=True),) * sizes["layers"],
        mixture=read_mixture(
            config,
            "moe_num_experts",
            "moe_intermediate_size",
            chosen_as="moe_k",
            layers=_layers(config, sizes["layers"]),
            routing=Routing(renormalise=True, least_sum=config.number("moe_norm_min", 0.0, 1.0)),
            shared_inner=inner * config.integer("moe_num_shared_experts", 0, 64),
        ),
    )


def graph(spec: ModelSpec) -> Graph:
    """x += attention(norm(x)); x += mlp(norm(x)) or mixture(norm(x)); a layer."""
    return decoder(spec, Style(mixture=_NAMES))


def _layers(config: Fields, layers: int) -> tuple[bool, ...]:
    first = config.integer("moe_layer_start_index", 0, MOST_LAYERS)
    last = config.integer("moe_layer_end_index", -1, MOST_LAYERS)
    every = config.integer("moe_layer_interval", 1, MOST_LAYERS)
    last = layers - 1 if last == -1 else last
    return tuple(first <= layer <= last and (layer + 1) % every == 0 for layer in range(layers))
