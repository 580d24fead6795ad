"""What the families with Mamba-2 layers read alike."""

import math
from collections.abc import Mapping
from typing import Any

from localinfer.errors import NotSupported
from localinfer.graph.fields import Fields
from localinfer.graph.spec import Activation, MambaSpec

_PARTS = ("z", "x", "b", "c", "dt")
FUSED = {"mamba.in_proj": tuple(f"mamba.in_{part}" for part in _PARTS)}
"""Stored matrices that are several of the graph's, row after row."""

MOST_HEAD = 512
_LENGTHS = (2, 8)
_KINDS = {
    "mamba": True,
    "mamba2": True,
    "linear_attention": True,
    "attention": False,
    "full_attention": False,
}


def is_on(config: Fields, name: str) -> bool:
    """A flag that may be null, which is no."""
    return config.has(name) and config.flag(name)


def read_mamba_activation(config: Fields) -> Activation:
    """That of the feed-forward halves, which convolutions before Mamba-2 have too: they run SiLU alone."""
    known: Mapping[str, Activation] = {"silu": "silu", "swish": "silu"}
    return config.word("hidden_act", known)


def recurrent_layers(config: Fields, layers: int, other_name: str) -> tuple[bool, ...]:
    """Which layers are Mamba-2, by `layer_types`, which older files call `other_name`."""
    name = "layer_types" if config.has("layer_types") else other_name
    types = config.words(name, layers, tuple(_KINDS))
    if types is None:
        raise config.bad("layer_types", f"a list of {layers} words, one a layer")
    return tuple(_KINDS[kind] for kind in types)


def read_mamba(
    config: Fields,
    layers: tuple[bool, ...],
    inner: int,
    *,
    norm_groups: int,
    names: tuple[str, ...] = ("mamba_n_heads", "mamba_d_head", "mamba_n_groups", "mamba_d_state", "mamba_d_conv"),
    biases: tuple[str, ...] = ("mamba_conv_bias", "mamba_proj_bias"),
    **more: Any,
) -> MambaSpec:
    """Mamba-2 in these layers, `inner` values wide. `names`: of heads, their size (or "auto"), groups, numbers of a
    column's state, and rows that the convolution sees; `biases`: of the convolution and of the matrices."""
    heads_name, dim_name, groups_name, state_name, conv_name = names
    heads, groups = config.integer(heads_name, 1, 1024), config.integer(groups_name, 1, 1024)
    head_dim = inner // heads if config.get(dim_name) == "auto" else config.integer(dim_name, 1, 1 << 16)
    if heads * head_dim != inner:
        raise config.bad(heads_name, f"a number of heads that makes {inner} values with {dim_name} ({head_dim})")
    if heads % groups:
        raise config.bad(groups_name, f"a divisor of {heads_name} ({heads})")
    state = config.integer(state_name, 1, 1 << 16)
    for name, size in ((dim_name, head_dim), (state_name, state)):
        if size % 16 or size > MOST_HEAD:
            raise NotSupported(
                f"`{name}` is {size}, which is not supported, only multiples of 16 up to {MOST_HEAD}",
                hint="use its GGUF file with `--backend llamacpp`",
            )
    conv_bias, proj_bias = biases
    if is_on(config, proj_bias):
        raise config.unknown(proj_bias, True, (False,))
    return MambaSpec(
        layers=layers,
        heads=heads,
        groups=groups,
        state=state,
        head_dim=head_dim,
        conv_length=config.integer(conv_name, *_LENGTHS),
        conv_bias=is_on(config, conv_bias),
        dt_limit=read_limit(config),
        norm_groups=norm_groups,
        **more,
    )


def read_limit(config: Fields) -> tuple[float, float]:
    """The least and the largest step; newer files write infinity as an object."""
    found = config.get("time_step_limit")
    numbers = [_number(one) for one in found] if isinstance(found, list | tuple) else []
    if len(numbers) != 2 or not 0 <= numbers[0] <= numbers[1]:
        raise config.bad("time_step_limit", "a least and a largest step")
    return numbers[0], numbers[1]


def _number(value: object) -> float:
    """NaN for what is no number."""
    if isinstance(value, dict):
        return math.inf if value.get("__float__") == "Infinity" else math.nan
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else math.nan
