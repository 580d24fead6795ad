"""GLM-4.5 and 4.6 (Z.ai, 2025): a part of each head is rotated; sigmoid scores, a bias for the choice, a shared expert.
The first layers have one feed-forward half for all rows."""

from collections.abc import Mapping
from typing import Any

from localinfer.graph.families.layers import MixtureStyle, Style, decoder
from localinfer.graph.fields import Fields
from localinfer.graph.graph import Graph
from localinfer.graph.rope import read_rope
from localinfer.graph.spec import (
    MOST_LAYERS,
    MixtureSpec,
    ModelSpec,
    Routing,
    read_activation,
    read_config,
    read_mixture,
    read_sizes,
    read_tied,
)

_NAMES = MixtureStyle(shared="shared_experts", shared_gate="", choice_bias="gate.e_score_correction_bias")


def spec(values: Mapping[str, Any]) -> ModelSpec:
    """Check config.json and read the model's numbers from it."""
    config = read_config(values, "glm4_moe")
    sizes = read_sizes(config)
    return ModelSpec(
        model_type="glm4_moe",
        **sizes,
        tied=read_tied(config),
        activation=read_activation(config, "hidden_act"),
        qkv_bias=config.flag("attention_bias"),
        qk_norm=config.flag("use_qk_norm"),
        attention_scale=sizes["head_dim"] ** -0.5,
        windows=(0,) * sizes["layers"],
        ropes=(read_rope(config, sizes["head_dim"], partial=True),) * sizes["layers"],
        mixture=_mixture(config, sizes["layers"]),
    )


def graph(spec: ModelSpec) -> Graph:
    """x += attention(norm(x)); x += mlp(norm(x)) or mixture(norm(x)); a layer."""
    return decoder(spec, Style(qk_norm="head" if spec.qk_norm else "", mixture=_NAMES))


def _mixture(config: Fields, layers: int) -> MixtureSpec:
    count, inner = config.integer("n_routed_experts", 1, 1 << 12), config.integer("moe_intermediate_size", 1, 1 << 20)
    groups = config.integer("n_group", 1, 64)
    if count % groups or (groups > 1 and count == groups):
        raise config.bad("n_group", f"a number of groups of two or more of n_routed_experts ({count})")
    chosen_groups = config.integer("topk_group", 1, groups)
    if config.integer("num_experts_per_tok", 1, 64) > chosen_groups * (count // groups):
        raise config.bad("num_experts_per_tok", f"at most the experts of topk_group ({chosen_groups}) groups")
    dense = config.integer("first_k_dense_replace", 0, MOST_LAYERS)
    return read_mixture(
        config,
        "n_routed_experts",
        "moe_intermediate_size",
        layers=tuple(layer >= dense for layer in range(layers)),
        routing=Routing(
            score="sigmoid",
            renormalise=config.flag("norm_topk_prob"),
            least_sum=1e-20,
            scale=config.number("routed_scaling_factor", 1e-6, 1e6),
            groups=groups,
            chosen_groups=chosen_groups,
        ),
        shared_inner=inner * config.integer("n_shared_experts", 1, 64),
    )
