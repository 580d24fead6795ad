"""GGUF files made from tiny checkpoints, with the changes llama.cpp's converter makes, to be imported back."""

import json
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from numpy.typing import NDArray

from localinfer.formats.checkpoint_files import open_tensors
from localinfer.formats.gguf_forms import FORMS
from tests.formats.files import gguf_bytes, gguf_tensor

ARCHITECTURE = {"llama": "llama", "qwen2": "qwen2", "qwen3": "qwen3", "gemma3_text": "gemma3"}
Pairs = dict[str, tuple[str, Any]]


Kinds = dict[str, str]
"""ggml's types by patterns of tensor names; the first that matches counts, F32 where none does."""

_SCALES = {
    "Q2_K": (80, 82),
    "Q3_K": (108,),
    "Q4_K": (0, 2),
    "Q5_K": (0, 2),
    "Q6_K": (208,),
    "TQ2_0": (64,),
    "IQ4_NL": (0,),
    "IQ4_XS": (0,),
    "IQ3_S": (0,),
    "IQ3_XXS": (0,),
    "IQ2_XXS": (0,),
}
"""Where the float16 numbers of a block lie in types that the `gguf` package reads, but cannot write."""


def gguf_of(checkpoint: Path, *, pre: str = "gpt-2", extra: Pairs | None = None, kinds: Kinds | None = None) -> bytes:
    """The tiny float32 checkpoint as a GGUF file of F32 tensors, or of `kinds`."""
    config = json.loads((checkpoint / "config.json").read_text())
    arch = ARCHITECTURE[config["model_type"]]
    tensors = [(name, _changed(arch, config, name, values)) for name, values in _tensors(checkpoint, arch)]
    pairs = _metadata(arch, config) | tokenizer_pairs(checkpoint, pre) | (extra or {})
    return pack_tensors({key: value for key, value in pairs.items() if value[1] is not None}, tensors, kinds)


def pack_tensors(pairs: Pairs, tensors: list[tuple[str, NDArray[np.float32]]], kinds: Kinds | None = None) -> bytes:
    """A GGUF file of tensors, each aligned to 32 bytes."""
    infos, data = [], b""
    for name, values in tensors:
        found = next((kind for pattern, kind in (kinds or {}).items() if fnmatch(name, pattern)), "F32")
        kind = gguf.GGMLQuantizationType[found if values.ndim > 1 else "F32"]
        infos.append(gguf_tensor(name, tuple(reversed(values.shape)), int(kind), len(data)))
        raw = blocks(kind, values)
        data += raw + bytes(-len(raw) % 32)
    return gguf_bytes(pairs, infos, data)


def blocks(kind: gguf.GGMLQuantizationType, values: NDArray[np.float32]) -> bytes:
    """`values` in the type; of those that the package cannot write, random blocks of the same size."""
    if kind.name not in _SCALES:
        return gguf.quants.quantize(np.ascontiguousarray(values, np.float32), kind).tobytes()
    block, size = gguf.GGML_QUANT_SIZES[kind]
    rng = np.random.default_rng(values.shape[0])
    made = rng.integers(0, 256, (values.size // block, size), dtype=np.uint8)
    for number, at in enumerate(_SCALES[kind.name]):
        scales = (rng.uniform(0.5, 1, len(made)) * (0.002 if number == 0 else 0.01)).astype("<f2")
        made[:, at : at + 2] = scales.view(np.uint8).reshape(-1, 2)
    return made.tobytes()


def split(pairs: Pairs, tensors: list[tuple[str, NDArray[np.float32]]], count: int) -> list[bytes]:
    """The model in `count` files: all metadata in the first, the tensors dealt out."""
    files = []
    for number in range(count):
        said: Pairs = {"split.no": ("u16", number), "split.count": ("u16", count)}
        said |= {"split.tensors.count": ("i32", len(tensors))}
        files.append(pack_tensors((pairs | said) if number == 0 else said, tensors[number::count]))
    return files


def split_of(checkpoint: Path, count: int) -> list[bytes]:
    """The tiny float32 checkpoint as `gguf_of` has it, in `count` files."""
    config = json.loads((checkpoint / "config.json").read_text())
    arch = ARCHITECTURE[config["model_type"]]
    tensors = [(name, _changed(arch, config, name, values)) for name, values in _tensors(checkpoint, arch)]
    pairs = _metadata(arch, config) | tokenizer_pairs(checkpoint, "gpt-2")
    return split({key: value for key, value in pairs.items() if value[1] is not None}, tensors, count)


def _tensors(checkpoint: Path, arch: str) -> list[tuple[str, NDArray[np.float32]]]:
    files = open_tensors(checkpoint)
    names = {"model.embed_tokens.weight": "token_embd.weight", "model.norm.weight": "output_norm.weight"}
    names["lm_head.weight"] = "output.weight"
    form = next(form for form in FORMS.values() if form.arch == arch)
    biases = {source: name for _, group in form.optional for source, name in group.items()}
    for source, (ours, _) in ({**form.layer, **biases}).items():
        for layer in range(8):
            names[f"model.layers.{layer}.{ours}"] = f"blk.{layer}.{source}"
    return [(names[name], tensor.read()) for name, tensor in files.items()]


def _changed(arch: str, config: dict[str, Any], name: str, values: NDArray[np.float32]) -> NDArray[np.float32]:
    if arch == "gemma3" and "norm" in name:
        return values + np.float32(1)
    heads = {"attn_q": config["num_attention_heads"], "attn_k": config["num_key_value_heads"]}
    part = name.split(".")[2] if name.startswith("blk.") else ""
    if arch == "llama" and part in heads:
        split = values.reshape(heads[part], 2, -1, *values.shape[1:])
        return split.swapaxes(1, 2).reshape(values.shape)
    return values


def _metadata(arch: str, config: dict[str, Any]) -> Pairs:
    head_dim = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
    window = config["sliding_window"] if arch == "gemma3" else None
    return {
        "general.architecture": ("str", arch),
        f"{arch}.embedding_length": ("u32", config["hidden_size"]),
        f"{arch}.feed_forward_length": ("u32", config["intermediate_size"]),
        f"{arch}.block_count": ("u32", config["num_hidden_layers"]),
        f"{arch}.context_length": ("u32", config["max_position_embeddings"]),
        f"{arch}.attention.head_count": ("u32", config["num_attention_heads"]),
        f"{arch}.attention.head_count_kv": ("u32", config["num_key_value_heads"]),
        f"{arch}.attention.key_length": ("u32", head_dim),
        f"{arch}.attention.value_length": ("u32", head_dim),
        f"{arch}.attention.layer_norm_rms_epsilon": ("f32", config["rms_norm_eps"]),
        f"{arch}.attention.sliding_window": ("u32", window),
        f"{arch}.rope.freq_base": ("f32", config["rope_theta"]),
        f"{arch}.rope.dimension_count": ("u32", head_dim),
    }


def tokenizer_pairs(checkpoint: Path, pre: str) -> Pairs:
    """The checkpoint's byte-level tokenizer as GGUF metadata."""
    document = json.loads((checkpoint / "tokenizer.json").read_text())
    tokens = {index: token for token, index in document["model"]["vocab"].items()}
    special = {token["id"]: token for token in document["added_tokens"]}
    tokens |= {index: token["content"] for index, token in special.items()}
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in document["model"]["merges"]]
    ids = {token: index for index, token in tokens.items()}
    return {
        "tokenizer.ggml.model": ("str", "gpt2"),
        "tokenizer.ggml.pre": ("str", pre),
        "tokenizer.ggml.tokens": ("arr", ("str", [tokens[i] for i in range(len(tokens))])),
        "tokenizer.ggml.token_type": ("arr", ("i32", [3 if i in special else 1 for i in range(len(tokens))])),
        "tokenizer.ggml.merges": ("arr", ("str", merges)),
        "tokenizer.ggml.bos_token_id": ("u32", ids["<|bos|>"]),
        "tokenizer.ggml.eos_token_id": ("u32", ids["<|im_end|>"]),
        "tokenizer.ggml.add_bos_token": ("bool", False),
        "tokenizer.chat_template": ("str", "{{ messages }}"),
    }
