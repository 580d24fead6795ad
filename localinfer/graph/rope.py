"""Rotary position embeddings (Su et al., 2021): the frequencies, from either spelling of config.json.

Old spelling: `rope_theta` and `rope_scaling` {`type` or `rope_type`, …}. New: `rope_parameters` with both in one.
"""

import math
from dataclasses import dataclass, field

from localinfer.graph.fields import Fields

_TYPES = {"default": "default", "linear": "linear", "llama3": "llama3"}
_HIGHEST = float(1 << 24)


@dataclass(frozen=True, slots=True)
class Rope:
    """At position p, elements i and i + head_dim/2 of a head are turned together by the angle p * inv_freq[i].

    `inv_freq` has head_dim/2 values in double precision; cosines and sines are multiplied by `attention_factor`.
    """

    inv_freq: tuple[float, ...] = field(repr=False)
    attention_factor: float = 1.0


def read_rope(config: Fields, head_dim: int) -> Rope:
    """The one set of frequencies of `config`."""
    old = config.table("rope_scaling")
    settings = old if old.values else config.table("rope_parameters")
    for name in ("full_attention", "sliding_attention"):
        settings.refuse(name)  # frequencies by the kind of layer
    config.refuse("partial_rotary_factor", 1, 1.0)
    return rope_from(settings, config, head_dim)


def rope_from(settings: Fields, config: Fields, head_dim: int, base: str = "rope_theta") -> Rope:
    """Frequencies of one object of RoPE settings; its own `rope_theta` goes before `base` of `config`.

    `linear` divides all frequencies by `factor`; `llama3` (Llama 3.1) divides those whose wavelength is longer than the
    original context over `low_freq_factor`, keeps those shorter than it over `high_freq_factor`, and blends between.
    """
    said, name = (settings, "rope_theta") if "rope_theta" in settings.values else (config, base)
    theta = said.number(name, 1.0, 1e15)
    settings.refuse("partial_rotary_factor", 1, 1.0)
    kind = settings.word("rope_type" if settings.has("rope_type") else "type", _TYPES, "default")
    plain = tuple(theta ** (-2.0 * i / head_dim) for i in range(head_dim // 2))
    if kind == "default":
        return Rope(plain)
    factor = settings.number("factor", 1.0, _HIGHEST)
    if kind == "linear":
        return Rope(tuple(f / factor for f in plain))
    low = settings.number("low_freq_factor", 1e-3, 1e6)
    high = settings.number("high_freq_factor", 1e-3, 1e6)
    if high <= low:
        raise settings.bad("high_freq_factor", f"larger than low_freq_factor ({low:g})")
    context = _original_context(settings, config)
    return Rope(tuple(_llama3(f, factor, low, high, context) for f in plain))


def _original_context(settings: Fields, config: Fields) -> float:
    """Where it is left out, the model's own; one beside the settings goes before theirs."""
    name = "original_max_position_embeddings"
    if name in config.values:
        return config.number(name, 1, _HIGHEST)
    if name in settings.values:
        return settings.number(name, 1, _HIGHEST)
    return config.number("max_position_embeddings", 1, _HIGHEST)


def _llama3(frequency: float, factor: float, low: float, high: float, context: float) -> float:
    turns = context * frequency / (2 * math.pi)  # full turns within the original context
    blend = min(max((turns - low) / (high - low), 0.0), 1.0)
    return (1 - blend) * frequency / factor + blend * frequency
