"""GGUF files made from tiny checkpoints, with the changes llama.cpp's converter makes, to be imported back."""

import json
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from numpy.typing import NDArray

from localinfer.formats.checkpoint_files import open_tensors
from localinfer.formats.gguf_config import _BIASES, _OF_ARCHITECTURE
from tests.formats.files import gguf_bytes, gguf_tensor

ARCHITECTURE = {"llama": "llama", "qwen2": "qwen2", "qwen3": "qwen3", "gemma3_text": "gemma3"}
Pairs = dict[str, tuple[str, Any]]


def gguf_of(checkpoint: Path, *, pre: str = "gpt-2", extra: Pairs | None = None) -> bytes:
    """The tiny float32 checkpoint as a GGUF file of F32 tensors."""
    config = json.loads((checkpoint / "config.json").read_text())
    arch = ARCHITECTURE[config["model_type"]]
    tensors = [(name, _changed(arch, config, name, values)) for name, values in _tensors(checkpoint, arch)]
    pairs = _metadata(arch, config) | tokenizer_pairs(checkpoint, pre) | (extra or {})
    return pack_tensors({key: value for key, value in pairs.items() if value[1] is not None}, tensors)


def pack_tensors(pairs: Pairs, tensors: list[tuple[str, NDArray[np.float32]]]) -> bytes:
    """A GGUF file of F32 tensors, each aligned to 32 bytes."""
    infos, data = [], b""
    for name, values in tensors:
        infos.append(gguf_tensor(name, tuple(reversed(values.shape)), int(gguf.GGMLQuantizationType.F32), len(data)))
        raw = values.astype("<f4").tobytes()
        data += raw + bytes(-len(raw) % 32)
    return gguf_bytes(pairs, infos, data)


def _tensors(checkpoint: Path, arch: str) -> list[tuple[str, NDArray[np.float32]]]:
    files = open_tensors(checkpoint)
    names = {"model.embed_tokens.weight": "token_embd.weight", "model.norm.weight": "output_norm.weight"}
    names["lm_head.weight"] = "output.weight"
    for source, (ours, _) in (_OF_ARCHITECTURE[arch] | _BIASES).items():
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
