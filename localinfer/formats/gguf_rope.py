"""RoPE scaling between the metadata of a GGUF file and config.json.

YaRN is as llama.cpp has it: cosines and sines are multiplied by m(1) / m(`yarn_log_multiplier`) * `attn_factor`, where
m(x) = 1 + 0.1 * x * log(factor), and the denominator is 1 without the key.
"""

import math
from typing import Any

import numpy as np

from localinfer.errors import NotSupported
from localinfer.formats.gguf import GgufFile
from localinfer.formats.gguf_form import Form
from localinfer.formats.gguf_values import LLAMACPP, bounded, number, positive, refused

Scaling = dict[str, Any]
SHORT, LONG = "rope_factors_short.weight", "rope_factors_long.weight"
DIVISORS = "rope_freqs.weight"
_CLOSE = 1e-5


def scaling_kind(file: GgufFile, arch: str) -> str:
    """`none`, `linear`, `yarn` or `longrope`. A file that does not say how it scales frequencies does it linearly."""
    if SHORT in file.tensors or LONG in file.tensors:
        return "longrope"
    kind = file.text(f"{arch}.rope.scaling.type", "linear")
    if kind not in ("none", "linear", "yarn"):
        raise NotSupported(
            f"{file.path.name}: `{arch}.rope.scaling.type` is {kind[:40]!r}, which is not supported", hint=LLAMACPP
        )
    return kind


def rope_scaling(file: GgufFile, form: Form, turned: int, context: int) -> Scaling | None:
    """`rope_scaling` of config.json; None where nothing is scaled. `turned`: values of a head that are rotated."""
    arch = form.arch
    kind = scaling_kind(file, arch)
    factor = _factor(file, arch) if kind in ("linear", "yarn") else 1.0
    if DIVISORS in file.tensors and form.divisors:
        if factor != 1 or kind == "longrope":
            raise refused(file, "RoPE is scaled twice")
        return _llama3(file, arch, turned)
    if kind == "longrope":
        return _longrope(file, form, turned, context)
    if kind == "yarn":
        return _yarn(file, form, factor, context)
    return None if factor == 1 else {"rope_type": "linear", "factor": factor}


def yarn_attention(factor: float, log_multiplier: float = 0.0) -> float:
    """What llama.cpp multiplies cosines and sines by, without `attn_factor`."""
    if factor <= 1:
        return 1.0
    return (1 + 0.1 * math.log(factor)) / (1 + 0.1 * log_multiplier * math.log(factor))


def longrope_attention(context: float, original: float) -> float:
    """The same for LongRoPE where config.json does not say it."""
    grown = context / original
    return math.sqrt(1 + math.log(grown) / math.log(original)) if grown > 1 < original else 1.0


def _factor(file: GgufFile, arch: str) -> float:
    key = f"{arch}.rope.scaling.factor"
    if key not in file.metadata:
        key = f"{arch}.rope.scale_linear"  # as older files call it
    factor = number(file, key, 0.0) or 1.0
    if factor < 1:
        raise refused(file, f"`{key}` is {factor:g}, below 1")
    return factor


def _yarn(file: GgufFile, form: Form, factor: float, context: int) -> Scaling | None:
    arch = form.arch

    def said(name: str, default: float) -> float:
        return number(file, f"{arch}.rope.scaling.{name}", default)

    more = said("attn_factor", 1.0)
    if factor == 1 and abs(more - 1) < _CLOSE:
        return None
    found: Scaling = {
        "rope_type": "yarn",
        "factor": factor,
        "original_max_position_embeddings": _original(file, arch, context),
        "beta_fast": positive(file, f"{arch}.rope.scaling.yarn_beta_fast", 32.0),
        "beta_slow": positive(file, f"{arch}.rope.scaling.yarn_beta_slow", 1.0),
    }
    if form.uncut:
        found["truncate"] = False
    log_multiplier = said("yarn_log_multiplier", 0.0)
    usual = yarn_attention(factor, log_multiplier)
    attention = said("yarn_attn_factor", usual * more)  # the original's own number, where the converter kept it
    if abs(attention / usual - 1) > _CLOSE:
        found["attention_factor"] = attention
    elif log_multiplier:
        found |= {"mscale": 1.0, "mscale_all_dim": log_multiplier}
    return found


def _original(file: GgufFile, arch: str, context: int) -> int:
    """How long the texts were before RoPE was stretched."""
    return bounded(file, f"{arch}.rope.scaling.original_context_length", 1 << 24, context)


def _longrope(file: GgufFile, form: Form, turned: int, context: int) -> Scaling:
    if not form.longrope:
        raise refused(file, f"`{SHORT}` is there, but a {form.arch} model has no such factors as we know it")
    original = _original(file, form.arch, context)
    found: Scaling = {"rope_type": "longrope"}
    for name, source in (("short_factor", SHORT), ("long_factor", LONG)):
        tensor = file.tensors.get(source)
        if tensor is None or tensor.shape != (turned // 2,):
            raise file.error(f"`{source}` {'is missing' if tensor is None else 'has the wrong shape'}")
        found[name] = [float(f"{value:.7g}") for value in file.dequantize(source).tolist()]
    attention = number(file, f"{form.arch}.rope.scaling.attn_factor", 1.0)
    if abs(attention / longrope_attention(context, original) - 1) > _CLOSE:
        found["attention_factor"] = attention
    return found | {"original_max_position_embeddings": original}


def _llama3(file: GgufFile, arch: str, turned: int) -> Scaling:
    """Llama 3.x stores the result of its scaling, a divisor per frequency; find the settings that give it."""
    if file.tensors[DIVISORS].shape != (turned // 2,):
        raise file.error(f"`{DIVISORS}` has the wrong shape")
    divisors = file.dequantize(DIVISORS).astype(np.float64)
    factor, low, high, original = float(divisors.max()), 1.0, 4.0, 8192
    inverse = file.number(f"{arch}.rope.freq_base", 10000.0) ** (-np.arange(0, turned, 2) / turned)
    turns = original * inverse / (2 * np.pi)
    smooth = np.clip((turns - low) / (high - low), 0, 1)
    expected = 1 / ((1 - smooth) / factor + smooth)
    if not np.allclose(divisors, expected, rtol=1e-3):
        raise refused(file, "its RoPE factors are not Llama 3's")
    return {
        "rope_type": "llama3",
        "factor": round(factor, 4),
        "low_freq_factor": low,
        "high_freq_factor": high,
        "original_max_position_embeddings": original,
    }
