"""GGUF files: our own header reader, which checks every count, length and offset against the size of the file.

Only then are a tensor's bytes read and handed to the `gguf` package's dequantizer.
"""

import functools
import re
import struct
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from localinfer.errors import Corrupt, NotFound, NotSupported
from localinfer.formats.json_files import shown
from localinfer.formats.ranges import RangedFile

MAX_HEADER = 512 << 20
MAX_KEYS = 1 << 16
MAX_TENSORS = 1 << 16
MAX_PARTS = 1 << 10
MAX_ITEMS = 1 << 22
MAX_KEY = 1 << 16
MAX_NAME = 512
MAX_ALIGNMENT = 1 << 20
_AGAIN = "download the file again; it is damaged or was not written by a known tool"
_SCALARS = ["<u1", "<i1", "<u2", "<i2", "<u4", "<i4", "<f4", "?", "", "", "<u8", "<i8", "<f8"]
_BOOL, _STRING, _ARRAY = 7, 8, 9

Value = int | float | bool | str | list[int] | list[float] | list[bool] | list[str]


@dataclass(frozen=True, slots=True)
class GgufTensor:
    """One tensor: ggml type name, shape (slowest axis first), byte range `[begin, end)` in the file."""

    type: str
    shape: tuple[int, ...]
    begin: int
    end: int
    part: int = 0
    """Which of a model's files it lies in."""

    @property
    def rows(self) -> int:
        """How many rows of the last axis it has."""
        return prod(self.shape[:-1])

    @property
    def row_bytes(self) -> int:
        return (self.end - self.begin) // self.rows


class GgufFile:
    """A GGUF model (version 2 or 3, little endian) whose whole header was checked.

    A model split into files named `…-00001-of-00003.gguf` is opened by any one of them; `path` is then its first.
    Raises `NotFound`, `Corrupt` (naming the field) or `NotSupported` (version, byte order).
    """

    path: Path

    def __init__(self, path: Path) -> None:
        found = _Part(path)
        count = found.integer("split.count", 0)
        parts = _all_parts(found, count) if count > 1 else [found]
        self.path = parts[0].path
        self.paths = tuple(part.path for part in parts)
        self.metadata: dict[str, Value] = parts[0].metadata
        self.tensors: dict[str, GgufTensor] = {}
        for number, part in enumerate(parts):
            for name, tensor in part.tensors.items():
                if name in self.tensors:
                    raise part.error(f"tensor `{name}` is in another part, too")
                self.tensors[name] = replace(tensor, part=number)
        self._files = [part.file for part in parts]
        if count > 1 and (said := parts[0].integer("split.tensors.count", len(self.tensors))) != len(self.tensors):
            raise parts[0].error(f"its {count} parts hold {len(self.tensors)} tensors, not {said}")

    @property
    def size(self) -> int:
        """Bytes of all its files."""
        return sum(file.size for file in self._files)

    def raw(self, name: str, first: int = 0, last: int | None = None) -> NDArray[np.uint8]:
        """Rows `first` to `last` - 1 of the last axis as they are stored, uint8 [rows, bytes of one]."""
        tensor = self.tensors[name]
        last = tensor.rows if last is None else last
        out = np.empty((last - first, tensor.row_bytes), np.uint8)
        self._files[tensor.part].read_into(out, tensor.begin + first * tensor.row_bytes, f"`{name}`")
        return out

    def dequantize(self, name: str) -> NDArray[np.float32]:
        """The tensor as float32 in its shape. Raises `NotSupported` for a type without a dequantizer."""
        return self.dequantized(name, self.raw(name)).reshape(self.tensors[name].shape)

    def dequantized(self, name: str, raw: NDArray[np.uint8]) -> NDArray[np.float32]:
        """What `raw` rows of the tensor mean, float32 [rows, columns]; a scale may be infinite, and so the values."""
        from gguf import GGMLQuantizationType
        from gguf.quants import dequantize

        kind = self.tensors[name].type
        try:
            with np.errstate(all="ignore"):
                values = dequantize(raw, GGMLQuantizationType[kind])
        except NotImplementedError as error:
            raise NotSupported(
                f"{self.path.name}: `{name}` has type {kind}, which cannot be dequantized here",
                hint="use another quantization of the model, or `--backend llamacpp`",
            ) from error
        return np.ascontiguousarray(values, np.float32)

    def text(self, key: str, default: str | None = None) -> str:
        """A metadata value that must be text."""
        return str(self._typed(key, str, default))

    def number(self, key: str, default: float | None = None) -> float:
        """A metadata value that must be a number."""
        value = self._typed(key, (int, float), default)
        if isinstance(value, bool) or not np.isfinite(value):
            raise self.error(f"`{key}` must be a number")
        return float(value)

    def integer(self, key: str, default: int | None = None) -> int:
        """A metadata value that must be a whole number."""
        value = self._typed(key, int, default)
        if isinstance(value, bool):
            raise self.error(f"`{key}` must be a whole number")
        return int(value)

    def _typed(self, key: str, kind: Any, default: Any) -> Any:
        value = self.metadata.get(key, default)
        if value is None:
            raise self.error(f"`{key}` is missing")
        if not isinstance(value, kind):
            raise self.error(f"`{key}` has the wrong type")
        return value

    def error(self, what: str) -> Corrupt:
        return Corrupt(f"{self.path}: {what}", hint=_AGAIN)


class _Part(GgufFile):
    """One file alone: its own metadata and tensors."""

    file: RangedFile

    def __init__(self, path: Path) -> None:
        self.path = path
        self.paths = (path,)
        self.file = RangedFile(path)
        self._files = [self.file]
        self.metadata = {}
        self.tensors = {}
        self.file.with_handle(lambda handle: _Header(self, handle).read())


_PART_NAME = re.compile(r"(.+)-(\d{5})-of-(\d{5})\.gguf", re.IGNORECASE | re.DOTALL)


def _all_parts(found: _Part, count: int) -> list[_Part]:
    """All files of a split model, in order, of which `found` is one. Raises `NotFound` naming one that is missing."""
    number, name = found.integer("split.no", 0), _PART_NAME.fullmatch(found.path.name)
    if not 0 <= number < count <= MAX_PARTS:
        raise found.error(f"says it is part {number + 1} of {count}")
    if name is None or (int(name[2]), int(name[3])) != (number + 1, count):
        raise NotSupported(
            f"{found.path.name}: is part {number + 1} of {count} of a model, which its name does not say",
            hint=f"call the parts `NAME-{1:05d}-of-{count:05d}.gguf` and so on, in one folder",
        )
    parts = []
    for other in range(count):
        path = found.path.with_name(f"{name[1]}-{other + 1:05d}-of-{count:05d}{found.path.suffix}")
        if other != number and not path.is_file():
            raise NotFound(
                f"{path}: no such file; `{found.path.name}` is part {number + 1} of {count}",
                hint="put all parts of the model into one folder",
            )
        part = found if other == number else _Part(path)
        if (part.integer("split.no", 0), part.integer("split.count", 0)) != (other, count):
            raise part.error(f"does not say that it is part {other + 1} of {count}")
        parts.append(part)
    return parts


class _Header:
    """Reads the header front to back through a small buffer; never asks for more than the file still has."""

    def __init__(self, target: "_Part", handle: int) -> None:
        self._target = target
        self._stream = open(handle, "rb", buffering=1 << 16, closefd=False)  # noqa: SIM115
        self._position = 0
        self._types = _tensor_types()

    def read(self) -> None:
        target = self._target
        magic = self._take(4, "the magic")
        if magic != b"GGUF":
            raise Corrupt(f"{target.path}: is not a GGUF file (it begins with {magic!r})", hint="check the path")
        version = self._u32("the version")
        if version not in (2, 3):
            what = "big endian" if version in (2 << 24, 3 << 24) else f"of version {version}"
            raise NotSupported(f"{target.path}: is {what}", hint="little-endian GGUF files of version 2 and 3 are read")
        tensors, keys = self._u64("tensor count"), self._u64("key count")
        if tensors > MAX_TENSORS or keys > MAX_KEYS:
            raise target.error(f"says it has {tensors} tensors and {keys} keys, more than is believable")
        for _ in range(keys):
            self._pair()
        alignment = target.metadata.get("general.alignment", 32)
        if type(alignment) is not int or not 8 <= alignment <= MAX_ALIGNMENT or alignment & (alignment - 1):
            raise target.error(f"`general.alignment` is {str(alignment)[:40]}, not a power of two")
        relative = [self._tensor() for _ in range(tensors)]
        start = -(-self._position // alignment) * alignment
        self._locate(relative, start, alignment)

    def _pair(self) -> None:
        key = self._string("a key", MAX_KEY)
        if not key or key in self._target.metadata:
            raise self._target.error(f"the key {key[:80]!r} is empty or there twice")
        self._target.metadata[key] = self._value(key, self._u32(f"the type of `{shown(key)}`"))

    def _value(self, key: str, kind: int) -> Value:
        where = f"`{shown(key)}`"
        if kind == _STRING:
            return self._string(where, MAX_HEADER)
        if kind != _ARRAY:
            value: Value = self._scalars(kind, 1, where)[0]
            return value
        item, count = self._u32(where), self._u64(where)
        if item == _ARRAY:
            raise NotSupported(f"{self._target.path}: {where} is an array of arrays", hint="use another GGUF file")
        if item != _STRING:
            return self._scalars(item, count, where)
        if count > MAX_ITEMS or count * 8 > self._left():
            raise self._target.error(f"{where} says it has {count} strings, more than the file holds")
        return [self._string(where, MAX_KEY) for _ in range(count)]

    def _scalars(self, kind: int, count: int, where: str) -> list[Any]:
        if kind >= len(_SCALARS) or not _SCALARS[kind]:
            raise self._target.error(f"{where} has the unknown type {kind}")
        dtype = np.dtype(_SCALARS[kind])
        if count > MAX_ITEMS:
            raise self._target.error(f"{where} says it has {count} values, more than is believable")
        data = self._take(count * dtype.itemsize, where)
        if kind == _BOOL and data.strip(b"\0\1"):
            raise self._target.error(f"{where} is neither true nor false")
        values: list[Any] = np.frombuffer(data, dtype).tolist()
        return values

    def _tensor(self) -> tuple[str, GgufTensor]:
        """Name and place, counted from the start of the data, of the next tensor."""
        name = self._string("a tensor's name", MAX_NAME)
        where = f"tensor `{shown(name)}`"
        if not name or not name.isprintable():
            raise self._target.error(f"{where}: is not a tensor's name")
        rank = self._u32(where)
        if not 1 <= rank <= 4:
            raise self._target.error(f"{where} has {rank} dimensions, not 1 to 4")
        dims = [self._u64(where) for _ in range(rank)]
        kind, offset = self._u32(where), self._u64(where)
        if kind not in self._types:
            raise NotSupported(
                f"{self._target.path}: {where} has the unknown type {kind}", hint="use another GGUF file"
            )
        word, block, size = self._types[kind]
        if min(dims) < 1 or max(dims) > 1 << 40 or dims[0] % block:
            raise self._target.error(f"{where} of type {word} cannot have the dimensions {dims}")
        count = 1
        for dim in dims:
            count *= dim
        return name, GgufTensor(word, tuple(reversed(dims)), offset, offset + count // block * size)

    def _locate(self, relative: list[tuple[str, GgufTensor]], start: int, alignment: int) -> None:
        """Move the byte ranges from the start of the data to the start of the file; they may not touch each other."""
        target, position = self._target, start
        for name, tensor in sorted(relative, key=lambda one: one[1].begin):
            begin, end = start + tensor.begin, start + tensor.end
            if begin % alignment or begin < position:
                raise target.error(f"tensor `{name}` begins at byte {begin}, unaligned or inside another one")
            if end > target.size:
                raise target.error(f"tensor `{name}` ends at byte {end}, but the file has {target.size}")
            if name in target.tensors:
                raise target.error(f"tensor `{name}` is there twice")
            target.tensors[name] = GgufTensor(tensor.type, tensor.shape, begin, end)
            position = end

    def _left(self) -> int:
        return min(self._target.size, MAX_HEADER) - self._position

    def _take(self, count: int, what: str) -> bytes:
        if count > self._left():
            raise self._target.error(f"{what} needs {count} bytes at {self._position}, but the file has no more")
        data = self._stream.read(count)
        if len(data) != count:
            raise self._target.error(f"{what} is cut short")
        self._position += count
        return data

    def _u32(self, what: str) -> int:
        return int(struct.unpack("<I", self._take(4, what))[0])

    def _u64(self, what: str) -> int:
        return int(struct.unpack("<Q", self._take(8, what))[0])

    def _string(self, what: str, limit: int) -> str:
        length = self._u64(what)
        if length > limit:
            raise self._target.error(f"{what} is {length} bytes long, more than is believable")
        try:
            return self._take(length, what).decode("utf-8")
        except UnicodeDecodeError as error:
            raise self._target.error(f"{what} is not UTF-8") from error


@functools.cache
def _tensor_types() -> dict[int, tuple[str, int, int]]:
    """ggml type number → (name, values a block, bytes a block)."""
    from gguf.constants import GGML_QUANT_SIZES

    return {int(kind): (kind.name, block, size) for kind, (block, size) in GGML_QUANT_SIZES.items()}
