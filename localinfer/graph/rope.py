"""Rotary position embeddings (Su et al., 2021): the frequencies, from either spelling of config.json.

Old spelling: `rope_theta` and `rope_scaling` {`type` or `rope_type`, …}. New: `rope_parameters` with both in one.
"""

import math
from dataclasses import dataclass, field, replace

from localinfer.graph.fields import Fields

TYPES = ("default", "linear", "llama3", "yarn", "dynamic", "longrope")
_HIGHEST = float(1 << 24)


@dataclass(frozen=True, slots=True)
class Rope:
    """At position p, elements i and i + r of a head are turned together by the angle p * inv_freq[i].

    `inv_freq` has r values in double precision; elements from 2r on are left alone. `interleaved`: elements 2i and
    2i + 1 are turned together. Cosines and sines are multiplied by `attention_factor`, and those of queries also by
    1 + growth * log(1 + floor(p / growth_every)).
    """

    inv_freq: tuple[float, ...] = field(repr=False)
    attention_factor: float = 1.0
    interleaved: bool = False
    long_inv_freq: tuple[float, ...] = field(default=(), repr=False)
    """Those of a context of more than `original` tokens, if they are others."""
    original: int = 0
    growth: float = 0.0
    growth_every: float = 1.0

    def frequencies(self, context: int) -> tuple[float, ...]:
        """`inv_freq` of a context of so many tokens."""
        return self.long_inv_freq if self.long_inv_freq and context > self.original else self.inv_freq


def still(head_dim: int) -> Rope:
    """What turns nothing."""
    return Rope((0.0,) * (head_dim // 2))


def read_rope(
    config: Fields, head_dim: int, *, partial: bool = False, interleaved: bool = False, types: tuple[str, ...] = TYPES
) -> Rope:
    """The one set of frequencies of `config`; `partial`: of a part of each head, if config says so. Other `types` than
    these are refused."""
    settings = rope_settings(config)
    for name in ("full_attention", "sliding_attention"):
        settings.refuse(name)  # frequencies by the kind of layer
    turned = head_dim
    if partial:
        turned = _turned(settings, config, head_dim)
    else:
        config.refuse("partial_rotary_factor", 1, 1.0)
        settings.refuse("partial_rotary_factor", 1, 1.0)
    return replace(rope_from(settings, config, turned, types=types), interleaved=interleaved)


def _turned(settings: Fields, config: Fields, head_dim: int) -> int:
    """How many values of a head are turned."""
    name = "partial_rotary_factor"
    said = settings if name in settings.values else config
    part = said.number(name, 0.0, 1.0) if said.has(name) else 1.0
    turned = int(head_dim * part)
    if turned < 2 or turned % 2:
        raise said.bad(name, f"a part of {head_dim} that is an even number of values")
    return turned


def rope_settings(config: Fields) -> Fields:
    """The object of RoPE settings that counts: the old one, if there is any."""
    old = config.table("rope_scaling")
    return old if old.values else config.table("rope_parameters")


def rope_from(
    settings: Fields, config: Fields, turned: int, base: str = "rope_theta", types: tuple[str, ...] = TYPES
) -> Rope:
    """Frequencies of one object of RoPE settings; its own `rope_theta` goes before `base` of `config`.

    `linear` divides all frequencies by `factor`; `llama3` (Llama 3.1) divides those whose wavelength is longer than the
    original context over `low_freq_factor`, keeps those shorter than it over `high_freq_factor`, and blends between;
    `yarn` (Peng et al., 2023) blends by place; `longrope` (Ding et al., 2024) divides each by a number of its own;
    `dynamic` changes nothing up to the context the model was made for, which is all that runs here.
    """
    said, name = (settings, "rope_theta") if "rope_theta" in settings.values else (config, base)
    theta = said.number(name, 1.0, 1e15)
    kind = settings.word(
        "rope_type" if settings.has("rope_type") else "type", {name: name for name in types}, "default"
    )
    plain = tuple(theta ** (-2.0 * i / turned) for i in range(turned // 2))
    if kind in ("default", "dynamic"):
        return Rope(plain)
    if kind == "longrope":
        return _longrope(settings, config, plain)
    factor = settings.number("factor", 1.0, _HIGHEST)
    if kind == "linear":
        return Rope(tuple(f / factor for f in plain))
    if kind == "yarn":
        return _yarn(settings, config, plain, theta, factor)
    low = settings.number("low_freq_factor", 1e-3, 1e6)
    high = settings.number("high_freq_factor", 1e-3, 1e6)
    if high <= low:
        raise settings.bad("high_freq_factor", f"larger than low_freq_factor ({low:g})")
    context = _original_context(settings, config)
    return Rope(tuple(_llama3(f, factor, low, high, context) for f in plain))


def proportional(settings: Fields, head_dim: int) -> Rope:
    """The first `partial_rotary_factor` of a head's pairs is turned, by frequencies of the whole head; the others stand
    still (Gemma 4)."""
    theta = settings.number("rope_theta", 1.0, 1e15)
    factor = settings.number("factor", 1.0, _HIGHEST, 1.0)
    part = settings.number("partial_rotary_factor", 0.0, 1.0, 1.0)
    turned, half = int(part * head_dim // 2), head_dim // 2
    return Rope(tuple(theta ** (-2.0 * i / head_dim) / factor if i < turned else 0.0 for i in range(half)))


def _original_context(settings: Fields, config: Fields) -> float:
    """Where it is left out, the model's own; one beside the settings goes before theirs."""
    name = "original_max_position_embeddings"
    if config.has(name):
        return config.number(name, 1, _HIGHEST)
    if name in settings.values:
        return settings.number(name, 1, _HIGHEST)
    return config.number("max_position_embeddings", 1, _HIGHEST)


def _llama3(frequency: float, factor: float, low: float, high: float, context: float) -> float:
    turns = context * frequency / (2 * math.pi)  # full turns within the original context
    blend = min(max((turns - low) / (high - low), 0.0), 1.0)
    return (1 - blend) * frequency / factor + blend * frequency


def _yarn(settings: Fields, config: Fields, plain: tuple[float, ...], theta: float, factor: float) -> Rope:
    """Frequencies that turn often are kept, those that turn less than once divided; between, it goes by place."""
    context, turned = _original_context(settings, config), 2 * len(plain)
    fast, slow = (_positive(settings, name, given) for name, given in (("beta_fast", 32.0), ("beta_slow", 1.0)))

    def place(turns: float) -> float:
        return turned * math.log(context / (turns * 2 * math.pi)) / (2 * math.log(theta))

    if theta <= 1:
        raise settings.bad("rope_theta", "a number above 1, as `yarn` needs")
    first, last = place(fast), place(slow)
    if settings.flag("truncate", True):
        first, last = math.floor(first), math.ceil(last)
    first, last = max(first, 0), min(last, turned - 1)
    span = last - first or 0.001
    kept = (1 - min(max((i - first) / span, 0.0), 1.0) for i in range(len(plain)))
    frequencies = tuple(f / factor * (1 - part) + f * part for f, part in zip(plain, kept, strict=True))
    return Rope(frequencies, _yarn_attention(settings, factor))


def _yarn_attention(settings: Fields, factor: float) -> float:
    if settings.has("attention_factor"):
        return settings.number("attention_factor", 0.0, 1e3)
    scales = [settings.number(name, 0.0, 1e3, 0.0) for name in ("mscale", "mscale_all_dim")]
    grown = math.log(factor)
    if all(scales):
        return (0.1 * scales[0] * grown + 1) / (0.1 * scales[1] * grown + 1)
    return 0.1 * grown + 1


def _positive(settings: Fields, name: str, given: float) -> float:
    value = settings.number(name, 0.0, 1e6, given)
    return value or given


def _longrope(settings: Fields, config: Fields, plain: tuple[float, ...]) -> Rope:
    """Divided by `short_factor` up to the original context, by `long_factor` beyond it."""
    context = _original_context(settings, config)
    short, long = (
        tuple(f / by for f, by in zip(plain, _factors(settings, name, len(plain)), strict=True))
        for name in ("short_factor", "long_factor")
    )
    if settings.has("factor"):
        factor = settings.number("factor", 1e-3, _HIGHEST)
    else:
        factor = config.number("max_position_embeddings", 1, _HIGHEST) / context
    attention = 1.0
    if settings.has("attention_factor"):
        attention = settings.number("attention_factor", 0.0, 1e3)
    elif factor > 1 and context > 1:
        attention = math.sqrt(1 + math.log(factor) / math.log(context))
    return Rope(short, attention, long_inv_freq=long, original=int(context))


def _factors(settings: Fields, name: str, count: int) -> tuple[float, ...]:
    value = settings.get(name)
    if not isinstance(value, list) or len(value) != count:
        raise settings.bad(name, f"a list of {count} numbers")
    if not all(type(one) in (int, float) and 1e-6 <= one <= 1e9 for one in value):
        raise settings.bad(name, "a list of numbers above 0")
    return tuple(float(one) for one in value)
