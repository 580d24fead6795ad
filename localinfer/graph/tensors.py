"""The tensors of a checkpoint by the names the graph gives them; each is checked against what the config asks for."""

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from localinfer.errors import Corrupt, NotSupported
from localinfer.formats.bf16 import to_bf16
from localinfer.formats.checkpoint_files import StoredTensor
from localinfer.graph.stored import require_finite, widen

AGAIN = "download the model again; its weights do not belong to its config.json"
FLOATS = ("BF16", "F16", "F32")
_PIECE = 1 << 20  # values compared at once


class Tensors:
    """`{name: place}`, and which of them the graph has asked for."""

    def __init__(self, stored: dict[str, StoredTensor]) -> None:
        self.stored = stored
        self.used: set[str] = set()

    def __contains__(self, name: str) -> bool:
        return name in self.stored

    def dtype(self, name: str) -> str:
        """The format's word, empty for a tensor that is not there."""
        return self.stored[name].info.dtype if name in self.stored else ""

    def shape(self, name: str) -> tuple[int, ...]:
        """Raises `Corrupt` for a tensor that is not there."""
        if name not in self.stored:
            raise Corrupt(f"tensor `{name}` is missing", hint=AGAIN)
        return self.stored[name].info.shape

    def nbytes(self, names: Iterable[str]) -> int:
        """Bytes on disk of those of `names` that are used."""
        return sum(self.stored[name].info.nbytes for name in names if name in self.used)

    def require(self, name: str, shape: tuple[int, ...], dtypes: tuple[str, ...]) -> None:
        """The tensor is there, of that shape and one of those types, and now in use."""
        if self.shape(name) != shape:
            raise wrong_shape(name, self.shape(name), shape)
        if self.dtype(name) not in dtypes:
            raise NotSupported(
                f"tensor `{name}` has dtype {self.dtype(name)}, which is not supported; known: {', '.join(dtypes)}",
                hint="use a repository with weights in bf16, f16 or f32",
            )
        self.used.add(name)

    def read(self, name: str) -> NDArray[Any]:
        """As it is stored."""
        return self.stored[name].read()

    def float32(self, name: str) -> NDArray[np.float32]:
        """A tensor of any float type. Raises `Corrupt` for NaN and infinity."""
        values = self.read(name)
        require_finite(name, values)
        return widen(values) if values.dtype == np.uint16 else values.astype(np.float32, copy=False)

    def same(self, one: str, other: str) -> bool:
        """Whether two matrices of float types are equal as they run, in bfloat16. Reads piece by piece, up to the
        first difference."""
        shape = self.shape(one)
        if shape != self.shape(other) or len(shape) != 2:
            return False
        step = max(1, _PIECE // shape[1])
        for first in range(0, shape[0], step):
            rows = slice(first, min(shape[0], first + step))
            pieces = [self.stored[name].read_rows(rows.start, rows.stop) for name in (one, other)]
            if pieces[0].dtype != pieces[1].dtype:
                pieces = [p if p.dtype == np.uint16 else to_bf16(p.astype(np.float32)) for p in pieces]
            if not np.array_equal(pieces[0].view(np.uint8), pieces[1].view(np.uint8)):
                return False
        return True

    def halves(self, name: str) -> NDArray[np.float16]:
        """Scales, as the kernels take them. Raises `Corrupt` for one that is too large for float16."""
        with np.errstate(over="ignore"):
            halves = self.float32(name).astype(np.float16)
        require_finite(name, halves)
        return halves


def wrong_shape(name: str, seen: tuple[int, ...], wanted: tuple[int, ...], how: str = "") -> Corrupt:
    """The error for a tensor of another shape than the config asks for."""
    asked = f"{list(wanted)} {how}".strip()
    return Corrupt(f"tensor `{name}` is {list(seen)}, but config.json asks for {asked}", hint=AGAIN)
