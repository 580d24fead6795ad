"""What a GGUF file's metadata and tensors are called in a Hugging Face directory.

Sources: the GGUF specification and the key and tensor names of the `gguf` package. llama.cpp's converter changes two
things that are undone here: it reorders the rows of q and k of llama models for its own RoPE, and it adds 1 to Gemma's
norm weights.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from localinfer.errors import Corrupt, NotSupported
from localinfer.formats.gguf import GgufFile
from localinfer.formats.gguf_keys import refuse_keys

MODEL_TYPES = {"llama": "llama", "qwen2": "qwen2", "qwen3": "qwen3", "gemma3": "gemma3_text"}
_CLASSES = {
    "llama": "LlamaForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
    "gemma3": "Gemma3ForCausalLM",
}
_LAYER = {
    "attn_norm.weight": ("input_layernorm.weight", "norm"),
    "attn_q.weight": ("self_attn.q_proj.weight", "q"),
    "attn_k.weight": ("self_attn.k_proj.weight", "kv"),
    "attn_v.weight": ("self_attn.v_proj.weight", "kv"),
    "attn_output.weight": ("self_attn.o_proj.weight", "o"),
    "ffn_gate.weight": ("mlp.gate_proj.weight", "up"),
    "ffn_up.weight": ("mlp.up_proj.weight", "up"),
    "ffn_down.weight": ("mlp.down_proj.weight", "down"),
}
_BIASES = {
    "attn_q.bias": ("self_attn.q_proj.bias", "q_bias"),
    "attn_k.bias": ("self_attn.k_proj.bias", "kv_bias"),
    "attn_v.bias": ("self_attn.v_proj.bias", "kv_bias"),
    "attn_output.bias": ("self_attn.o_proj.bias", "norm"),
}
_HEAD_NORMS = {
    "attn_q_norm.weight": ("self_attn.q_norm.weight", "head"),
    "attn_k_norm.weight": ("self_attn.k_norm.weight", "head"),
}
_PLAIN_NORM = {"ffn_norm.weight": ("post_attention_layernorm.weight", "norm")}
_GEMMA_NORMS = {
    "post_attention_norm.weight": ("post_attention_layernorm.weight", "norm"),
    "ffn_norm.weight": ("pre_feedforward_layernorm.weight", "norm"),
    "post_ffw_norm.weight": ("post_feedforward_layernorm.weight", "norm"),
}
_READ_TENSORS = {"llama": {"rope_freqs.weight"}}
"""Tensors that are read, but not written."""
_OF_ARCHITECTURE = {
    "llama": _LAYER | _PLAIN_NORM,
    "qwen2": _LAYER | _PLAIN_NORM,
    "qwen3": _LAYER | _PLAIN_NORM | _HEAD_NORMS,
    "gemma3": _LAYER | _GEMMA_NORMS | _HEAD_NORMS,
}


def gguf_names(arch: str, layers: int) -> dict[str, str]:
    """What a GGUF file of `arch` calls each tensor of a Hugging Face directory."""
    names = {"model.embed_tokens.weight": "token_embd.weight", "model.norm.weight": "output_norm.weight"}
    names["lm_head.weight"] = "output.weight"
    for source, (ours, _) in (_OF_ARCHITECTURE[arch] | _BIASES).items():
        names |= {f"model.layers.{layer}.{ours}": f"blk.{layer}.{source}" for layer in range(layers)}
    return names


@dataclass(frozen=True, slots=True)
class Renamed:
    """One tensor to write: its GGUF name, its name and shape here, and the heads whose rows are reordered (or 0)."""

    source: str
    name: str
    shape: tuple[int, ...]
    rope_heads: int = 0
    minus_one: bool = False


@dataclass(frozen=True, slots=True)
class Plan:
    """`config.json` (without token ids) and every tensor, in the order in which they are written."""

    config: dict[str, Any]
    tensors: tuple[Renamed, ...]


def plan_import(file: GgufFile) -> Plan:
    """What to write for `file`. Raises `NotSupported` (architecture, keys, tensors) or `Corrupt` (naming the field)."""
    arch = file.text("general.architecture")
    if arch not in MODEL_TYPES:
        raise NotSupported(
            f"{file.path.name}: architecture {arch[:40]!r} is not known; known are {', '.join(MODEL_TYPES)}",
            hint="run it with `--backend llamacpp`",
        )
    config = _config(file, arch)
    refuse_keys(file, arch, config["head_dim"], config["max_position_embeddings"])
    tensors = _tensors(file, arch, config)
    unknown = file.tensors.keys() - {tensor.source for tensor in tensors} - _READ_TENSORS.get(arch, set())
    if unknown:
        raise NotSupported(
            f"{file.path.name}: tensor `{min(unknown)}` is not part of a {arch} model as we know it",
            hint="run it with `--backend llamacpp`",
        )
    return Plan(config, tensors)


def _bounded(file: GgufFile, key: str, high: int, default: int | None = None, low: int = 1) -> int:
    """A whole number; one for each layer will do if they are all the same."""
    found = file.metadata.get(key)
    if isinstance(found, list) and found:
        if any(item != found[0] for item in found):
            raise NotSupported(
                f"{file.path.name}: `{key}` differs from layer to layer, which is not supported",
                hint="run it with `--backend llamacpp`",
            )
        file.metadata[key] = found[0]
    value = file.integer(key, default)
    if not low <= value <= high:
        raise file.error(f"`{key}` is {value}, but must lie between {low} and {high}")
    return value


def _positive(file: GgufFile, key: str, default: float | None = None) -> float:
    value = float(f"{file.number(key, default):.7g}")
    if value <= 0:
        raise file.error(f"`{key}` is {value}, but must be positive")
    return value


def _config(file: GgufFile, arch: str) -> dict[str, Any]:
    hidden = _bounded(file, f"{arch}.embedding_length", 1 << 17)
    heads = _bounded(file, f"{arch}.attention.head_count", 1024)
    head_dim = _head_dim(file, arch, max(1, hidden // heads), "")
    if arch == "gemma3" and _head_dim(file, arch, head_dim, "_swa") != head_dim:
        raise NotSupported(f"{file.path.name}: heads differ in length", hint="use `--backend llamacpp`")
    config: dict[str, Any] = {
        "architectures": [_CLASSES[arch]],
        "model_type": MODEL_TYPES[arch],
        "hidden_size": hidden,
        "intermediate_size": _bounded(file, f"{arch}.feed_forward_length", 1 << 20),
        "num_hidden_layers": _bounded(file, f"{arch}.block_count", 1024),
        "num_attention_heads": heads,
        "num_key_value_heads": _bounded(file, f"{arch}.attention.head_count_kv", 1024, heads),
        "head_dim": head_dim,
        "max_position_embeddings": _bounded(file, f"{arch}.context_length", 1 << 26),
        "vocab_size": _rows(file, "token_embd.weight"),
        "rms_norm_eps": _positive(file, f"{arch}.attention.layer_norm_rms_epsilon"),
        "rope_theta": _positive(file, f"{arch}.rope.freq_base", 10000.0),
        "rope_scaling": _rope_scaling(file, arch, head_dim),
        "tie_word_embeddings": "output.weight" not in file.tensors,
        "attention_bias": arch != "gemma3" and "blk.0.attn_q.bias" in file.tensors,
        "torch_dtype": "bfloat16",
    }
    if arch == "gemma3":
        config |= _gemma3(file, config)
    else:
        config["hidden_act"] = "silu"
    return config


def _head_dim(file: GgufFile, arch: str, default: int, layers: str) -> int:
    """Values of a head in the layers that `layers` names: keys, values and what RoPE turns have one length."""
    head_dim = _bounded(file, f"{arch}.attention.key_length{layers}", 1024, default)
    if _bounded(file, f"{arch}.attention.value_length{layers}", 1024, default) != head_dim:
        raise NotSupported(f"{file.path.name}: keys and values differ in length", hint="use `--backend llamacpp`")
    if head_dim % 2 or _bounded(file, f"{arch}.rope.dimension_count{layers}", 1024, head_dim) != head_dim:
        raise NotSupported(f"{file.path.name}: RoPE turns a part of each head only", hint="use `--backend llamacpp`")
    return head_dim


def _gemma3(file: GgufFile, config: dict[str, Any]) -> dict[str, Any]:
    layers, heads, head_dim = config["num_hidden_layers"], config["num_attention_heads"], config["head_dim"]
    # Of all Gemma 3 models only 27B (62 layers) scales its queries by hidden / heads; the file does not say.
    scalar = config["hidden_size"] // heads if layers == 62 else head_dim
    window = _bounded(file, "gemma3.attention.sliding_window", 1 << 26, 0, low=0)
    softcap = file.number("gemma3.final_logit_softcapping", 0.0)
    if softcap < 0:
        raise file.error(f"`gemma3.final_logit_softcapping` is {softcap:g}, but must not be negative")
    return {
        "hidden_activation": "gelu_pytorch_tanh",
        "query_pre_attn_scalar": scalar,
        "sliding_window": window or 4096,
        "layer_types": _layer_types(file, layers) if window else ["full_attention"] * layers,
        "rope_local_base_freq": _positive(file, "gemma3.rope.freq_base_swa", 10000.0),
        "attn_logit_softcapping": None,
        "final_logit_softcapping": softcap or None,
    }


def _layer_types(file: GgufFile, layers: int) -> list[str]:
    """Which layers have a window: one for each, or all but every n-th (0: all)."""
    found = file.metadata.get("gemma3.attention.sliding_window_pattern", 6)
    if isinstance(found, list):
        if len(found) < layers or not all(item in (0, 1) for item in found):
            raise file.error("`gemma3.attention.sliding_window_pattern` does not say of each layer if it has a window")
        windowed = [bool(item) for item in found[:layers]]
    else:
        every = _bounded(file, "gemma3.attention.sliding_window_pattern", 1024, 6, low=0)
        windowed = [every == 0 or (i + 1) % every != 0 for i in range(layers)]
    return ["sliding_attention" if one else "full_attention" for one in windowed]


def _rope_scaling(file: GgufFile, arch: str, head_dim: int) -> dict[str, Any] | None:
    factor = _rope_factor(file, arch)
    if arch == "llama" and "rope_freqs.weight" in file.tensors:
        if factor != 1:
            raise NotSupported(f"{file.path.name}: RoPE is scaled twice", hint="use `--backend llamacpp`")
        return _llama3_scaling(file, arch, head_dim)
    return None if factor == 1 else {"rope_type": "linear", "factor": factor}


def _rope_factor(file: GgufFile, arch: str) -> float:
    """What all frequencies are divided by; a file that does not say how it scales them does it linearly."""
    kind = file.text(f"{arch}.rope.scaling.type", "linear")
    key = f"{arch}.rope.scaling.factor"
    if key not in file.metadata:
        key = f"{arch}.rope.scale_linear"  # as older files call it
    factor = float(f"{file.number(key, 0.0):.7g}") or 1.0
    if kind == "none":
        return 1.0
    if kind != "linear" and (kind != "yarn" or factor != 1):
        raise NotSupported(
            f"{file.path.name}: `{arch}.rope.scaling.type` is {kind[:40]!r}, which is not supported",
            hint="use `--backend llamacpp`",
        )
    if factor < 1:
        raise NotSupported(f"{file.path.name}: `{key}` is {factor:g}, below 1", hint="use `--backend llamacpp`")
    return factor


def _llama3_scaling(file: GgufFile, arch: str, head_dim: int) -> dict[str, Any]:
    """Llama 3.x stores the result of its scaling, a divisor per frequency; find the settings that give it."""
    if file.tensors["rope_freqs.weight"].shape != (head_dim // 2,):
        raise file.error("`rope_freqs.weight` has the wrong shape")
    divisors = file.dequantize("rope_freqs.weight").astype(np.float64)
    factor, low, high, original = float(divisors.max()), 1.0, 4.0, 8192
    inverse = file.number(f"{arch}.rope.freq_base", 10000.0) ** (-np.arange(0, head_dim, 2) / head_dim)
    turns = original * inverse / (2 * np.pi)
    smooth = np.clip((turns - low) / (high - low), 0, 1)
    expected = 1 / ((1 - smooth) / factor + smooth)
    if not np.allclose(divisors, expected, rtol=1e-3):
        raise NotSupported(f"{file.path.name}: its RoPE factors are not Llama 3's", hint="use `--backend llamacpp`")
    return {
        "rope_type": "llama3",
        "factor": round(factor, 4),
        "low_freq_factor": low,
        "high_freq_factor": high,
        "original_max_position_embeddings": original,
    }


def _rows(file: GgufFile, name: str) -> int:
    tensor = file.tensors.get(name)
    if tensor is None:
        raise file.error(f"tensor `{name}` is missing")
    return tensor.shape[0]


def _tensors(file: GgufFile, arch: str, config: dict[str, Any]) -> tuple[Renamed, ...]:
    hidden, vocab, inner = config["hidden_size"], config["vocab_size"], config["intermediate_size"]
    q = config["num_attention_heads"] * config["head_dim"]
    kv = config["num_key_value_heads"] * config["head_dim"]
    shapes = {
        "norm": (hidden,),
        "head": (config["head_dim"],),
        "q": (q, hidden),
        "kv": (kv, hidden),
        "o": (hidden, q),
        "up": (inner, hidden),
        "down": (hidden, inner),
        "q_bias": (q,),
        "kv_bias": (kv,),
        "table": (vocab, hidden),
    }
    needed = ("attn_q.bias", "attn_k.bias", "attn_v.bias") if arch == "qwen2" else ()
    biases = {key: value for key, value in _BIASES.items() if key in needed or f"blk.0.{key}" in file.tensors}
    names = _OF_ARCHITECTURE[arch] | biases
    wanted = [("token_embd.weight", "model.embed_tokens.weight", "table")]
    for layer in range(config["num_hidden_layers"]):
        wanted += [(f"blk.{layer}.{key}", f"model.layers.{layer}.{name}", kind) for key, (name, kind) in names.items()]
    wanted.append(("output_norm.weight", "model.norm.weight", "norm"))
    if not config["tie_word_embeddings"]:
        wanted.append(("output.weight", "lm_head.weight", "table"))
    return tuple(_renamed(file, arch, config, one, shapes[one[2]]) for one in wanted)


def _renamed(
    file: GgufFile, arch: str, config: dict[str, Any], wanted: tuple[str, str, str], shape: tuple[int, ...]
) -> Renamed:
    source, name, kind = wanted
    tensor = file.tensors.get(source)
    if tensor is None or tensor.shape != shape:
        what = "is missing" if tensor is None else f"has the shape {list(tensor.shape)}"
        raise Corrupt(
            f"{file.path}: tensor `{source}` {what}; the metadata asks for {list(shape)}",
            hint="download the file again, or another file of the model",
        )
    heads = 0
    if arch == "llama" and kind in ("q", "q_bias"):
        heads = config["num_attention_heads"]
    elif arch == "llama" and "attn_k" in source:
        heads = config["num_key_value_heads"]
    return Renamed(source, name, shape, heads, minus_one=arch == "gemma3" and kind in ("norm", "head"))
