"""Qwen3-Next (Qwen team, 2025): three of four layers are gated delta nets, the others gated attention; with experts.

Norms add 1 to their weights, but for that of the delta nets' heads. Only a part of each head is rotated.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from localinfer.graph.families.layers import Style, attend, decoder, delta_net, feed_forward
from localinfer.graph.fields import Fields
from localinfer.graph.graph import Graph
from localinfer.graph.names import text_alone
from localinfer.graph.ops import LayerOp, Linear, Mix, Norm
from localinfer.graph.rope import read_rope
from localinfer.graph.spec import (
    MOST_LAYERS,
    MixtureSpec,
    ModelSpec,
    Routing,
    read_config,
    read_delta,
    read_mixture,
    read_sizes,
    read_sparse_layers,
    read_tied,
)

tensor_name = text_alone
_STYLE = Style(qk_norm="head", offset=1.0)


def spec(values: Mapping[str, Any]) -> ModelSpec:
    """Check config.json and read the model's numbers from it."""
    config = read_config(values, "qwen3_next")
    return read_spec(config, "qwen3_next", read_experts(config))


def read_experts(config: Fields) -> MixtureSpec:
    """Mixtures with a shared expert, in the layers that Qwen's rule gives one."""
    layers = config.integer("num_hidden_layers", 1, MOST_LAYERS)
    return read_mixture(
        config,
        "num_experts",
        "moe_intermediate_size",
        layers=read_sparse_layers(config, layers),
        routing=Routing(renormalise=config.flag("norm_topk_prob")),
        shared_inner=config.integer("shared_expert_intermediate_size", 1, 1 << 20),
    )


def read_spec(config: Fields, model_type: str, mixture: MixtureSpec | None, inner: str | None = None) -> ModelSpec:
    """What the families of these layers share; `inner` is what they call the width of the feed-forward half."""
    sizes = read_sizes(config, inner=inner)
    if config.flag("attention_bias"):
        raise config.unknown("attention_bias", True, (False,))
    config.refuse("attn_output_gate", True)
    config.word("hidden_act", {"silu": "silu", "swish": "silu"})
    types = config.words("layer_types", sizes["layers"], ("linear_attention", "full_attention"))
    if types is None:
        every = config.integer("full_attention_interval", 1, MOST_LAYERS)
        linear = tuple((layer + 1) % every != 0 for layer in range(sizes["layers"]))
    else:
        linear = tuple(kind == "linear_attention" for kind in types)
    return ModelSpec(
        model_type=model_type,
        **sizes,
        tied=read_tied(config),
        activation="silu",
        attention_scale=sizes["head_dim"] ** -0.5,
        attention_gate=True,
        windows=(0,) * sizes["layers"],
        ropes=(read_rope(config, sizes["head_dim"], partial=True),) * sizes["layers"],
        delta=read_delta(config, linear),
        mixture=mixture,
    )


def graph(spec: ModelSpec) -> Graph:
    """x += attention or delta net of norm(x); x += mlp or mixture of norm(x); a layer."""
    return layered(spec, fused=True)


def ahead(spec: ModelSpec) -> Graph:
    """The head that guesses ahead: one full layer on the mix of the next token's embedding and what the model gave."""
    hidden, experts = spec.hidden_size, spec.mixture
    one = replace(
        spec,
        layers=1,
        delta=None,
        windows=(0,),
        ropes=spec.ropes[-1:],
        mixture=None if experts is None else replace(experts, layers=(True,)),
    )

    def norm(name: str) -> Norm:
        return Norm(f"mtp.pre_fc_norm_{name}", hidden, spec.norm_eps, _STYLE.offset)

    graph = decoder(one, _STYLE, ((attend(one, 0, _STYLE), feed_forward(one, 0, _STYLE)),))
    return replace(graph, mix=Mix(Linear("mtp.fc", hidden, 2 * hidden), norm("embedding"), norm("hidden")))


def layered(spec: ModelSpec, *, fused: bool) -> Graph:
    """The same, with the inputs of delta nets in two matrices, key head by key head, or in four."""
    of = spec.delta
    assert of is not None
    keys, values = of.heads * of.key_dim, of.value_heads * of.value_dim

    def mixer(layer: int) -> LayerOp:
        if not of.layers[layer]:
            return attend(spec, layer, _STYLE)
        if fused:
            inputs = (("in_proj_qkvz", 2 * keys + 2 * values),)
            return delta_net(spec, layer, _STYLE, inputs=inputs, gates=("in_proj_ba",), by_key_head=True)
        each = (("in_proj_qkv", 2 * keys + values), ("in_proj_z", values))
        return delta_net(spec, layer, _STYLE, inputs=each, gates=("in_proj_b", "in_proj_a"))

    return decoder(spec, _STYLE, ((mixer(i), feed_forward(spec, i, _STYLE)) for i in range(spec.layers)))
