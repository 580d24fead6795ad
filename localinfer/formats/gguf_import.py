"""A GGUF file turned into a Hugging Face directory: weights, tokenizer and chat template."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from localinfer.errors import Corrupt, UsageError
from localinfer.formats.bf16 import to_bf16
from localinfer.formats.durable import write_bytes, write_failed, write_json
from localinfer.formats.gguf import GgufFile
from localinfer.formats.gguf_config import Plan, plan_import
from localinfer.formats.gguf_tensors import Renamed
from localinfer.formats.gguf_tokenizer import GgufTokenizer, read_gguf_tokenizer
from localinfer.formats.layout import INDEX, SINGLE
from localinfer.formats.safetensors import write_safetensors

SHARD_BYTES = 1 << 30
"""Bytes of weights held in memory, and written to one file."""

Stored = dict[str, tuple[str, NDArray[Any]]]
"""Tensors to write: safetensors' word for the type, and the values."""


class Encoder(Protocol):
    """How weights are written."""

    @property
    def quantization(self) -> dict[str, Any] | None:
        """What config.json says of it."""
        ...

    def nbytes(self, tensor: Renamed) -> int:
        """Bytes that `encode` will take."""
        ...

    def encode(self, file: GgufFile, tensor: Renamed) -> Stored:
        """The tensor's values with the converter's changes undone. Raises `Corrupt` for NaN and infinity."""
        ...


class Bf16:
    """Every tensor as bfloat16."""

    quantization: dict[str, Any] | None = None

    def nbytes(self, tensor: Renamed) -> int:
        return 2 * count(tensor)

    def encode(self, file: GgufFile, tensor: Renamed) -> Stored:
        return {tensor.name: ("BF16", to_bf16(values_of(file, tensor)))}


def read_plan(file: GgufFile) -> tuple[Plan, GgufTokenizer]:
    """What to write for `file`, from its header. Raises `NotSupported` and `Corrupt` naming what is in the way."""
    plan = plan_import(file)
    return plan, read_gguf_tokenizer(file, plan.config["vocab_size"])


def import_gguf(
    path: Path, dest: Path, on_progress: Callable[[int, int], None] | None = None, encoder: Encoder | None = None
) -> dict[str, Any]:
    """Write the model of `path` into the new or empty directory `dest`; returns the `config.json` that was written.

    `on_progress(done, total)` counts weights (values). Without an `encoder` all weights become bfloat16. config.json is
    written last; without it this is no model. Raises `NotSupported` (architecture, key, tensor type, tokenizer),
    `Corrupt` (naming the field or tensor), `DoesNotFit`.
    """
    file = GgufFile(path)
    plan, tokenizer = read_plan(file)
    encoder = encoder or Bf16()
    try:
        dest.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise write_failed(dest, 0, error) from error
    if any(dest.iterdir()):
        raise UsageError(f"{dest}: is not empty", hint="remove it, or choose another name")
    _write_weights(file, plan.tensors, dest, encoder, on_progress or (lambda done, total: None))
    write_bytes(dest / "tokenizer.json", json.dumps(tokenizer.document, ensure_ascii=False).encode())
    write_json(dest / "tokenizer_config.json", tokenizer.config)
    ids = {"bos_token_id": tokenizer.bos_id, "eos_token_id": list(tokenizer.eos_ids), "pad_token_id": tokenizer.pad_id}
    ids = {name: value for name, value in ids.items() if value not in (None, [])}
    write_json(dest / "generation_config.json", ids)
    quantization = {} if encoder.quantization is None else {"quantization_config": encoder.quantization}
    config = plan.config | ids | quantization
    write_json(dest / "config.json", config)
    return config


def values_of(file: GgufFile, tensor: Renamed) -> NDArray[np.float32]:
    """The tensor as the original has it, float32. Raises `Corrupt` for NaN and infinity."""
    raw = file.raw(tensor.source, tensor.first, tensor.first + tensor.rows)
    values = file.dequantized(tensor.source, raw).reshape(tensor.shape)
    if not np.isfinite(values).all():
        raise not_finite(file, tensor)
    if tensor.minus_one:
        values = values - np.float32(1)
    if tensor.is_rate:
        if not (values < 0).all():
            raise Corrupt(
                f"{file.path}: `{tensor.source}` holds rates that do not decay", hint="download the file again"
            )
        values = np.log(-values)
    return in_order(values, tensor)


def in_order(values: NDArray[Any], tensor: Renamed) -> NDArray[Any]:
    """Rows of one head: (pair, side) as llama.cpp's RoPE has them → (side, pair) as the original has them; and value
    heads of delta nets. Columns may be packed, or groups."""
    if tensor.tiles:
        return tensor.tiles.here(values)
    if not tensor.rope_heads:
        return values
    return values.reshape(tensor.rope_heads, -1, 2, *values.shape[1:]).swapaxes(1, 2).reshape(values.shape)


def not_finite(file: GgufFile, tensor: Renamed) -> Corrupt:
    """The error for NaN and infinity."""
    return Corrupt(f"{file.path}: `{tensor.source}` holds NaN or infinite weights", hint="download the file again")


def count(tensor: Renamed) -> int:
    """How many weights it has."""
    return int(np.prod(tensor.shape, dtype=np.int64))


def _write_weights(
    file: GgufFile,
    tensors: tuple[Renamed, ...],
    dest: Path,
    encoder: Encoder,
    on_progress: Callable[[int, int], None],
) -> None:
    shards = _shards(tensors, encoder)
    total = sum(count(tensor) for tensor in tensors)
    done = nbytes = 0
    index: dict[str, str] = {}
    for number, shard in enumerate(shards, 1):
        name = SINGLE if len(shards) == 1 else f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        arrays: Stored = {}
        for tensor in shard:
            arrays |= encoder.encode(file, tensor)
            done += count(tensor)
            on_progress(done, total)
        nbytes += sum(array.nbytes for _, array in arrays.values())
        index |= dict.fromkeys(arrays, name)
        write_safetensors(dest / name, arrays)
    if len(shards) > 1:
        write_json(dest / INDEX, {"metadata": {"total_size": nbytes}, "weight_map": index})


def _shards(tensors: tuple[Renamed, ...], encoder: Encoder) -> list[list[Renamed]]:
    shards: list[list[Renamed]] = [[]]
    held = 0
    for tensor in tensors:
        if shards[-1] and held + encoder.nbytes(tensor) > SHARD_BYTES:
            shards.append([])
            held = 0
        shards[-1].append(tensor)
        held += encoder.nbytes(tensor)
    return shards
