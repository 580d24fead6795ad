"""Falcon-H1 (TII, 2025): attention and Mamba-2 side by side in each layer, and a number on most of what they give."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from localinfer.graph.families.layers import Style, attend, decoder, gated_mlp, mamba2
from localinfer.graph.families.mamba import FUSED as FUSED
from localinfer.graph.families.mamba import is_on, read_mamba, read_mamba_activation
from localinfer.graph.fields import Fields
from localinfer.graph.graph import Graph
from localinfer.graph.ops import LayerOp
from localinfer.graph.rope import read_rope
from localinfer.graph.spec import ModelSpec, read_config, read_sizes, read_tied

_STYLE = Style(mlp_norm="pre_ff_layernorm", mlp_block="feed_forward", final_norm="model.final_layernorm")


def spec(values: Mapping[str, Any]) -> ModelSpec:
    """Check config.json and read the model's numbers from it."""
    config = read_config(values, "falcon_h1")
    sizes = read_sizes(config)
    config.flag("attention_bias")
    for name in ("attention_bias", "projectors_bias", "mlp_bias"):
        if is_on(config, name):
            raise config.unknown(name, True, (False,))
    if config.has("mamba_d_ssm"):
        inner = config.integer("mamba_d_ssm", 1, 1 << 20)
    else:
        inner = config.integer("mamba_expand", 1, 64) * sizes["hidden_size"]
    into = _factor(config, "attention_in_multiplier")
    mlp = _factors(config, "mlp_multipliers", 2)
    return ModelSpec(
        model_type="falcon_h1",
        **sizes,
        tied=read_tied(config),
        activation=read_mamba_activation(config),
        attention_scale=sizes["head_dim"] ** -0.5 * _factor(config, "key_multiplier"),
        attention_in=into,
        attention_out=_factor(config, "attention_out_multiplier"),
        mlp_scales=(mlp[0], mlp[1]),
        embed_scale=_factor(config, "embedding_multiplier"),
        logit_scale=_factor(config, "lm_head_multiplier"),
        windows=(0,) * sizes["layers"],
        ropes=(read_rope(config, sizes["head_dim"]),) * sizes["layers"],
        mamba=read_mamba(
            config,
            (True,) * sizes["layers"],
            inner,
            norm_groups=config.integer("mamba_n_groups", 1, 1024) if is_on(config, "mamba_rms_norm") else 0,
            norm_before_gate=is_on(config, "mamba_rms_norm") and is_on(config, "mamba_norm_before_gate"),
            in_scale=_factor(config, "ssm_in_multiplier"),
            scales=_factors(config, "ssm_multipliers", 5),
            out_scale=_factor(config, "ssm_out_multiplier"),
        ),
    )


def graph(spec: ModelSpec) -> Graph:
    """x += attention(norm(x)) + Mamba-2 of norm(x); x += mlp(norm(x)); a layer."""
    return decoder(spec, _STYLE, (_layer(spec, layer) for layer in range(spec.layers)))


def _layer(spec: ModelSpec, layer: int) -> tuple[LayerOp, ...]:
    """A number on the inputs of attention or the MLP is one on their norm's weight."""
    attention, mlp = attend(spec, layer, _STYLE), gated_mlp(spec, layer, _STYLE)
    assert attention.norm is not None
    assert mlp.norm is not None
    gates, down = spec.mlp_scales
    return (
        replace(attention, norm=replace(attention.norm, scale=spec.attention_in), out_scale=spec.attention_out),
        mamba2(spec, layer, _STYLE, beside=True),
        replace(mlp, norm=replace(mlp.norm, scale=gates), inner_scale=down / gates),
    )


def _factor(config: Fields, name: str) -> float:
    return config.number(name, 1e-6, 1e6)


def _factors(config: Fields, name: str, count: int) -> tuple[float, ...]:
    found = config.get(name)
    if found is None:
        return (1.0,) * count
    if not isinstance(found, list) or len(found) != count:
        raise config.bad(name, f"a list of {count} numbers")
    if not all(type(one) in (int, float) and 1e-6 <= one <= 1e6 for one in found):
        raise config.bad(name, f"a list of {count} numbers from 1e-06 to 1e+06")
    return tuple(float(one) for one in found)
