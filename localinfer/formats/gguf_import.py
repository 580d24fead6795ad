"""A GGUF file turned into a Hugging Face directory with bf16 weights, tokenizer and chat template."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from localinfer.errors import Corrupt, UsageError
from localinfer.formats.bf16 import to_bf16
from localinfer.formats.durable import write_bytes, write_failed, write_json
from localinfer.formats.gguf import GgufFile
from localinfer.formats.gguf_config import Renamed, plan_import
from localinfer.formats.gguf_tokenizer import read_gguf_tokenizer
from localinfer.formats.layout import INDEX, SINGLE
from localinfer.formats.safetensors import write_safetensors

SHARD_BYTES = 1 << 30
"""Bytes of weights held in memory, and written to one file."""


def import_gguf(path: Path, dest: Path, on_progress: Callable[[int, int], None] | None = None) -> dict[str, Any]:
    """Write the model of `path` into the new or empty directory `dest`; returns the `config.json` that was written.

    `on_progress(done, total)` counts weights (values). config.json is written last; without it this is no model.
    Raises `NotSupported` (architecture, tensor type, tokenizer), `Corrupt` (naming the field or tensor), `DoesNotFit`.
    """
    file = GgufFile(path)
    plan = plan_import(file)
    tokenizer = read_gguf_tokenizer(file, plan.config["vocab_size"])
    try:
        dest.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise write_failed(dest, 0, error) from error
    if any(dest.iterdir()):
        raise UsageError(f"{dest}: is not empty", hint="remove it, or choose another name")
    _write_weights(file, plan.tensors, dest, on_progress or (lambda done, total: None))
    write_bytes(dest / "tokenizer.json", json.dumps(tokenizer.document, ensure_ascii=False).encode())
    write_json(dest / "tokenizer_config.json", tokenizer.config)
    ids = {"bos_token_id": tokenizer.bos_id, "eos_token_id": list(tokenizer.eos_ids), "pad_token_id": tokenizer.pad_id}
    ids = {name: value for name, value in ids.items() if value not in (None, [])}
    write_json(dest / "generation_config.json", ids)
    config = plan.config | ids
    write_json(dest / "config.json", config)
    return config


def _write_weights(
    file: GgufFile, tensors: tuple[Renamed, ...], dest: Path, on_progress: Callable[[int, int], None]
) -> None:
    shards = _shards(tensors)
    total = sum(_count(tensor) for tensor in tensors)
    done, index = 0, {}
    for number, shard in enumerate(shards, 1):
        name = SINGLE if len(shards) == 1 else f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        arrays = {}
        for tensor in shard:
            arrays[tensor.name] = ("BF16", _bf16(file, tensor))
            index[tensor.name] = name
            done += _count(tensor)
            on_progress(done, total)
        write_safetensors(dest / name, arrays)
    if len(shards) > 1:
        write_json(dest / INDEX, {"metadata": {"total_size": 2 * total}, "weight_map": index})


def _count(tensor: Renamed) -> int:
    return int(np.prod(tensor.shape, dtype=np.int64))


def _shards(tensors: tuple[Renamed, ...]) -> list[list[Renamed]]:
    shards: list[list[Renamed]] = [[]]
    held = 0
    for tensor in tensors:
        if shards[-1] and held + 2 * _count(tensor) > SHARD_BYTES:
            shards.append([])
            held = 0
        shards[-1].append(tensor)
        held += 2 * _count(tensor)
    return shards


def _bf16(file: GgufFile, tensor: Renamed) -> NDArray[np.uint16]:
    """The tensor's values as bf16, with the converter's changes undone."""
    values = file.dequantize(tensor.source)
    if not np.isfinite(values).all():
        raise Corrupt(f"{file.path}: `{tensor.source}` holds NaN or infinite weights", hint="download the file again")
    if tensor.minus_one:
        values = values - np.float32(1)
    if tensor.rope_heads:
        values = _unpermute(values, tensor.rope_heads)
    return to_bf16(values)


def _unpermute(values: NDArray[np.float32], heads: int) -> NDArray[np.float32]:
    """Rows of one head: (pair, side) as llama.cpp's RoPE has them → (side, pair) as the original has them."""
    return values.reshape(heads, -1, 2, *values.shape[1:]).swapaxes(1, 2).reshape(values.shape)
