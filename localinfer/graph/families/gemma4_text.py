"""Gemma 4, text (Gemma Team, 2026): layers with a sliding window, then one that sees everything.

Full layers have larger heads, RoPE that turns a part of each, and in some sizes no values but their keys. The last
layers may read keys and values of earlier ones, and have an MLP of twice the width. Small sizes give each layer an
input of its own for every token. Norms before and after each half; queries, keys and values normed by head; GELU. One
size (26B-A4B) has a mixture of experts beside each MLP: both have norms of their own, and one behind their sum.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from localinfer.graph.families.gemma3_text import to_bfloat16
from localinfer.graph.families.layers import MixtureStyle, Style, attend, decoder, gated_mlp, mixture
from localinfer.graph.fields import Fields
from localinfer.graph.graph import Graph
from localinfer.graph.ops import LayerInput, LayerInputs, LayerOp, Linear, Mixture, Norm
from localinfer.graph.rope import Rope, proportional, rope_from
from localinfer.graph.spec import (
    LayerShape,
    MixtureSpec,
    ModelSpec,
    Routing,
    read_activation,
    read_config,
    read_mixture,
    read_sizes,
    read_tied,
    read_windows,
    require_kernels,
)

FULL, SLIDING = "full_attention", "sliding_attention"
_STYLE = Style(
    qk_norm="head",
    norms_values=True,
    post_norm="post_attention_layernorm",
    mlp_norm="pre_feedforward_layernorm",
    mlp_post_norm="post_feedforward_layernorm",
)
_BESIDE_EXPERTS = replace(_STYLE, mlp_post_norm="post_feedforward_layernorm_1")
_EXPERTS = Style(mlp_norm="pre_feedforward_layernorm_2", mixture=MixtureStyle(block="", router="router.proj"))
_SCALE = "layer_scalar"
_FULL_ROPE = {"rope_type": "proportional", "partial_rotary_factor": 0.25, "rope_theta": 1_000_000.0}
_SLIDING_ROPE = {"rope_type": "default", "rope_theta": 10_000.0}


def spec(values: Mapping[str, Any], model_type: str = "gemma4_text") -> ModelSpec:
    """Check config.json and read the model's numbers from it."""
    config = read_config(values, model_type)
    if config.has("use_bidirectional_attention"):  # of pictures, which are no part of the text
        config.word("use_bidirectional_attention", {"vision": ""})
    sizes = read_sizes(config)
    layers, bias = sizes["layers"], config.flag("attention_bias")
    usual = tuple((i + 1) % 6 != 0 for i in range(layers))
    windows = (*read_windows(config, layers, usual)[:-1], 0)  # the last sees everything, whatever is said
    shapes = _shapes(config, windows, sizes["heads"], sizes["kv_heads"], sizes["head_dim"], sizes["intermediate_size"])
    settings = config.table("rope_parameters")
    kinds = {window: shape.head_dim for window, shape in zip(windows, shapes, strict=True)}
    ropes = {window: _rope(config, settings, bool(window), head_dim) for window, head_dim in kinds.items()}
    inputs, vocabulary = _inputs(config, sizes["vocab_size"])
    softcap = config.number("final_logit_softcapping", 1e-3, 1e6) if config.has("final_logit_softcapping") else 0.0
    return ModelSpec(
        model_type=model_type,
        **sizes,
        tied=read_tied(config),
        activation=read_activation(config, "hidden_activation"),
        qkv_bias=bias,
        o_bias=bias,
        attention_scale=1.0,
        embed_scale=to_bfloat16(sizes["hidden_size"] ** 0.5),
        logit_softcap=softcap,
        windows=windows,
        ropes=tuple(ropes[window] for window in windows),
        shapes=shapes,
        layer_inputs=inputs,
        layer_inputs_vocab=vocabulary,
        mixture=_mixture(config, layers),
    )


def tensor_name(stored: str) -> str | None:
    """The graph's name of a stored tensor; what the router's input is scaled by is the weight of its norm."""
    return stored.replace(".router.scale", ".router.norm.weight")


def graph(spec: ModelSpec) -> Graph:
    """x += norm(attention(norm(x))); x += norm(mlp(norm(x))), or with experts norm(norm(mlp(norm(x))) +
    norm(experts(norm(x)))); x += norm(the layer's input, gated by x); x *= number."""
    inputs = _layer_inputs(spec) if spec.layer_inputs else None
    return decoder(spec, _STYLE, (_layer(spec, i) for i in range(spec.layers)), inputs)


def _layer(spec: ModelSpec, layer: int) -> tuple[LayerOp, ...]:
    scale = "" if spec.layer_inputs else _SCALE  # of the last operation
    if spec.mixture is None:
        halves: tuple[LayerOp, ...] = (gated_mlp(spec, layer, replace(_STYLE, scale=scale)),)
    else:
        halves = (gated_mlp(spec, layer, _BESIDE_EXPERTS), _experts(spec, layer, scale))
    return (attend(spec, layer, _STYLE), *halves, *((_layer_input(spec, layer),) if spec.layer_inputs else ()))


def _experts(spec: ModelSpec, layer: int, scale: str) -> Mixture:
    at, size = f"model.layers.{layer}", spec.hidden_size
    return replace(
        mixture(spec, layer, _EXPERTS),
        router_norm=Norm(f"{at}.router.norm", size, spec.norm_eps, scale=size**-0.5),
        expert_scale=f"{at}.router.per_expert_scale",
        post_norm=Norm(f"{at}.post_feedforward_layernorm_2", size, spec.norm_eps),
        beside_norm=Norm(f"{at}.post_feedforward_layernorm", size, spec.norm_eps),
        scale=f"{at}.{scale}" if scale else "",
    )


def _mixture(config: Fields, layers: int) -> MixtureSpec | None:
    """The unified model has none, whatever its config says."""
    if "enable_moe_block" not in (config.defaults or {}) or not config.flag("enable_moe_block"):
        return None
    sizes = ("num_experts", "moe_intermediate_size")
    return read_mixture(
        config, *sizes, chosen_as="top_k_experts", layers=(True,) * layers, routing=Routing(renormalise=True)
    )


def _layer_inputs(spec: ModelSpec) -> LayerInputs:
    size = spec.layer_inputs
    return LayerInputs(
        table=Linear("model.embed_tokens_per_layer", spec.layer_inputs_vocab, spec.layers * size),
        table_scale=to_bfloat16(size**0.5),
        project=Linear("model.per_layer_model_projection", spec.layers * size, spec.hidden_size),
        project_scale=spec.hidden_size**-0.5,
        norm=Norm("model.per_layer_projection_norm", size, spec.norm_eps),
        scale=2**-0.5,
    )


def _layer_input(spec: ModelSpec, layer: int) -> LayerOp:
    at, size = f"model.layers.{layer}", spec.layer_inputs
    return LayerInput(
        layer=layer,
        gate=Linear(f"{at}.per_layer_input_gate", size, spec.hidden_size),
        project=Linear(f"{at}.per_layer_projection", spec.hidden_size, size),
        activation=spec.activation,
        post_norm=Norm(f"{at}.post_per_layer_input_norm", spec.hidden_size, spec.norm_eps),
        scale=f"{at}.{_SCALE}",
    )


def _shapes(
    config: Fields, windows: tuple[int, ...], heads: int, kv_heads: int, head_dim: int, inner: int
) -> tuple[LayerShape, ...]:
    """Of each layer: full ones have other heads, and the last ones may have no keys and values."""
    layers = len(windows)
    keys_are_values = config.flag("attention_k_eq_v")
    own = layers - config.integer("num_kv_shared_layers", 0, layers - 1)
    wide = 2 if config.flag("use_double_wide_mlp") else 1
    full_heads, full_dim = _full_heads(config, windows, heads, kv_heads, head_dim, keys_are_values)
    lenders = {window: i for i, window in enumerate(windows[:own])}
    lacking = next((window for window in windows[own:] if window not in lenders), None)
    if lacking is not None:
        kind = SLIDING if lacking else FULL
        raise config.bad("num_kv_shared_layers", f"so small that a layer of each kind is left, and no {kind} is")
    return tuple(
        LayerShape(
            kv_heads=kv_heads if window else full_heads,
            head_dim=head_dim if window else full_dim,
            inner=inner * (wide if i >= own else 1),
            has_values=bool(window) or not keys_are_values,
            kv_of=lenders[window] if i >= own else -1,
        )
        for i, window in enumerate(windows)
    )


def _full_heads(
    config: Fields, windows: tuple[int, ...], heads: int, kv_heads: int, head_dim: int, keys_are_values: bool
) -> tuple[int, int]:
    """Key heads of the layers that see everything, and their size."""
    if "per_layer_config" in config.values:  # goes before the other two, also where it says nothing
        said, count = _per_layer(config, windows), "num_key_value_heads"
        dim = said.integer("head_dim", 2, 1 << 12, head_dim)
        own = said.has(count)
    else:
        said, count = config, "num_global_key_value_heads"
        dim = config.integer("global_head_dim", 2, 1 << 12)
        own = config.has(count) and keys_are_values
    if own:
        kv_heads = said.integer(count, 1, heads)
        if heads % kv_heads:
            raise said.bad(count, f"a divisor of num_attention_heads ({heads})")
    require_kernels(dim, heads // kv_heads)
    return kv_heads, dim


def _per_layer(config: Fields, windows: tuple[int, ...]) -> Fields:
    """What `per_layer_config` says of every full layer; transformers writes it so since version 5."""
    name, known = "per_layer_config", {"head_dim", "num_key_value_heads"}
    table = config.table(name)
    full = [layer for layer, window in enumerate(windows) if not window]
    said = [table.values[key] for key in table.values]
    layers = sorted(int(key) if str(key).isdecimal() and len(str(key)) < 6 else -1 for key in table.values)
    same = all(isinstance(one, Mapping) and one == said[0] and one.keys() <= known for one in said)
    if said and (layers != full or not same):
        raise config.unknown(name, config.get(name), ["head_dim and num_key_value_heads, the same for all full layers"])
    return Fields(said[0] if said else {}, f"{name}.", file=config.file)


def _rope(config: Fields, settings: Fields, sliding: bool, head_dim: int) -> Rope:
    """RoPE of one kind of layer; `proportional` turns a part of each head by frequencies of the whole."""
    if not settings.values and config.values.get("rope_parameters") is None:
        given = Fields(_SLIDING_ROPE if sliding else _FULL_ROPE)
    else:
        given = settings.table(SLIDING if sliding else FULL)
    said = "rope_type" if given.has("rope_type") else "type"
    kind = given.word(said, {"default": "default", "proportional": "proportional"}, "default")
    if kind == "proportional":
        return proportional(given, head_dim)
    return rope_from(given, config, head_dim)


def _inputs(config: Fields, vocabulary: int) -> tuple[int, int]:
    """Values that each layer gets of a token, and how many tokens have some."""
    name = "hidden_size_per_layer_input"
    known = name in (config.defaults or {})  # the unified model has none, whatever its config says
    size = config.integer(name, 0, 1 << 16) if known else 0
    if size % 32:
        raise config.unknown(name, size, ["multiples of 32"])
    if not size:
        return 0, 0
    most = config.integer("vocab_size_per_layer_input", 1, 1 << 22)
    if most < vocabulary:
        raise config.bad("vocab_size_per_layer_input", f"at least vocab_size ({vocabulary})")
    return size, most
