"""What config.json of Gemma 4 says beyond what all say, from a GGUF file's metadata.

Sources: the keys of the `gguf` package, and llama.cpp's converter and loader. What is no key: scores are not scaled; a
layer without keys reads those of the last two that have some, the first of which slides; values without a matrix are
keys; `rope_freqs.weight` divides the frequencies of full layers, of pairs that stand still by 1e30.
"""

from typing import Any

import numpy as np

from localinfer.formats.gguf import GgufFile
from localinfer.formats.gguf_rope import DIVISORS
from localinfer.formats.gguf_values import bounded, each_layer, head_size, number, positive, refused

Config = dict[str, Any]
FULL, SLIDING = "full_attention", "sliding_attention"
STILL = 1e30
"""What the frequency of a pair that stands still is divided by."""
_LEAST_STILL = 1e20


def gemma4(file: GgufFile, arch: str, config: Config) -> Config:
    """The fields of the text model; one of the unified model (12B) is the same without inputs by layer."""
    layers, full_dim = config["num_hidden_layers"], config["head_dim"]
    types = _types(file, arch, layers)
    shared = bounded(file, f"{arch}.attention.shared_kv_layers", layers - 1, 0, low=0)
    _lenders(file, types, layers - shared)
    inner = each_layer(file, f"{arch}.feed_forward_length", 1 << 20, layers)
    kv_heads = each_layer(file, f"{arch}.attention.head_count_kv", 1024, layers, config["num_attention_heads"])
    keys_are_values = _keys_are_values(file, types[: layers - shared])
    of = {kind: {heads for heads, one in zip(kv_heads, types, strict=True) if one == kind} for kind in (FULL, SLIDING)}
    if any(len(one) > 1 for one in of.values()) or (of[FULL] != of[SLIDING] and not keys_are_values and of[SLIDING]):
        raise refused(file, f"`{arch}.attention.head_count_kv` differs in another way than is known")
    cap = number(file, f"{arch}.final_logit_softcapping", 0.0)
    if cap < 0:
        raise file.error(f"`{arch}.final_logit_softcapping` is {cap:g}, but must not be negative")
    return {
        "head_dim": head_size(file, arch, full_dim, "_swa"),
        "global_head_dim": full_dim,
        "num_key_value_heads": max(of[SLIDING] or of[FULL]),
        "num_global_key_value_heads": max(of[FULL]),
        "attention_k_eq_v": keys_are_values,
        "num_kv_shared_layers": shared,
        "use_double_wide_mlp": _twice_as_wide(file, arch, inner, shared),
        "layer_types": types,
        "sliding_window": bounded(file, f"{arch}.attention.sliding_window", 1 << 24),
        "final_logit_softcapping": cap or None,
        "rope_parameters": _ropes(file, arch, config, full_dim),
        **_inputs(file, arch),
    }


def passed_over(file: GgufFile, config: Config) -> set[str]:
    """Tensors for keys and values of layers that read those of others: checkpoints have them, nobody reads them."""
    layers = config["num_hidden_layers"]
    kinds = [f"attn_{name}.weight" for name in ("k", "v", "k_norm")]
    first = layers - config.get("num_kv_shared_layers", 0)
    return {f"blk.{layer}.{kind}" for layer in range(first, layers) for kind in kinds} & file.tensors.keys()


def _types(file: GgufFile, arch: str, layers: int) -> list[str]:
    key = f"{arch}.attention.sliding_window_pattern"
    found: Any = file.metadata.get(key)
    if not isinstance(found, list) or len(found) < layers or not all(type(one) is bool for one in found):
        raise file.error(f"`{key}` does not say of each layer if it has a window")
    if found[layers - 1]:
        raise refused(file, "the last layer has a window")
    return [SLIDING if one else FULL for one in found[:layers]]


def _lenders(file: GgufFile, types: list[str], own: int) -> None:
    """Layers without keys read those of the last layer of their kind that has some, and llama.cpp knows two places."""
    lent = {FULL: own - 1, SLIDING: own - 2}
    for kind in sorted(set(types[own:])):
        if lent[kind] < 0 or types[lent[kind]] != kind:
            raise refused(file, f"layers from {own} on read keys of layer {lent[kind]}, which is not of their kind")


def _keys_are_values(file: GgufFile, types: list[str]) -> bool:
    """Whether full layers have no matrix for values; sliding ones must have one."""
    lacking = {f"blk.{i}.attn_v.weight" not in file.tensors for i, kind in enumerate(types) if kind == FULL}
    if len(lacking) > 1:
        raise refused(file, "some full layers have values of their own, and others have not")
    return lacking == {True}


def _twice_as_wide(file: GgufFile, arch: str, inner: list[int], shared: int) -> bool:
    own, others = set(inner[: len(inner) - shared]), set(inner[len(inner) - shared :])
    if len(own) != 1 or (others and others not in (own, {2 * one for one in own})):
        raise refused(file, f"`{arch}.feed_forward_length` differs in another way than is known")
    return bool(others) and others != own


def _ropes(file: GgufFile, arch: str, config: Config, full_dim: int) -> Config:
    if config.pop("rope_scaling"):
        raise refused(file, "RoPE is scaled, which is not known of Gemma 4")
    tensor, half = file.tensors.get(DIVISORS), full_dim // 2
    if tensor is None or tensor.shape != (half,):
        raise file.error(f"`{DIVISORS}` {'is missing' if tensor is None else 'has the wrong shape'}")
    divisors = file.dequantize(DIVISORS).astype(np.float64)
    turned = int((divisors < _LEAST_STILL).sum())
    factor = float(divisors[0]) if turned else 1.0
    if not (divisors[:turned] == factor).all() or not factor >= 1 or not (divisors[turned:] >= _LEAST_STILL).all():
        raise refused(file, f"`{DIVISORS}` divides in another way than is known")
    full: Config = {
        "rope_type": "proportional",
        "partial_rotary_factor": min(1.0, (turned + 0.25) / half),
        "rope_theta": config.pop("rope_theta"),
    }
    local = positive(file, f"{arch}.rope.freq_base_swa")
    return {
        FULL: full | ({"factor": factor} if factor != 1 else {}),
        SLIDING: {"rope_type": "default", "rope_theta": local},
    }


def _inputs(file: GgufFile, arch: str) -> Config:
    size = bounded(file, f"{arch}.embedding_length_per_layer_input", 1 << 16, 0, low=0)
    rows = file.tensors["token_embd.weight"].shape[0]  # llama.cpp has inputs for each token
    return {"hidden_size_per_layer_input": size, "vocab_size_per_layer_input": rows}
