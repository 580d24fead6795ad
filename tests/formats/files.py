"""Small safetensors and GGUF files, whole and broken, for tests."""

import json
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


def safetensors_bytes(header: object, data: bytes = b"", *, length: int | None = None) -> bytes:
    """A file from a header (JSON value, or bytes as they are) and its data; `length` lies about the header's size."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def entry(dtype: str, shape: Sequence[Any], begin: Any, end: Any) -> dict[str, Any]:
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}


def write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


KINDS = {"u8": 0, "i8": 1, "u16": 2, "i16": 3, "u32": 4, "i32": 5, "f32": 6, "bool": 7, "str": 8, "arr": 9, "u64": 10}
_FORMATS = {"u8": "B", "i8": "b", "u16": "H", "i16": "h", "u32": "I", "i32": "i", "f32": "f", "bool": "?", "u64": "Q"}


def gguf_string(text: str | bytes) -> bytes:
    data = text.encode() if isinstance(text, str) else text
    return struct.pack("<Q", len(data)) + data


def gguf_value(kind: str, value: Any) -> bytes:
    """A typed value: `("u32", 5)`, `("str", "x")`, `("arr", ("i32", [1, 2]))`."""
    if kind == "str":
        return gguf_string(value)
    if kind == "arr":
        item, items = value
        return struct.pack("<IQ", KINDS[item], len(items)) + b"".join(gguf_value(item, one) for one in items)
    return struct.pack("<" + _FORMATS[kind], value)


def gguf_pair(key: str, kind: str, value: Any) -> bytes:
    return gguf_string(key) + struct.pack("<I", KINDS[kind]) + gguf_value(kind, value)


def gguf_tensor(name: str | bytes, dims: Sequence[int], kind: int, offset: int) -> bytes:
    shape = struct.pack(f"<I{len(dims)}Q", len(dims), *dims)
    return gguf_string(name) + shape + struct.pack("<IQ", kind, offset)


def gguf_bytes(
    pairs: Mapping[str, tuple[str, Any]] | Sequence[bytes] = (),
    tensors: Sequence[bytes] = (),
    data: bytes = b"",
    *,
    magic: bytes = b"GGUF",
    version: int = 3,
    counts: tuple[int, int] | None = None,
    alignment: int = 32,
) -> bytes:
    """A GGUF file; `counts` (tensors, keys) lies about how many there are."""
    keys = [gguf_pair(key, *value) for key, value in pairs.items()] if isinstance(pairs, Mapping) else list(pairs)
    said = (len(tensors), len(keys)) if counts is None else counts
    head = magic + struct.pack("<IQQ", version, *said) + b"".join(keys) + b"".join(tensors)
    return head + bytes(-len(head) % alignment) + data
