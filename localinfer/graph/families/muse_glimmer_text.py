"""Muse Glimmer (Meta, 2026): embeddings are normed; queries and keys are normed by head, without weights; gates behind
attention have a matrix of their own; every fourth layer sees all and rotates nothing, others have a window."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from localinfer.graph.families.layers import Style, decoder
from localinfer.graph.fields import Fields
from localinfer.graph.graph import Graph
from localinfer.graph.ops import Norm
from localinfer.graph.rope import read_rope, rope_settings, still
from localinfer.graph.spec import ModelSpec, read_activation, read_config, read_sizes, read_tied, read_windows

_STYLE = Style(
    post_norm="post_attention_layernorm",
    mlp_norm="pre_feedforward_layernorm",
    mlp_post_norm="post_feedforward_layernorm",
    offset=1.0,
    qk_norm="head",
    q_norm="",
    k_norm="",
    attention_gate="gate_proj",
)


def spec(values: Mapping[str, Any]) -> ModelSpec:
    """Check config.json and read the model's numbers from it."""
    config = read_config(values, "muse_glimmer_text")
    sizes = read_sizes(config)
    if config.flag("attention_bias"):
        raise config.unknown("attention_bias", True, (False,))
    layers = sizes["layers"]
    every_fourth = tuple((layers - 1 - i) % 4 == 0 for i in range(layers))
    rope, none = read_rope(config, sizes["head_dim"]), still(sizes["head_dim"])
    return ModelSpec(
        model_type="muse_glimmer_text",
        **sizes,
        tied=read_tied(config),
        activation=read_activation(config, "hidden_activation"),
        attention_scale=sizes["head_dim"] ** -0.5 * config.number("qk_scale_factor", 1e-3, 1e3),
        attention_gate=True,
        post_norm_eps=config.number("post_norm_eps", 1e-12, 0.1),
        logit_scale=config.number("output_multiplier", 1e-6, 1e6),
        logit_softcap=config.number("final_logit_softcapping", 1e-3, 1e6),
        windows=read_windows(config, layers, tuple(not one for one in every_fourth)),
        ropes=tuple(rope if one else none for one in _rotated(config, every_fourth)),
    )


def graph(spec: ModelSpec) -> Graph:
    """x += norm(gates * attention(norm(x))); x += norm(mlp(norm(x))); a layer. All norms but the last: 1 + w."""
    made = decoder(spec, _STYLE)
    embed = replace(made.embed, norm=Norm("", spec.hidden_size, spec.norm_eps))
    return replace(made, embed=embed, head=replace(made.head, norm=replace(made.head.norm, offset=0.0)))


def _rotated(config: Fields, every_fourth: tuple[bool, ...]) -> tuple[bool, ...]:
    """Of each layer, whether its heads are rotated: where its theta is not 0, which must be that of all."""
    listed = config.get("layer_rope_theta")
    if listed is None:
        return tuple(not one for one in every_fourth)
    settings = rope_settings(config)
    theta = settings.get("rope_theta") if "rope_theta" in settings.values else config.get("rope_theta")
    if not isinstance(listed, list) or len(listed) != len(every_fourth):
        raise config.bad("layer_rope_theta", f"a list of {len(every_fourth)} numbers, one a layer")
    if not all(type(one) in (int, float) and one in (0, theta) for one in listed):
        raise config.unknown("layer_rope_theta", listed, (0, theta))
    return tuple(one != 0 for one in listed)
