"""How a GGUF file says what rotates the heads of a graph."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from localinfer.errors import NotSupported
from localinfer.formats.gguf_form import Form
from localinfer.formats.gguf_gemma4_config import STILL
from localinfer.formats.gguf_rope import DIVISORS, LONG, SHORT, yarn_attention
from localinfer.graph.defaults import DEFAULTS
from localinfer.graph.rope import Rope
from localinfer.graph.spec import ModelSpec
from localinfer.graph.weights import Checkpoint

Settings = dict[str, Any]


def describe_rope(checkpoint: Checkpoint, form: Form) -> dict[str, Any]:
    """All `rope.*` keys; divisors and factors of frequencies as arrays under the names of their tensors. Raises
    `NotSupported` for a scaling that has no keys."""
    spec = checkpoint.spec
    turned = [pair for pair in zip(spec.ropes, spec.windows, strict=True) if any(pair[0].inv_freq)]
    if not turned and form.may_be_still:
        return {}
    if not turned:
        raise cannot("a model that rotates nothing")
    full = next((rope for rope, window in turned if not window), turned[0][0])
    local = next((rope for rope, window in turned if window), full)
    if form.proportional:
        found = _proportional(full, local)
        return {key if key == DIVISORS else f"{form.arch}.{key}": value for key, value in found.items()}
    inner = checkpoint.config.get("text_config") or checkpoint.config
    found = _scaled(full, inner, spec, form)
    found["rope.dimension_count"] = 2 * len(full.inv_freq)
    if form.one_base:
        if local is not full and uniform(local) != (found["rope.freq_base"], 1.0):
            raise cannot("other RoPE in sliding layers")
    elif "rope.freq_base_swa" in form.reads:
        base, factor = uniform(local)
        if factor != 1.0:
            raise cannot("RoPE scaling in sliding layers")
        found["rope.freq_base_swa"] = base
    elif any(rope != full for rope, _ in turned):
        raise cannot("RoPE that differs from layer to layer")
    tensors = {name: found.pop(name) for name in (DIVISORS, SHORT, LONG) if name in found}
    return {f"{form.arch}.{key}": value for key, value in found.items()} | tensors


def _proportional(full: Rope, local: Rope) -> dict[str, Any]:
    """All `rope.*` keys where full layers turn a part of each head, and the divisors that say which."""
    base, factor = uniform(local)
    if not base or factor != 1.0:
        raise cannot("RoPE of this kind in sliding layers")
    frequencies = np.array(full.inv_freq)
    turned = int(np.count_nonzero(frequencies))
    divisors = np.full(len(frequencies), STILL, np.float32)
    full_base = 10000.0
    if turned > 1:
        full_base = float(f"{(frequencies[1] / frequencies[0]) ** -len(frequencies):.7g}")
    plain = full_base ** (-np.arange(turned) / len(frequencies))
    divisors[:turned] = plain / frequencies[:turned]
    if not np.allclose(divisors[:turned], divisors[0], rtol=1e-6) or full.attention_factor != 1.0:
        raise cannot("RoPE of this kind in full layers")
    divisors[:turned] = float(f"{divisors[0]:.6g}")
    return {
        "rope.freq_base": full_base,
        "rope.freq_base_swa": base,
        "rope.dimension_count": 2 * len(frequencies),
        "rope.dimension_count_swa": 2 * len(local.inv_freq),
        DIVISORS: divisors,
    }


def _scaled(rope: Rope, config: Settings, spec: ModelSpec, form: Form) -> dict[str, Any]:
    settings = _settings(config)
    base, factor = uniform(rope)
    grown: dict[str, Any] = {}
    if rope.growth:
        grown = {
            "attention.temperature_scale": rope.growth,
            "rope.scaling.original_context_length": int(rope.growth_every),
        }
    if rope.long_inv_freq:
        return _longrope(rope, _base(settings, config, spec), form)
    if settings.get("rope_type", settings.get("type")) == "yarn" and not (base and rope.attention_factor == 1.0):
        return grown | _yarn(rope, settings, config, spec, form)
    if rope.attention_factor != 1.0:
        raise cannot("this RoPE scaling")
    if base:
        scaling = {"rope.scaling.type": "linear", "rope.scaling.factor": factor} if factor != 1.0 else {}
        return {"rope.freq_base": base, **scaling, **grown}
    if not form.divisors:
        raise cannot(f"RoPE scaled by frequency ({form.arch})")
    base = _base(settings, config, spec)
    return {"rope.freq_base": base, DIVISORS: _divisors(base, rope.inv_freq), **grown}


def _yarn(rope: Rope, settings: Settings, config: Settings, spec: ModelSpec, form: Form) -> dict[str, Any]:
    if (settings.get("truncate") is False) != form.uncut:
        raise cannot(f"YaRN that is {'' if form.uncut else 'not '}cut at whole frequencies ({form.arch})")
    factor = float(settings["factor"])
    log_multiplier = 0.0
    if "attention.temperature_scale" in form.reads and settings.get("mscale") == 1:
        log_multiplier = float(settings.get("mscale_all_dim") or 0)
    original = config.get("original_max_position_embeddings") or settings.get("original_max_position_embeddings")
    found = {
        "rope.freq_base": _base(settings, config, spec),
        "rope.scaling.type": "yarn",
        "rope.scaling.factor": factor,
        "rope.scaling.original_context_length": int(original or spec.max_context),
        "rope.scaling.yarn_beta_fast": float(settings.get("beta_fast") or 32.0),
        "rope.scaling.yarn_beta_slow": float(settings.get("beta_slow") or 1.0),
    }
    if log_multiplier:
        found["rope.scaling.yarn_log_multiplier"] = log_multiplier
    more = rope.attention_factor / yarn_attention(factor, log_multiplier)
    return found | ({"rope.scaling.attn_factor": more} if abs(more - 1) > 1e-6 else {})


def _longrope(rope: Rope, base: float, form: Form) -> dict[str, Any]:
    if not form.longrope:
        raise cannot(f"LongRoPE ({form.arch})")
    return {
        "rope.freq_base": base,
        "rope.scaling.type": "longrope",
        "rope.scaling.original_context_length": rope.original,
        "rope.scaling.attn_factor": rope.attention_factor,
        SHORT: _divisors(base, rope.inv_freq),
        LONG: _divisors(base, rope.long_inv_freq),
    }


def _settings(config: Settings) -> Settings:
    """The object of RoPE settings that counts, that of full layers where there are two."""
    found = config.get("rope_scaling") or config.get("rope_parameters") or {}
    inner: Settings = found.get("full_attention") or found
    return inner


def _base(settings: Settings, config: Settings, spec: ModelSpec) -> float:
    said = settings.get("rope_theta") or config.get("rope_theta")
    known: Any = said or DEFAULTS[spec.model_type]["rope_theta"]
    return float(known)


def _divisors(base: float, frequencies: tuple[float, ...]) -> NDArray[np.float32]:
    count = len(frequencies)
    plain = base ** (-np.arange(count) / count)
    return np.asarray(plain / np.array(frequencies), np.float32)


def uniform(rope: Rope) -> tuple[float, float]:
    """The base, and what all frequencies are divided by; (0, 0) where they are divided by different numbers."""
    frequencies = np.array(rope.inv_freq)
    count, factor = len(frequencies), 1 / frequencies[0]
    base = float((frequencies[1] * factor) ** -count)
    if not np.allclose(base ** (-np.arange(count) / count) / factor, frequencies, rtol=1e-6, atol=0):
        return 0.0, 0.0
    return float(f"{base:.7g}"), float(f"{factor:.7g}")


def cannot(what: str) -> NotSupported:
    """The error for what GGUF has no word for."""
    return NotSupported(f"GGUF has no word for {what}", hint="keep the model in our form, or export it to gptq")
