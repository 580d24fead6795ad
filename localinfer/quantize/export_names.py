"""What a GGUF file says of a graph: its architecture's keys, its tensors' names, and the order of its rows."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from localinfer.formats.gguf_form import Form
from localinfer.formats.gguf_forms import FORMS
from localinfer.formats.gguf_muse import scale_norms
from localinfer.formats.gguf_tensors import Renamed, Widths, renamed, renamed_ahead
from localinfer.graph.families.gemma3_text import to_bfloat16
from localinfer.graph.names import ahead_alone
from localinfer.graph.registry import family_for
from localinfer.graph.spec import ModelSpec
from localinfer.graph.weights import Checkpoint
from localinfer.quantize.export_layers import layer_keys, layer_widths
from localinfer.quantize.export_mixtures import dense_layers, mixture_keys
from localinfer.quantize.export_rope import cannot, describe_rope

ALIKE = {"mistral": "llama", "ministral": "llama", "gemma4_unified_text": "gemma4_text"}
"""Types that are others to llama.cpp; Llama's only where they have no windows."""


@dataclass(frozen=True, slots=True)
class Stacked:
    """One tensor of the file, and the matrices or vectors of the graph that it is made of, row after row."""

    first: Renamed
    shape: tuple[int, ...]
    parts: tuple[str, ...]


def form_of(spec: ModelSpec) -> Form:
    """How llama.cpp has it. Raises `NotSupported` for a type that it does not have."""
    name = ALIKE.get(spec.model_type, spec.model_type)
    form = FORMS.get(f"{name}_moe" if spec.mixers and spec.mixture is not None else name)
    if form is None:
        raise cannot(f"a `{spec.model_type}` model")
    return form


def describe(checkpoint: Checkpoint) -> tuple[Form, dict[str, Any]]:
    """The form, and all its keys; RoPE divisors and factors as arrays under the names of their tensors. Raises
    `NotSupported` for what has no key."""
    spec = checkpoint.spec
    form = form_of(spec)
    _refuse(spec, form)
    values: dict[str, Any] = {
        "context_length": spec.max_context,
        "embedding_length": spec.hidden_size,
        "block_count": spec.layers,
        "feed_forward_length": spec.intermediate_size,
        "attention.head_count": spec.heads,
        "attention.head_count_kv": spec.kv_heads,
        "attention.key_length": spec.head_dim,
        "attention.value_length": spec.head_dim,
        form.eps[0]: spec.norm_eps,
        "vocab_size": spec.vocab_size,
    }
    values |= _scales(spec, form) | _windows(spec, form) | mixture_keys(spec, form) | _delta(spec, form)
    values |= _convolution(spec, form) | _mamba(spec, form) | (layer_keys(spec) if form.by_layer else {})
    found = {f"{form.arch}.{key}": value for key, value in values.items()}
    if form.scale_in_norms:
        found |= _scale_norms(spec)
    return form, found | describe_rope(checkpoint, form)


def _scale_norms(spec: ModelSpec) -> dict[str, NDArray[np.float32]]:
    """Tensors by name."""
    scale = np.full(spec.head_dim, spec.attention_scale * spec.head_dim**0.5, np.float32)
    ones = np.ones(spec.head_dim, np.float32)
    return {name: values for pair in scale_norms(spec.layers) for name, values in zip(pair, (scale, ones), strict=True)}


def _refuse(spec: ModelSpec, form: Form) -> None:
    if form.square and spec.heads * spec.head_dim != spec.hidden_size:
        raise cannot(f"{spec.heads} heads of {spec.head_dim} in a stream of {spec.hidden_size} ({form.arch})")
    if form.ungrouped and spec.kv_heads != spec.heads:
        raise cannot(f"{spec.kv_heads} key heads for {spec.heads} query heads ({form.arch})")
    if form.no_head and not spec.tied:
        raise cannot(f"a head of its own ({form.arch})")
    if spec.post_norm_eps != form.post_eps:
        raise cannot(f"norms with an epsilon of {spec.post_norm_eps} behind each half ({form.arch})")
    if form.folded:
        return
    scale = (spec.hidden_size // spec.heads if spec.layers == form.wide_layers else spec.head_dim) ** -0.5
    scale = 1.0 if form.unscaled else spec.attention_scale if form.scale_in_norms else scale
    usual = to_bfloat16(spec.hidden_size**0.5) if form.arch.startswith("gemma") else 1.0
    numbers = {
        "attention.scale": ("an attention scale", spec.attention_scale, scale),
        "embedding_scale": ("an embedding scale", spec.embed_scale, usual),
        "residual_scale": ("a residual scale", spec.residual_scale, 1.0),
        "logit_scale": ("a logit scale", spec.logit_scale, 1.0),
    }
    for key, (word, value, wanted) in numbers.items():
        if key not in form.reads and abs(value / wanted - 1) > 1e-6:
            raise cannot(f"{word} of {value:g}")
    caps = {"final_logit_softcapping": spec.logit_softcap, "attn_logit_softcapping": spec.attention_softcap}
    for key, cap in caps.items():
        if cap and key not in form.reads:
            raise cannot("a soft cap on logits")
    if "attn_logit_softcapping" in form.reads and not all(caps.values()):
        raise cannot(f"a {form.arch} model without soft caps")


def _scales(spec: ModelSpec, form: Form) -> dict[str, Any]:
    values = {
        "attention.scale": spec.attention_scale,
        "embedding_scale": spec.embed_scale,
        "residual_scale": spec.residual_scale,
        "logit_scale": 1 / spec.logit_scale if form.logits_divided else spec.logit_scale,
        "final_logit_softcapping": spec.logit_softcap,
        "attn_logit_softcapping": spec.attention_softcap,
    }
    return {key: value for key, value in values.items() if key in form.reads and value}


def _windows(spec: ModelSpec, form: Form) -> dict[str, Any]:
    windows, turning = spec.windows, tuple(any(rope.inv_freq) for rope in spec.ropes)
    still = tuple(form.still_every > 0 and (i + 1) % form.still_every == 0 for i in range(spec.layers))
    if form.still_every and turning != tuple(not one for one in still):
        raise cannot(f"layers that do not rotate elsewhere than at every {form.still_every}th")
    key = "attention.sliding_window"
    if not any(windows):
        if form.always_windows or spec.layers == form.window_layers:
            raise cannot(f"a {form.arch} model of {spec.layers} layers without sliding windows")
        return {key: 0} if key in form.reads and not form.window_layers else {}
    if key not in form.reads or form.window_layers not in (0, spec.layers):
        raise cannot("sliding windows in these layers")
    if form.still_full and turning != tuple(window > 0 for window in windows):
        raise cannot("layers that rotate and do not slide")
    found: dict[str, Any] = {key: max(windows)}
    if form.lists_windows:
        found[f"{key}_pattern"] = [window > 0 for window in windows]
    elif f"{key}_pattern" in form.reads and not form.by_layer:
        period = next((i + 1 for i, window in enumerate(windows) if not window), spec.layers + 1)
        if windows != tuple(max(windows) if (i + 1) % period else 0 for i in range(spec.layers)):
            raise cannot("sliding windows in these layers")
        found[f"{key}_pattern"] = period
    return found


def _delta(spec: ModelSpec, form: Form) -> dict[str, Any]:
    of = spec.delta
    if of is None:
        return {}
    every = of.layers.index(False) + 1 if not all(of.layers) else spec.layers + 1
    if of.layers != tuple((layer + 1) % every != 0 for layer in range(spec.layers)):
        raise cannot("delta nets in these layers")
    if of.key_dim != of.value_dim:
        raise cannot(f"delta nets with keys of {of.key_dim} and values of {of.value_dim}")
    turned = len(spec.ropes[0].inv_freq)
    axes = [(turned + 2 - axis) // 3 for axis in range(3)]
    return {
        "ssm.conv_kernel": of.conv_length,
        "ssm.state_size": of.key_dim,
        "ssm.group_count": of.heads,
        "ssm.time_step_rank": of.value_heads,
        "ssm.inner_size": of.value_heads * of.value_dim,
        "full_attention_interval": every,
        **({"rope.dimension_sections": [*axes, 0]} if form.sections else {}),
    }


def _convolution(spec: ModelSpec, form: Form) -> dict[str, Any]:
    if not spec.conv_layers:
        return {}
    heads = [0 if conv else spec.kv_heads for conv in spec.conv_layers]
    return {"shortconv.l_cache": spec.conv_length, "attention.head_count_kv": heads}


def _mamba(spec: ModelSpec, form: Form) -> dict[str, Any]:
    of = spec.mamba
    if of is None:
        return {}
    if of.dt_limit != (0.0, math.inf):
        raise cannot("limits of steps")
    if of.norm_before_gate or of.norm_groups not in (0, of.groups):
        raise cannot("a norm of this kind behind Mamba-2")
    found: dict[str, Any] = {
        "ssm.conv_kernel": of.conv_length,
        "ssm.state_size": of.state,
        "ssm.group_count": of.groups,
        "ssm.inner_size": of.heads * of.head_dim,
        "ssm.time_step_rank": of.heads,
    }
    if form.folded:
        return found
    attends = [kind == "attention" for kind in spec.mixers] or [not one for one in of.layers]
    found["attention.head_count_kv"] = [spec.kv_heads if one else 0 for one in attends]
    if spec.mixers:
        if {"mlp", "moe"} <= {*spec.mixers}:
            raise cannot("MLPs and mixtures in one model")
        inner = {"mlp": spec.intermediate_size, "moe": spec.mixture.inner if spec.mixture else 0}
        found["feed_forward_length"] = [inner.get(kind, 0) for kind in spec.mixers]
        found["attention.layer_norm_epsilon"] = spec.norm_eps  # llama.cpp wants both
    elif spec.mixture is None:
        found["feed_forward_length"] = spec.shared_inner
    if "rope.scaling.finetuned" in form.reads:
        found["rope.scaling.finetuned"] = any(any(rope.inv_freq) for rope in spec.ropes)
    return found


def factor_of(spec: ModelSpec, source: str, name: str) -> float:
    """What the matrix `name` is multiplied by in the tensor `source` of a file of a form that is `folded`."""
    of = spec.mamba
    if not form_of(spec).folded or of is None:
        return 1.0
    if source == "output.weight":
        return spec.logit_scale
    key = spec.attention_scale * spec.head_dim**0.5
    z, x, b, c, dt = (of.in_scale * one for one in of.scales)
    gate, down = spec.mlp_scales
    factors: dict[str, float] = {
        "embed_tokens": spec.embed_scale,
        "q_proj": spec.attention_in,
        "k_proj": spec.attention_in * key,
        "v_proj": spec.attention_in,
        "o_proj": spec.attention_out,
        "gate_proj": gate,
        "down_proj": down,
        "in_z": z,
        "in_x": x,
        "in_b": b,
        "in_c": c,
        "in_dt": dt,
        "out_proj": of.out_scale,
    }
    return factors.get(name.removesuffix(".weight").rpartition(".")[2], 1.0)


def tensors_of(form: Form, checkpoint: Checkpoint) -> list[Stacked]:
    """Every tensor of the file. Raises `NotSupported` for a tensor of the graph that has no place in it."""
    graph, spec = checkpoint.graph, checkpoint.spec
    left = {f"{one.name}.weight" for one in graph.linears()} | {name for name, _ in graph.vectors()}
    by_source: dict[str, list[Renamed]] = {}
    tied = spec.tied and not form.own_head
    for one in renamed(form, _widths(spec, form, tied), lambda _, name: name in left):
        by_source.setdefault(one.source, []).append(one)
    found = []
    for several in by_source.values():
        parts = tuple(part for one in several for part in _parts(spec, one.name))
        if spec.tied and parts == ("lm_head.weight",):
            parts = ("model.embed_tokens.weight",)
        found.append(Stacked(several[0], several[0].file_shape, parts))
    named = {part for one in found for part in one.parts}
    if missing := sorted(left - named):
        raise cannot(f"tensor `{missing[0]}`")
    if missing := sorted(named - left):
        raise cannot(f"a `{spec.model_type}` model without `{missing[0]}`")
    return found


def ahead_of(form: Form, checkpoint: Checkpoint) -> list[Stacked]:
    """Every tensor of the head that guesses tokens ahead, which `checkpoint` is opened for; its parts by the names of
    its own graph."""
    name_here = ahead_alone(lambda stored: None)
    by_source: dict[str, list[Renamed]] = {}
    for one in renamed_ahead(form, _widths(checkpoint.spec, form, checkpoint.spec.tied)):
        by_source.setdefault(one.source, []).append(one)
    return [
        Stacked(several[0], several[0].file_shape, tuple(name_here(one.name) or one.name for one in several))
        for several in by_source.values()
    ]


def _parts(spec: ModelSpec, name: str) -> Iterator[str]:
    """The graph's tensors that `name` holds: a directory has some of them as one."""
    family = family_for(spec.model_type)
    name = family.tensor_name(name) or name
    stem, _, ending = name.rpartition(".")
    fused = family.fused
    whole = next((one for one in fused if stem.endswith(f".{one}")), None)
    if whole is None:
        yield name
        return
    for part in fused[whole]:
        yield f"{stem.removesuffix(whole)}{part}.{ending}"


def _widths(spec: ModelSpec, form: Form, tied: bool) -> Widths:
    of, ssm = spec.mixture, spec.mamba
    dense = spec.layers if spec.shared_inner and of is None else 0
    return Widths(
        hidden=spec.hidden_size,
        inner=spec.intermediate_size,
        vocab=spec.vocab_size,
        layers=spec.layers,
        heads=spec.heads,
        kv_heads=spec.kv_heads,
        head_dim=spec.head_dim,
        tied=tied,
        experts=of.experts if of else 0,
        expert_inner=of.inner if of else 0,
        shared_inner=of.shared_inner if of else spec.shared_inner,
        dense_layers=dense_layers(of) if of and not spec.mixers else dense,
        conv_length=spec.delta.conv_length if spec.delta else ssm.conv_length if ssm else spec.conv_length,
        recurrent=spec.delta.layers if spec.delta else ssm.layers if ssm and not form.folded else spec.conv_layers,
        mixers=tuple("latent" if of and of.latent and kind == "moe" else kind for kind in spec.mixers),
        latent=of.latent if of else 0,
        each=layer_widths(spec),
        layer_inputs=spec.layer_inputs,
        ssm_inner=ssm.heads * ssm.head_dim if ssm else 0,
        ssm_heads=ssm.heads if ssm else 0,
        ssm_groups=ssm.groups if ssm else 0,
        ssm_state=ssm.state if ssm else 0,
        key_heads=spec.delta.heads if spec.delta else 0,
        value_heads=spec.delta.value_heads if spec.delta else 0,
        key_dim=spec.delta.key_dim if spec.delta else 0,
        value_dim=spec.delta.value_dim if spec.delta else 0,
    )


def in_file_order(one: Renamed, values: NDArray[Any]) -> NDArray[Any]:
    """Rows of q and k, of which llama.cpp turns neighbours together, not halves, and value heads of delta nets in the
    order of the file; columns may be packed, or groups."""
    if one.tiles:
        return one.tiles.in_file(values)
    if not one.rope_heads:
        return values
    return values.reshape(one.rope_heads, 2, -1, *values.shape[1:]).swapaxes(1, 2).reshape(values.shape)
