"""gpt-oss (OpenAI, 2025): every other layer has a sliding window, heads have attention sinks, experts a clamped SwiGLU
and biases; their matrices are stored in MXFP4."""

from collections.abc import Mapping
from typing import Any

from localinfer.graph.families.layers import MixtureStyle, Style, decoder
from localinfer.graph.graph import Graph
from localinfer.graph.rope import read_rope
from localinfer.graph.spec import (
    ModelSpec,
    Routing,
    read_config,
    read_mixture,
    read_sizes,
    read_tied,
    read_windows,
)
from localinfer.graph.stacked import Stack

STACKED = {
    "experts.gate_up_proj": Stack(("gate_proj.weight", "up_proj.weight"), alternating=True, transposed=True),
    "experts.down_proj": Stack(("down_proj.weight",), transposed=True),
    "experts.gate_up_proj_bias": Stack(("gate_proj.bias", "up_proj.bias"), alternating=True),
    "experts.down_proj_bias": Stack(("down_proj.bias",)),
    "experts.gate_up_proj_blocks": Stack(("gate_proj.weight_blocks", "up_proj.weight_blocks"), alternating=True),
    "experts.down_proj_blocks": Stack(("down_proj.weight_blocks",)),
    "experts.gate_up_proj_scales": Stack(("gate_proj.weight_scales", "up_proj.weight_scales"), alternating=True),
    "experts.down_proj_scales": Stack(("down_proj.weight_scales",)),
}
"""Tensors of all experts of a layer."""

_YARN = {
    "rope_type": "yarn",
    "factor": 32.0,
    "beta_fast": 32.0,
    "beta_slow": 1.0,
    "truncate": False,
    "original_max_position_embeddings": 4096,
}
"""RoPE where config.json says nothing of it."""


def spec(values: Mapping[str, Any]) -> ModelSpec:
    """Check config.json and read the model's numbers from it."""
    said = values.get("rope_scaling") or values.get("rope_parameters")
    config = read_config(values if said else {**values, "rope_scaling": _YARN}, "gpt_oss")
    sizes = read_sizes(config)
    config.word("hidden_act", {"silu": "silu"})
    bias = config.flag("attention_bias")
    alternating = tuple(layer % 2 == 0 for layer in range(sizes["layers"]))
    return ModelSpec(
        model_type="gpt_oss",
        **sizes,
        tied=read_tied(config),
        activation="silu",
        qkv_bias=bias,
        o_bias=bias,
        attention_scale=sizes["head_dim"] ** -0.5,
        windows=read_windows(config, sizes["layers"], alternating),
        ropes=(read_rope(config, sizes["head_dim"]),) * sizes["layers"],
        mixture=read_mixture(
            config,
            "num_local_experts",
            "intermediate_size",
            layers=(True,) * sizes["layers"],
            routing=Routing(renormalise=True),
            bias=True,
            clamp=(config.number("swiglu_limit", 1e-3, 1e6), config.number("swiglu_alpha", 0.0, 1e3)),
        ),
    )


def graph(spec: ModelSpec) -> Graph:
    """x += attention(norm(x)); x += mixture(norm(x)); a layer."""
    return decoder(spec, Style(sinks=True, mixture=MixtureStyle(router="router")))
