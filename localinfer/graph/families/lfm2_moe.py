"""LFM2 with experts (Liquid AI, 2025; 8B-A1B): LFM2's layers; after the first ones the feed-forward half is a mixture,
whose experts are chosen by sigmoid scores and a bias."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from localinfer.graph.families import lfm2
from localinfer.graph.families.layers import MixtureStyle, decoder, mixture
from localinfer.graph.graph import Graph
from localinfer.graph.ops import GatedMLP, Mixture
from localinfer.graph.rope import read_rope
from localinfer.graph.spec import MOST_LAYERS, ModelSpec, Routing, read_config, read_mixture, read_sizes, read_tied
from localinfer.graph.stacked import Stack

_ADDED = 1e-6
"""To the sum that weights are divided by."""

STACKED = {
    "experts.gate_up_proj": Stack(("w1.weight", "w3.weight")),
    "experts.down_proj": Stack(("w2.weight",)),
}
"""Tensors of all experts of a layer."""


def spec(values: Mapping[str, Any]) -> ModelSpec:
    """Check config.json and read the model's numbers from it."""
    config = read_config(values, "lfm2_moe")
    sizes = read_sizes(config, norm_eps="norm_eps")
    layers, dense = sizes["layers"], config.integer("num_dense_layers", 0, MOST_LAYERS)
    types = config.words("layer_types", layers, ("full_attention", "conv"))
    if types is None:
        raise config.bad("layer_types", f"a list of {layers} words, one a layer")
    return ModelSpec(
        model_type="lfm2_moe",
        **sizes,
        tied=read_tied(config, "tie_embedding" if "tie_embedding" in values else "tie_word_embeddings"),
        activation="silu",
        attention_scale=sizes["head_dim"] ** -0.5,
        windows=(0,) * layers,
        ropes=(read_rope(config, sizes["head_dim"]),) * layers,
        conv_layers=tuple(kind == "conv" for kind in types),
        conv_length=config.integer("conv_L_cache", 2, lfm2.MOST_LENGTH),
        conv_bias=config.flag("conv_bias"),
        mixture=read_mixture(
            config,
            "num_experts",
            "moe_intermediate_size",
            layers=tuple(layer >= dense for layer in range(layers)),
            choice_bias=config.flag("use_expert_bias"),
            routing=Routing(
                score="sigmoid",
                renormalise=config.flag("norm_topk_prob"),
                added_sum=_ADDED,
                scale=config.number("routed_scaling_factor", 1e-6, 1e6),
            ),
        ),
    )


def graph(spec: ModelSpec) -> Graph:
    """x += attention or convolution of norm(x); x += mlp(norm(x)) or mixture(norm(x)); a layer."""
    layers = ((lfm2.mixer(spec, layer), _feed_forward(spec, layer)) for layer in range(spec.layers))
    return decoder(spec, lfm2.STYLE, layers)


def _feed_forward(spec: ModelSpec, layer: int) -> GatedMLP | Mixture:
    of = spec.mixture
    assert of is not None
    if not of.layers[layer]:
        return lfm2.mlp(spec, layer)
    names = MixtureStyle(
        block="feed_forward", expert=("w1", "w3", "w2"), choice_bias="expert_bias" if of.choice_bias else ""
    )
    return mixture(spec, layer, replace(lfm2.STYLE, mlp_norm="ffn_norm", mixture=names))
