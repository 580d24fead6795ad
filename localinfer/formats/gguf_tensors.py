"""The tensors of a model by both names, with their shapes on either side: what import and export go through."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from localinfer.formats.gguf_form import Form
from localinfer.formats.gguf_gemma4 import OF_KEYS

_EMBEDDING = ("token_embd.weight", "model.embed_tokens.weight", "table")
_HEAD = ("output.weight", "lm_head.weight", "table")
_OF_ATTENTION = ("q", "gated_q", "k", "kv", "o", "head")
_OF_SHARED = ("shared_up", "shared_down")
_OF_EXPERTS = ("router", "choice", "choice_row", "experts_up", "experts_down", *_OF_SHARED)


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerWidths:
    """The numbers of one layer where layers differ."""

    kv_heads: int
    head_dim: int
    inner: int
    has_keys: bool = True
    has_values: bool = True
    """Else they are the keys."""

    @property
    def lacking(self) -> tuple[str, ...]:
        """Kinds of tensors that the layer has not."""
        return OF_KEYS if not self.has_keys else () if self.has_values else ("kv",)


@dataclass(frozen=True, slots=True, kw_only=True)
class Widths:
    """The numbers that make the shapes of a model's tensors."""

    hidden: int
    inner: int
    vocab: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    tied: bool
    experts: int = 0
    expert_inner: int = 0
    shared_inner: int = 0
    dense_layers: int = 0
    """The first so many have no experts."""
    conv_length: int = 0
    recurrent: tuple[bool, ...] = ()
    """Of each layer, whether it has a convolution or a delta net; empty: none has."""
    key_heads: int = 0
    """Of delta nets, as the three after it."""
    value_heads: int = 0
    key_dim: int = 0
    value_dim: int = 0
    mixers: tuple[str, ...] = ()
    """What each layer is where it is one thing."""
    latent: int = 0
    """Values that experts read; 0: the stream."""
    ahead: bool = False
    """There is a head that guesses tokens ahead."""
    ssm_inner: int = 0
    """Of Mamba-2, as the three after it: values of all heads together."""
    ssm_heads: int = 0
    ssm_groups: int = 0
    ssm_state: int = 0
    each: tuple[LayerWidths, ...] = ()
    """Of each layer where they differ; empty: all are as above."""
    layer_inputs: int = 0
    """Values that a token gives to each layer beside the stream; 0: none."""


@dataclass(frozen=True, slots=True)
class Tiles:
    """Along `axis`, from number `first` on, `heads` times `each` parts of one size lie head by head here, and in the
    file the first parts of all heads, then the second ones."""

    axis: int
    first: int
    heads: int
    each: int

    def in_file(self, values: NDArray[Any]) -> NDArray[Any]:
        """As the file has them; columns may be packed."""
        return self._swapped(values, (self.heads, self.each))

    def here(self, values: NDArray[Any]) -> NDArray[Any]:
        """The other way round."""
        return self._swapped(values, (self.each, self.heads))

    def _swapped(self, values: NDArray[Any], split: tuple[int, int]) -> NDArray[Any]:
        moved = np.moveaxis(values, self.axis, 0)
        head, rest = moved[: self.first], moved[self.first :]
        parts = rest.reshape(*split, -1, *rest.shape[1:]).swapaxes(0, 1).reshape(rest.shape)
        return np.ascontiguousarray(np.moveaxis(np.concatenate([head, parts]), 0, self.axis))


@dataclass(frozen=True, slots=True)
class Renamed:
    """One tensor of a directory: its GGUF name, its name and shape here, and the heads whose rows are reordered
    (or 0)."""

    source: str
    name: str
    shape: tuple[int, ...]
    rope_heads: int = 0
    minus_one: bool = False
    stored: tuple[int, ...] = ()
    """The shape in the GGUF file, if it is another."""
    first: int = 0
    """Its first row there: the experts of a layer are one tensor."""
    is_float: bool = False
    """It is small, decides much, and is not quantized."""
    tiles: Tiles | None = None
    is_rate: bool = False
    """The file has -exp of it."""

    @property
    def rows(self) -> int:
        """Rows of the last axis in the file, of one expert where the file has those of all."""
        of_all = not self.stored or self.stored[1:] == self.shape
        return prod((self.shape if of_all else self.stored)[:-1])

    @property
    def file_shape(self) -> tuple[int, ...]:
        return self.stored or self.shape


def renamed(form: Form, widths: Widths, present: Callable[[str, str], bool]) -> Iterator[Renamed]:
    """Every tensor of the model, in the order of use; `present(GGUF name, name here)` says of optional ones whether
    they are there."""
    yield _one(form, widths, *_EMBEDDING)
    optional = {
        source: name
        for _, names in form.optional
        if any(present(f"blk.0.{source}", f"model.layers.0.{name}") for source, (name, _) in names.items())
        for source, name in names.items()
    }
    for layer in range(widths.layers):
        names = {**form.layer, **optional}
        if not widths.shared_inner:
            names = {key: value for key, value in names.items() if value[1] not in _OF_SHARED}
        if widths.mixers:
            names |= form.mixers[widths.mixers[layer]]
        elif widths.recurrent and widths.recurrent[layer]:
            names = {**{key: value for key, value in names.items() if value[1] not in _OF_ATTENTION}, **form.recurrent}
        if layer < widths.dense_layers:
            names = {**{key: value for key, value in names.items() if value[1] not in _OF_EXPERTS}, **form.dense}
        if widths.layer_inputs:
            names |= form.inputs
        of = widths
        if widths.each:
            one = widths.each[layer]
            names = {source: value for source, value in names.items() if value[1] not in one.lacking}
            of = replace(widths, kv_heads=one.kv_heads, head_dim=one.head_dim, inner=one.inner)
        for source, (name, kind) in names.items():
            yield from _each(form, of, f"blk.{layer}.{source}", f"model.layers.{layer}.{name}", kind)
    for source, name, kind in form.input_tables if widths.layer_inputs else ():
        yield _one(form, widths, source, name, kind)
    if widths.ahead:
        yield from renamed_ahead(form, widths)
    for source, name, kind in form.final:
        yield _one(form, widths, source, name, kind)
    if not widths.tied:
        yield _one(form, widths, *_HEAD)


def renamed_ahead(form: Form, widths: Widths) -> Iterator[Renamed]:
    """The tensors of the head that guesses tokens ahead."""
    for source, (name, kind) in form.layer.items():
        yield from _each(form, widths, f"blk.{widths.layers}.{source}", f"mtp.layers.0.{name}", kind)
    for source, (name, kind) in form.ahead.items():
        yield _one(form, widths, f"blk.{widths.layers}.{source}", f"mtp.{name}", kind)


def _each(form: Form, widths: Widths, source: str, name: str, kind: str) -> Iterator[Renamed]:
    """One tensor, or those of each expert that are one there."""
    one = _one(form, widths, source, name, kind)
    if "{}" not in name:
        yield one
        return
    for number in range(widths.experts):
        yield replace(one, name=one.name.replace("{}", str(number)), first=number * one.rows)


def _one(form: Form, widths: Widths, source: str, name: str, kind: str) -> Renamed:
    q, kv = widths.heads * widths.head_dim, widths.kv_heads * widths.head_dim
    hidden, inner = widths.hidden, widths.inner
    shapes: dict[str, tuple[int, ...]] = {
        "norm": (hidden,),
        "last_norm": (hidden,),
        "bias": (hidden,),
        "head": (widths.head_dim,),
        "q": (q, hidden),
        "k": (kv, hidden),
        "kv": (kv, hidden),
        "gates": (q, hidden),
        "qkv": (q + 2 * kv, hidden),
        "o": (hidden, q),
        "q_norm": (q,),
        "k_norm": (kv,),
        "q_bias": (q,),
        "k_bias": (kv,),
        "kv_bias": (kv,),
        "up": (inner, hidden),
        "gate_up": (2 * inner, hidden),
        "up_bias": (inner,),
        "down": (hidden, inner),
        "mix": (hidden, 2 * hidden),
        "conv_in": (3 * hidden, hidden),
        "conv": (hidden, 1, widths.conv_length),
        "conv_out": (hidden, hidden),
        "gated_q": (2 * q, hidden),
        "sinks": (widths.heads,),
        "scalar": (1,),
        "k_head": (widths.head_dim,),
        **_of_experts(widths),
        **_of_inputs(widths),
        **_of_delta_nets(widths),
        **_of_mamba(widths),
        "table": (widths.vocab, hidden),
    }
    shape = shapes[kind]
    stored = (widths.experts, *shape) if "{}" in name else _stored(widths, kind, shape)
    heads = {"q": widths.heads, "q_bias": widths.heads, "k": widths.kv_heads, "k_bias": widths.kv_heads}.get(kind, 0)
    return Renamed(
        source,
        name,
        shape,
        rope_heads=heads if form.rotated else 0,
        minus_one=form.plus_one and kind in ("norm", "head"),
        stored=stored,
        is_float=kind in ("router", "shared_gate", "delta_gate", "delta_gates"),
        tiles=_tiles(widths, kind) if form.tiled else None,
        is_rate=kind in ("delta_rates", "ssm_rates"),
    )


def _stored(widths: Widths, kind: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape in the file, where it is another."""
    return {
        "shared_gate": (widths.hidden,),
        "choice_row": (widths.experts,),
        "conv": (shape[0], shape[-1]),
        "delta_conv": (shape[0], shape[-1]),
        "ssm_conv": (shape[0], shape[-1]),
        "ssm_rates": (shape[0], 1),
        "ssm_skip": (shape[0], 1),
        "ssm_norm": (widths.ssm_groups, shape[0] // max(1, widths.ssm_groups)),
    }.get(kind, ())


def _of_experts(widths: Widths) -> dict[str, tuple[int, ...]]:
    hidden = widths.hidden
    return {
        "router": (widths.experts, hidden),
        "experts_up": (widths.expert_inner, widths.latent or hidden),
        "experts_down": (widths.latent or hidden, widths.expert_inner),
        "into": (widths.latent, hidden),
        "out_of": (hidden, widths.latent),
        "shared_gate": (1, hidden),
        "shared_up": (widths.shared_inner, hidden),
        "shared_down": (hidden, widths.shared_inner),
        "choice": (widths.experts,),
        "choice_row": (1, widths.experts),
        "experts_up_bias": (widths.expert_inner,),
    }


def _of_inputs(widths: Widths) -> dict[str, tuple[int, ...]]:
    hidden, size = widths.hidden, widths.layer_inputs
    return {
        "inputs_table": (widths.vocab, widths.layers * size),
        "inputs_project": (widths.layers * size, hidden),
        "input_norm": (size,),
        "input_gate": (size, hidden),
        "input_out": (hidden, size),
    }


def _of_delta_nets(widths: Widths) -> dict[str, tuple[int, ...]]:
    hidden, values = widths.hidden, widths.value_heads * widths.value_dim
    channels = 2 * widths.key_heads * widths.key_dim + values
    return {
        "delta_qkv": (channels, hidden),
        "delta_z": (values, hidden),
        "delta_qkvz": (channels + values, hidden),
        "delta_gate": (widths.value_heads, hidden),
        "delta_gates": (2 * widths.value_heads, hidden),
        "delta_conv": (channels, 1, widths.conv_length),
        "delta_heads": (widths.value_heads,),
        "delta_rates": (widths.value_heads,),
        "delta_norm": (widths.value_dim,),
        "delta_out": (hidden, values),
    }


def _of_mamba(widths: Widths) -> dict[str, tuple[int, ...]]:
    inner, heads = widths.ssm_inner, widths.ssm_heads
    channels = inner + 2 * widths.ssm_groups * widths.ssm_state
    return {
        "ssm_in": (inner + channels + heads, widths.hidden),
        "ssm_conv": (channels, 1, widths.conv_length),
        "ssm_channels": (channels,),
        "ssm_heads": (heads,),
        "ssm_rates": (heads,),
        "ssm_skip": (heads,),
        "ssm_norm": (inner,),
        "ssm_out": (widths.hidden, inner),
    }


def _tiles(widths: Widths, kind: str) -> Tiles | None:
    """How the value heads of this kind of tensor lie, after the rows of q and k or alone."""
    keys = 2 * widths.key_heads * widths.key_dim
    if widths.key_heads == widths.value_heads:
        return None
    first = {"delta_qkv": keys, "delta_conv": keys, "delta_out": 0}
    first |= dict.fromkeys(("delta_z", "delta_gate", "delta_heads", "delta_rates"), 0)
    if kind not in first:
        return None
    heads = widths.key_heads
    return Tiles(1 if kind == "delta_out" else 0, first[kind], heads, widths.value_heads // heads)
