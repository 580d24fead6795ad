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


def read_rope(config: Fields, head_dim: int, theta: float = 10000.0) -> Rope:
    """The one set of frequencies of `config`; `theta` is the family's base where config.json has none."""
    old = config.table("rope_scaling")
    settings = old if old.values else config.table("rope_parameters")
    config.refuse("partial_rotary_factor", 1, 1.0)
    base = config.number("rope_theta", 1.0, 1e15, theta)
    return rope_from(settings, head_dim, base)


def rope_from(settings: Fields, head_dim: int, theta: float) -> Rope:
    """Frequencies of one object of RoPE settings; its own `rope_theta` goes before `theta`.

    `linear` divides all frequencies by `factor`; `llama3` (Llama 3.1) divides those whose wavelength is longer than the
    original context over `low_freq_factor`, keeps those shorter than it over `high_freq_factor`, and blends between.
    """
    base = settings.number("rope_theta", 1.0, 1e15, theta)
    settings.refuse("partial_rotary_factor", 1, 1.0)
    kind = settings.word("rope_type" if settings.has("rope_type") else "type", _TYPES, "default")
    plain = tuple(base ** (-2.0 * i / head_dim) for i in range(head_dim // 2))
    if kind == "default":
        return Rope(plain)
    factor = settings.number("factor", 1.0, _HIGHEST)
    if kind == "linear":
        return Rope(tuple(f / factor for f in plain))
    low = settings.number("low_freq_factor", 1e-3, 1e6)
    high = settings.number("high_freq_factor", 1e-3, 1e6)
    if high <= low:
        raise settings.bad("high_freq_factor", f"larger than low_freq_factor ({low:g})")
    context = settings.number("original_max_position_embeddings", 1, _HIGHEST)
    return Rope(tuple(_llama3(f, factor, low, high, context) for f in plain))


def _llama3(frequency: float, factor: float, low: float, high: float, context: float) -> float:
    turns = context * frequency / (2 * math.pi)  # full turns within the original context
    blend = min(max((turns - low) / (high - low), 0.0), 1.0)
    return (1 - blend) * frequency / factor + blend * frequency
