"""Granite 4 (IBM, 2025): most layers are Mamba-2, a few attention, mostly without RoPE; Granite's four numbers.
Feed-forward halves have a shared expert, and others beside it or not."""

from collections.abc import Mapping
from typing import Any

from localinfer.graph.families.granite import common
from localinfer.graph.families.layers import MixtureStyle, Style, attend, decoder, mamba2, mixture
from localinfer.graph.families.mamba import FUSED as MAMBA
from localinfer.graph.families.mamba import read_mamba, read_mamba_activation, recurrent_layers
from localinfer.graph.fields import Fields
from localinfer.graph.graph import Graph
from localinfer.graph.ops import GatedMLP, LayerOp, Linear, Mixture, Norm
from localinfer.graph.rope import Rope, read_rope, still
from localinfer.graph.spec import (
    MixtureSpec,
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

_SHARED = ("gate_proj", "up_proj")
FUSED = {**MAMBA, "shared_mlp.input_linear": tuple(f"shared_mlp.{name}" for name in _SHARED)}
"""Stored matrices that are several of the graph's."""
_NAMES = MixtureStyle(block="block_sparse_moe", router="router", shared="shared_mlp", shared_gate="")
_STYLE = Style(mixture=_NAMES)


STACKED = {
    **NEW,
    "block_sparse_moe.input_linear.weight": Stack(("gate_proj.weight", "up_proj.weight")),
    "block_sparse_moe.output_linear.weight": Stack(("down_proj.weight",)),
}
"""Tensors of all experts of a layer."""


def tensor_name(stored: str) -> str:
    """The graph's name of a stored tensor."""
    if ".block_sparse_moe." not in stored:
        for part in (".shared_mlp.", ".experts."):
            stored = stored.replace(part, f".block_sparse_moe{part}")
    return stored.replace(".router.layer.", ".router.").replace(".shared_mlp.output_linear.", ".shared_mlp.down_proj.")


def spec(values: Mapping[str, Any]) -> ModelSpec:
    """Check config.json and read the model's numbers from it."""
    config = read_config(values, "granitemoehybrid")
    sizes = read_sizes(config)
    scale = sizes["head_dim"] ** -0.5
    if config.has("attention_multiplier"):
        scale = config.number("attention_multiplier", 1e-6, 1e6)
    inner = config.integer("mamba_expand", 1, 64) * sizes["hidden_size"]
    linear = recurrent_layers(config, sizes["layers"], "layers_block_type")
    return ModelSpec(
        model_type="granitemoehybrid",
        **sizes,
        tied=read_tied(config),
        activation=read_mamba_activation(config) if any(linear) else read_activation(config, "hidden_act"),
        **common(config),
        attention_scale=scale,
        windows=(0,) * sizes["layers"],
        ropes=(_rope(config, sizes["head_dim"]),) * sizes["layers"],
        mamba=read_mamba(config, linear, inner, norm_groups=config.integer("mamba_n_groups", 1, 1024))
        if any(linear)
        else None,
        mixture=_mixture(config, sizes["layers"]),
        shared_inner=config.integer("shared_intermediate_size", 1, 1 << 20),
    )


def _rope(config: Fields, head_dim: int) -> Rope:
    kind = config.get("position_embedding_type")
    rope = read_rope(config, head_dim) if kind == "rope" or config.has("rope_theta") else still(head_dim)
    if kind not in (None, "rope", "nope"):
        raise config.unknown("position_embedding_type", kind, ("rope", "nope"))
    return rope if kind == "rope" else still(head_dim)


def _mixture(config: Fields, layers: int) -> MixtureSpec | None:
    if config.integer("num_local_experts", 0, 1 << 12) == 0:
        return None
    return read_mixture(
        config,
        "num_local_experts",
        "intermediate_size",
        layers=(True,) * layers,
        routing=Routing(renormalise=True),
        shared_inner=config.integer("shared_intermediate_size", 1, 1 << 20),
    )


def graph(spec: ModelSpec) -> Graph:
    """x += attention or Mamba-2 of norm(x); x += mixture or shared expert of norm(x); a layer."""
    return decoder(spec, _STYLE, ((_mixer(spec, layer), _feed_forward(spec, layer)) for layer in range(spec.layers)))


def _mixer(spec: ModelSpec, layer: int) -> LayerOp:
    of = spec.mamba
    return mamba2(spec, layer, _STYLE) if of and of.layers[layer] else attend(spec, layer, _STYLE)


def _feed_forward(spec: ModelSpec, layer: int) -> GatedMLP | Mixture:
    if spec.mixture is not None:
        return mixture(spec, layer, _STYLE)
    at, hidden, inner = f"model.layers.{layer}.block_sparse_moe.shared_mlp", spec.hidden_size, spec.shared_inner
    gate, up = (Linear(f"{at}.{name}", inner, hidden) for name in _SHARED)
    eps = spec.norm_eps / spec.residual_scale**2
    return GatedMLP(
        norm=Norm(f"model.layers.{layer}.post_attention_layernorm", hidden, eps),
        gate=gate,
        up=up,
        down=Linear(f"{at}.down_proj", hidden, inner),
        activation=spec.activation,
    )
