"""Safetensors files: a reader that trusts nothing in the header, and a writer that leaves whole files only.

The format is 8 bytes of header length (little endian), a JSON header, and the tensors' bytes, without holes. The reader
is stricter than the format's own library (no key twice, no empty tensors, bounded counts), and checks every number
against the size of the file before it allocates or reads.
"""

import json
import math
import os
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from localinfer.errors import Corrupt, NotSupported
from localinfer.formats.durable import sync, write_failed
from localinfer.formats.json_files import parse_json, shown
from localinfer.formats.ranges import RangedFile

MAX_HEADER = 100_000_000
"""The format's own cap on the header, in bytes."""

MAX_TENSORS = 1 << 16
MAX_RANK = 8
MAX_NAME = 512
MAX_DIMENSION = 1 << 48

_BITS = {
    **dict.fromkeys(("F64", "I64", "U64", "C64"), 64),
    **dict.fromkeys(("F32", "I32", "U32"), 32),
    **dict.fromkeys(("F16", "BF16", "I16", "U16"), 16),
    **dict.fromkeys(("I8", "U8", "BOOL", "F8_E4M3", "F8_E5M2", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ"), 8),
    "F6_E2M3": 6,
    "F6_E3M2": 6,
    "F4": 4,
}
_NUMPY: dict[str, str] = {
    "F64": "<f8",
    "F32": "<f4",
    "F16": "<f2",
    "BF16": "<u2",
    "I64": "<i8",
    "I32": "<i4",
    "I16": "<i2",
    "I8": "i1",
    "U64": "<u8",
    "U32": "<u4",
    "U16": "<u2",
    "U8": "u1",
    "BOOL": "?",
    "F8_E4M3": "u1",  # numpy has no such floats: their codes
}
_WRITTEN = {"F32": "float32", "F16": "float16", "BF16": "bfloat16", "I64": "int64", "I32": "int32", "U8": "uint8"}
_STARTS = (
    (b"version https://git-lfs", "is a git-LFS pointer, not the file itself", "run `git lfs pull` in that repository"),
    (b"<", "is a web page, not a safetensors file", "download the file again"),
    (b"PK\x03\x04", "is a pickle (zip) file, which can run code and is never opened", "use a safetensors repository"),
    (b"\x80", "is a pickle file, which can run code and is never opened", "use a safetensors repository"),
    (b"GGUF", "is a GGUF file", "give it the ending .gguf and run `localinfer import FILE.gguf`"),
)
_AGAIN = "download the file again; it is damaged or was not written by a known tool"


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """One tensor: the format's dtype word, its shape, and its byte range `[begin, end)` in the file."""

    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int

    @property
    def nbytes(self) -> int:
        return self.end - self.begin


class SafetensorsFile:
    """A safetensors file whose whole header was checked. Holds no open handle; safe to use from many threads.

    Raises `NotFound`, `Corrupt` (naming the tensor or field), or `NotSupported` for a dtype word nobody defined.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.tensors: dict[str, TensorInfo] = {}
        self.metadata: dict[str, str] = {}
        self._file = RangedFile(path)
        self.size = self._file.size
        header, start = self._file.with_handle(self._read_header)
        self._check(header, start)

    def read(self, name: str) -> NDArray[Any]:
        """The tensor as a new array of its shape; BF16 comes as uint16. Raises `Corrupt` if the file changed."""
        return self.read_rows(name, 0, None)

    def read_rows(self, name: str, first: int, last: int | None) -> NDArray[Any]:
        """Rows `[first, last)` along the first axis, as a new array; `last` None means to the end."""
        info = self.tensors[name]
        if info.dtype not in _NUMPY:
            raise NotSupported(
                f"{self.path.name}: `{name}` has dtype {info.dtype}, which is not read",
                hint="use a repository with weights in bf16, f16 or f32",
            )
        dtype = np.dtype(_NUMPY[info.dtype])
        shape, begin = info.shape, info.begin
        if info.shape:
            first, last, _ = slice(first, last).indices(info.shape[0])
            last = max(first, last)
            row = info.nbytes // info.shape[0]
            shape, begin = (last - first, *info.shape[1:]), info.begin + first * row
        out = np.empty(shape, dtype)
        self._file.read_into(out, begin, f"`{name}`")
        return out

    @property
    def modified_ns(self) -> int:
        """When the file was last written; nanoseconds since 1970."""
        return self._file.modified_ns

    def opened(self) -> AbstractContextManager[int]:
        """A handle of the same, unchanged file, for what reads the tensors' bytes itself."""
        return self._file.opened()

    def _read_header(self, handle: int) -> tuple[dict[str, Any], int]:
        head = os.pread(handle, 64, 0)
        for start, what, hint in _STARTS:
            # A header of exactly 0x3c or 0x80 bytes begins with these bytes too; its ninth byte is then a brace.
            if head.startswith(start) and head[8:9] != b"{":
                raise Corrupt(f"{self.path}: {what}", hint=hint)
        length = int.from_bytes(head[:8], "little")
        if self.size < 8 or length < 2 or length > min(self.size - 8, MAX_HEADER):
            raise Corrupt(
                f"{self.path}: its header says {length} bytes, the file has {self.size}"
                f" and a header at most {MAX_HEADER}",
                hint=_AGAIN,
            )
        text = os.pread(handle, length, 8)
        if len(text) != length or not text.startswith(b"{"):
            raise Corrupt(f"{self.path}: its header is not a JSON object", hint=_AGAIN)
        header = parse_json(text, f"{self.path}: header")
        if not isinstance(header, dict):
            raise Corrupt(f"{self.path}: its header is not a JSON object", hint=_AGAIN)
        return header, 8 + length

    def _check(self, header: dict[str, Any], start: int) -> None:
        metadata = header.pop("__metadata__", {})
        if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
            raise Corrupt(f"{self.path}: `__metadata__` must map words to words", hint=_AGAIN)
        self.metadata = metadata
        if len(header) > MAX_TENSORS:
            raise Corrupt(f"{self.path}: {len(header)} tensors, but at most {MAX_TENSORS} are read", hint=_AGAIN)
        for name, entry in header.items():
            self.tensors[name] = _tensor(f"{self.path}: `{shown(name)}`", name, entry, start)
        position = start
        for name, info in sorted(self.tensors.items(), key=lambda item: item[1].begin):
            if info.begin != position:
                what = "overlaps the one before" if info.begin < position else "leaves a hole before it"
                raise Corrupt(f"{self.path}: `{name}` begins at byte {info.begin} and {what}", hint=_AGAIN)
            position = info.end
        if position != self.size:
            raise Corrupt(f"{self.path}: its tensors end at byte {position}, but the file has {self.size}", hint=_AGAIN)


def _tensor(where: str, name: str, entry: object, start: int) -> TensorInfo:
    """One header entry, checked on its own: types, ranges, and bytes = product of the shape times the dtype."""
    if not name or len(name) > MAX_NAME or not name.isprintable():
        raise Corrupt(f"{where}: is not a tensor's name (1 to {MAX_NAME} printable characters)", hint=_AGAIN)
    if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
        raise Corrupt(f"{where}: must have dtype, shape and data_offsets, and nothing else", hint=_AGAIN)
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in _BITS:
        raise NotSupported(f"{where}: dtype {shown(dtype)!r} is not known", hint="use bf16, f16 or f32 weights")
    if not _in_range(shape, MAX_DIMENSION) or len(shape) > MAX_RANK:
        raise Corrupt(f"{where}: shape must be a list of at most {MAX_RANK} whole numbers", hint=_AGAIN)
    if not _in_range(offsets, 1 << 62) or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise Corrupt(f"{where}: data_offsets must be two ascending whole numbers", hint=_AGAIN)
    bits = math.prod(shape) * _BITS[dtype]
    if bits == 0:
        raise Corrupt(f"{where}: shape {shape} holds no values", hint=_AGAIN)
    if bits % 8 or bits // 8 != offsets[1] - offsets[0]:
        raise Corrupt(
            f"{where}: shape {shape} of {dtype} is {bits // 8} bytes, data_offsets give {offsets[1] - offsets[0]}",
            hint=_AGAIN,
        )
    return TensorInfo(dtype, tuple(shape), start + offsets[0], start + offsets[1])


def _in_range(value: object, limit: int) -> bool:
    return isinstance(value, list) and all(type(item) is int and 0 <= item <= limit for item in value)


def write_safetensors(
    path: Path, tensors: Mapping[str, tuple[str, NDArray[Any]]], metadata: Mapping[str, str] | None = None
) -> None:
    """Write `{name: (dtype word, array)}` (BF16 as uint16); the file appears whole and on the disk, or not at all.

    Raises `DoesNotFit` when the disk is full. The same tensors always give the same bytes.
    """
    from safetensors import SafetensorError, TensorSpec, serialize_file

    specs = {}
    keep = []  # the library takes addresses: the arrays must live until the file is written
    for name, (dtype, array) in tensors.items():
        data = np.ascontiguousarray(array, dtype=_NUMPY[dtype])
        keep.append(data)
        specs[name] = TensorSpec(
            dtype=_WRITTEN[dtype], shape=list(array.shape), data_ptr=data.ctypes.data, data_len=data.nbytes
        )
    part = path.with_name(path.name + ".tmp")
    try:
        part.touch()
        mode = part.stat().st_mode  # what a new file gets here; the library makes its own for its eyes only
        serialize_file(specs, part, dict(metadata or {"format": "pt"}))
        part.chmod(mode)
        sync(part)
        part.replace(path)
        sync(path.parent)
    except (SafetensorError, OSError) as error:
        part.unlink(missing_ok=True)
        raise write_failed(path, sum(data.nbytes for data in keep), error) from error


def write_hollow(path: Path, tensors: Mapping[str, tuple[str, tuple[int, ...]]]) -> None:
    """Write a file of `{name: (dtype word, shape)}` with its true size, a hole instead of values.

    For those who read headers only. Raises `DoesNotFit` when the disk is full.
    """
    header, end = {}, 0
    for name, (dtype, shape) in tensors.items():
        begin, end = end, end + math.prod(shape) * _BITS[dtype] // 8
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    try:
        with path.open("xb") as file:
            file.write(len(text).to_bytes(8, "little") + text)
            file.truncate(8 + len(text) + end)
    except OSError as error:
        raise write_failed(path, len(text), error) from error
