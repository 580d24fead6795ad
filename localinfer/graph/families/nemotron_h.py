"""Nemotron-H (NVIDIA, 2025): each layer is one thing, Mamba-2, attention without RoPE, an MLP without a gate whose
activation is the square of ReLU, or a mixture of such, which may be narrower than the stream.

The reference raises smaller steps of Mamba-2 to `time_step_min` where it reads many tokens at once, and not where it
reads one: here no step is raised, so that chunks change nothing."""

import math
from collections.abc import Mapping
from typing import Any

from localinfer.graph.families.layers import MixtureStyle, Style, attend, decoder, gated_mlp, mamba2, mixture
from localinfer.graph.families.mamba import is_on, read_limit, read_mamba
from localinfer.graph.fields import Fields
from localinfer.graph.graph import Graph
from localinfer.graph.ops import LayerOp
from localinfer.graph.rope import still
from localinfer.graph.spec import (
    MOST_LAYERS,
    MixtureSpec,
    ModelSpec,
    read_config,
    read_grouped,
    read_mixture,
    read_sizes,
)
from localinfer.graph.stacked import Stack

FUSED = {"mixer.in_proj": tuple(f"mixer.in_{part}" for part in ("z", "x", "b", "c", "dt"))}
"""Stored matrices that are several of the graph's, row after row."""

STACKED = {
    "experts.up_proj": Stack(("up_proj.weight",)),
    "experts.down_proj": Stack(("down_proj.weight",)),
}
"""Tensors of all experts of a layer."""

_EXPERTS = MixtureStyle(
    block="mixer",
    expert=("", "up_proj", "down_proj"),
    shared="shared_experts",
    shared_gate="",
    choice_bias="gate.e_score_correction_bias",
)
_STYLE = Style(norm="norm", mlp_norm="norm", gate="", mlp_block="mixer", mixture=_EXPERTS)
_NAMES = {"M": "mamba", "*": "attention", "-": "mlp", "E": "moe"}
_KINDS = {
    "mamba": "mamba",
    "mamba2": "mamba",
    "linear_attention": "mamba",
    "attention": "attention",
    "full_attention": "attention",
    "mlp": "mlp",
    "moe": "moe",
}
_LEFT_OUT = ["mamba", "moe", "attention", "mlp"]
"""What layers are where config.json says nothing of it."""
_MAMBA = ("mamba_num_heads", "mamba_head_dim", "n_groups", "ssm_state_size", "conv_kernel")


def tensor_name(stored: str) -> str:
    """The graph's name of a stored tensor."""
    name = stored.replace("backbone.", "model.", 1) if stored.startswith("backbone.") else stored
    for old, new in (("model.embeddings.", "model.embed_tokens."), ("model.norm_f.", "model.norm.")):
        name = name.replace(old, new)
    for part in ("q_proj", "k_proj", "v_proj", "o_proj"):
        name = name.replace(f".mixer.{part}.", f".self_attn.{part}.")
    return name


def spec(values: Mapping[str, Any]) -> ModelSpec:
    """Check config.json and read the model's numbers from it."""
    stated = read_config(values, "nemotron_h")
    kinds = _kinds(stated)
    layers = len(kinds)
    if stated.has("num_hidden_layers") and stated.integer("num_hidden_layers", 1, MOST_LAYERS) != layers:
        raise stated.bad("num_hidden_layers", f"the number of kinds of layers, {layers}")
    config = read_config({**values, "num_hidden_layers": layers}, "nemotron_h")
    sizes = read_sizes(config, norm_eps="layer_norm_epsilon")
    config.word("mlp_hidden_act", {"relu2": "relu2"})
    config.word("mamba_hidden_act", {"silu": "silu", "swish": "silu"})
    for name, on in (
        ("mlp_bias", is_on(config, "mlp_bias")),
        ("tie_word_embeddings", is_on(config, "tie_word_embeddings")),
        ("use_bias", config.flag("use_bias")),
        ("attention_bias", config.flag("attention_bias")),
    ):
        if on:
            raise config.unknown(name, True, (False,))
    if read_limit(config) != (0.0, math.inf):  # the reference looks at it nowhere
        raise config.unknown("time_step_limit", config.get("time_step_limit"), ("[0.0, Infinity]",))
    inner = config.integer("mamba_num_heads", 1, 1024) * config.integer("mamba_head_dim", 1, 1 << 16)
    return ModelSpec(
        model_type="nemotron_h",
        **sizes,
        tied=False,
        activation="relu2",
        attention_scale=sizes["head_dim"] ** -0.5,
        windows=(0,) * layers,
        ropes=(still(sizes["head_dim"]),) * layers,
        mixers=kinds,
        mamba=read_mamba(
            config,
            tuple(kind == "mamba" for kind in kinds),
            inner,
            norm_groups=config.integer("n_groups", 1, 1024),
            names=_MAMBA,
            biases=("use_conv_bias", "mamba_proj_bias"),
        ),
        mixture=_mixture(config, kinds, sizes["hidden_size"]) if "moe" in kinds else None,
    )


def _mixture(config: Fields, kinds: tuple[str, ...], hidden: int) -> MixtureSpec:
    latent = config.integer("moe_latent_size", 1, hidden) if config.has("moe_latent_size") else 0
    if config.integer("n_shared_experts", 0, 64) != 1:
        raise config.unknown("n_shared_experts", config.get("n_shared_experts"), (1,))
    return read_mixture(
        config,
        "n_routed_experts",
        "moe_intermediate_size",
        layers=tuple(kind == "moe" for kind in kinds),
        routing=read_grouped(config),
        shared_inner=config.integer("moe_shared_expert_intermediate_size", 1, 1 << 20),
        latent=latent,
    )


def graph(spec: ModelSpec) -> Graph:
    """x += Mamba-2, attention, MLP or mixture of norm(x); a layer."""
    return decoder(spec, _STYLE, ((_mixer(spec, layer),) for layer in range(spec.layers)))


def _mixer(spec: ModelSpec, layer: int) -> LayerOp:
    match spec.mixers[layer]:
        case "mamba":
            return mamba2(spec, layer, _STYLE, block="mixer")
        case "attention":
            return attend(spec, layer, _STYLE)
        case "moe":
            return mixture(spec, layer, _STYLE)
        case _:
            return gated_mlp(spec, layer, _STYLE)


def _kinds(config: Fields) -> tuple[str, ...]:
    """What each layer is: a list of words, or a word of letters, as older files have it."""
    for name in ("layers_block_type", "layer_types"):
        if config.has(name):
            break
    else:
        name = "hybrid_override_pattern" if config.has("hybrid_override_pattern") else "layers_block_type"
    found = config.get(name) if config.has(name) else _LEFT_OUT
    words = [_NAMES.get(letter, letter) for letter in found] if isinstance(found, str) else found
    if not isinstance(words, list) or not 1 <= len(words) <= MOST_LAYERS:
        raise config.bad(name, f"up to {MOST_LAYERS} kinds of layers")
    for word in words:
        if word not in _KINDS:
            raise config.unknown(name, word, _KINDS)
    return tuple(_KINDS[word] for word in words)
