"""What a GGUF file says of a graph: its architecture's keys, its tensors' names, and the order of its rows."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from localinfer.errors import NotSupported
from localinfer.formats.gguf_config import MODEL_TYPES, gguf_names
from localinfer.graph.families.gemma3_text import to_bfloat16
from localinfer.graph.rope import Rope
from localinfer.graph.weights import Checkpoint

_ARCHITECTURES = {ours: arch for arch, ours in MODEL_TYPES.items()} | {"mistral": "llama"}
_ROTATED = "llama"
"""The architecture whose q and k rows llama.cpp wants in another order, and that may have RoPE divisors."""
_SLIDING = "gemma3"
"""The architecture with sliding windows: every sixth layer has none."""
_EVERY = 6


def describe(checkpoint: Checkpoint) -> tuple[str, dict[str, Any]]:
    """The architecture, and all its keys; RoPE divisors as `rope_freqs`. Raises `NotSupported` for what has no key."""
    spec = checkpoint.spec
    arch = _ARCHITECTURES.get(spec.model_type)
    if arch is None:
        raise _cannot(f"a `{spec.model_type}` model")
    scale = spec.head_dim**-0.5
    if arch == _SLIDING and spec.layers == 62:
        scale = (spec.hidden_size / spec.heads) ** -0.5  # the largest one has a scale of its own
    if abs(spec.attention_scale / scale - 1) > 1e-6:
        raise _cannot(f"an attention scale of {spec.attention_scale:g}")
    if spec.logit_softcap and arch != _SLIDING:
        raise _cannot("a soft cap on logits")
    if spec.embed_scale != (to_bfloat16(spec.hidden_size**0.5) if arch == _SLIDING else 1.0):
        raise _cannot(f"an embedding scale of {spec.embed_scale:g}")
    values: dict[str, Any] = {
        "context_length": spec.max_context,
        "embedding_length": spec.hidden_size,
        "block_count": spec.layers,
        "feed_forward_length": spec.intermediate_size,
        "attention.head_count": spec.heads,
        "attention.head_count_kv": spec.kv_heads,
        "attention.key_length": spec.head_dim,
        "attention.value_length": spec.head_dim,
        "attention.layer_norm_rms_epsilon": spec.norm_eps,
        "rope.dimension_count": spec.head_dim,
        "vocab_size": spec.vocab_size,
    }
    if spec.logit_softcap:
        values["final_logit_softcapping"] = spec.logit_softcap
    values |= _windows(arch, spec.windows)
    found = {f"{arch}.{key}": value for key, value in values.items()}
    full = next(rope for rope, window in zip(spec.ropes, spec.windows, strict=True) if not window)
    found |= _rope(arch, full, checkpoint.config)
    if arch == _SLIDING:
        local = next((rope for rope, window in zip(spec.ropes, spec.windows, strict=True) if window), full)
        base, factor = _uniform(local)
        if factor != 1.0:
            raise _cannot("RoPE scaling in sliding layers")
        found[f"{arch}.rope.freq_base_swa"] = base
    return arch, found


def _windows(arch: str, windows: tuple[int, ...]) -> dict[str, Any]:
    if not any(windows) and arch != _SLIDING:
        return {}
    size = max(windows)
    if arch != _SLIDING or any(w != (size if (i + 1) % _EVERY else 0) for i, w in enumerate(windows)):
        raise _cannot("sliding windows in these layers")
    return {"attention.sliding_window": size}


def _rope(arch: str, rope: Rope, config: dict[str, Any]) -> dict[str, Any]:
    if rope.attention_factor != 1.0:
        raise _cannot("this RoPE scaling")
    base, factor = _uniform(rope)
    if base:
        scaling = {f"{arch}.rope.scaling.type": "linear", f"{arch}.rope.scaling.factor": factor}
        return {f"{arch}.rope.freq_base": base} | (scaling if factor != 1.0 else {})
    if arch != _ROTATED:
        raise _cannot("RoPE scaled by frequency")
    inner = config.get("rope_parameters") or config.get("rope_scaling") or {}
    base = float(config.get("rope_theta") or inner.get("rope_theta", 10000.0))
    count = len(rope.inv_freq)
    plain = base ** (-np.arange(count) / count)
    return {f"{arch}.rope.freq_base": base, "rope_freqs": (plain / np.array(rope.inv_freq)).astype(np.float32)}


def _uniform(rope: Rope) -> tuple[float, float]:
    """The base, and what all frequencies are divided by; (0, 0) where they are divided by different numbers."""
    frequencies = np.array(rope.inv_freq)
    count, factor = len(frequencies), 1 / frequencies[0]
    base = float((frequencies[1] * factor) ** -count)
    if not np.allclose(base ** (-np.arange(count) / count) / factor, frequencies, rtol=1e-6, atol=0):
        return 0.0, 0.0
    return float(f"{base:.7g}"), float(f"{factor:.7g}")


def names_of(arch: str, checkpoint: Checkpoint) -> dict[str, str]:
    """The GGUF name of every tensor of the graph. Raises `NotSupported` for one that has none."""
    names = gguf_names(arch, checkpoint.spec.layers)
    wanted = [f"{linear.name}.weight" for linear in checkpoint.graph.linears()]
    for name in (*wanted, *(name for name, _ in checkpoint.graph.vectors())):
        if name not in names:
            raise _cannot(f"tensor `{name}`")
    return names


def head_rows(arch: str, checkpoint: Checkpoint, name: str) -> NDArray[np.intp] | None:
    """Where the rows of q and k come from: llama.cpp turns neighbours together, not halves. None: as they are."""
    spec = checkpoint.spec
    heads = {"q_proj": spec.heads, "k_proj": spec.kv_heads}.get(name.split(".")[-2])
    if arch != _ROTATED or heads is None:
        return None
    rows = np.arange(heads * spec.head_dim, dtype=np.intp)
    return rows.reshape(heads, 2, -1).swapaxes(1, 2).reshape(-1)


def _cannot(what: str) -> NotSupported:
    return NotSupported(f"GGUF has no word for {what}", hint="keep the model in our form, or export it to gptq")
