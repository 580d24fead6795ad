"""GLM-4.5 and 4.6 (Z.ai, 2025): a part of each head is rotated; sigmoid scores, a bias for the choice, a shared expert.
The first layers have one feed-forward half for all rows."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from localinfer.graph.families.layers import MixtureStyle, Style, decoder
from localinfer.graph.fields import Fields
from localinfer.graph.graph import Graph
from localinfer.graph.names import text_alone
from localinfer.graph.ops import Linear, Mix, Norm
from localinfer.graph.rope import read_rope
from localinfer.graph.spec import (
    MOST_LAYERS,
    MixtureSpec,
    ModelSpec,
    read_activation,
    read_config,
    read_grouped,
    read_mixture,
    read_sizes,
    read_tied,
)

tensor_name = text_alone
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


def ahead(spec: ModelSpec) -> Graph:
    """The head that guesses ahead: one layer on the mix of the next token's embedding and what the model gave."""
    hidden, experts = spec.hidden_size, spec.mixture
    assert experts is not None
    one = replace(spec, layers=1, windows=(0,), ropes=spec.ropes[-1:], mixture=replace(experts, layers=(True,)))
    embedding, stream = (Norm(f"mtp.pre_fc_norm_{name}", hidden, spec.norm_eps) for name in ("embedding", "hidden"))
    return replace(graph(one), mix=Mix(Linear("mtp.fc", hidden, 2 * hidden), embedding, stream))


def _mixture(config: Fields, layers: int) -> MixtureSpec:
    inner = config.integer("moe_intermediate_size", 1, 1 << 20)
    dense = config.integer("first_k_dense_replace", 0, MOST_LAYERS)
    return read_mixture(
        config,
        "n_routed_experts",
        "moe_intermediate_size",
        layers=tuple(layer >= dense for layer in range(layers)),
        routing=read_grouped(config),
        shared_inner=inner * config.integer("n_shared_experts", 1, 64),
    )
