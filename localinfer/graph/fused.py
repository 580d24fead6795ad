"""Stored matrices that are several of the graph's, row after row, told apart: nothing else knows that they were one."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from localinfer.errors import Corrupt
from localinfer.formats.checkpoint_files import StoredTensor
from localinfer.graph.ops import Linear
from localinfer.graph.tensors import AGAIN

_COLUMNS = ("qweight", "qzeros", "scales")
"""GPTQ's and AWQ's tensors, which have output rows along their second axis."""

_WHOLE = ("g_idx",)
"""What all rows share."""


@dataclass(frozen=True, slots=True)
class Part(StoredTensor):
    """Rows, or columns, [begin, end) of the tensor `whole`; `name` is what the part is called."""

    whole: StoredTensor
    axis: int
    begin: int
    end: int

    def read(self) -> NDArray[Any]:
        if self.axis == 0:
            return self.whole.read_rows(self.begin, self.end)
        return np.ascontiguousarray(self.whole.read()[:, self.begin : self.end])

    def read_rows(self, first: int, last: int | None) -> NDArray[Any]:
        if self.axis == 0:
            return self.whole.read_rows(
                self.begin + first, self.end if last is None else min(self.end, self.begin + last)
            )
        return self.read()[first:last]


@dataclass(frozen=True, slots=True)
class Shared(StoredTensor):
    """The tensor `whole` under the name of one of its parts."""

    whole: StoredTensor

    def read(self) -> NDArray[Any]:
        return self.whole.read()

    def read_rows(self, first: int, last: int | None) -> NDArray[Any]:
        return self.whole.read_rows(first, last)


@dataclass(frozen=True, slots=True)
class Shape(StoredTensor):
    """What `weight_shape` says of a part, which is not stored; its whole must say what `whole` should."""

    whole: StoredTensor
    expected: tuple[int, ...]
    shape: tuple[int, ...]

    def read(self) -> NDArray[Any]:
        said = tuple(int(x) for x in self.whole.read())
        if said != self.expected:
            raise Corrupt(f"tensor `{self.whole.name}` says {list(said)}, not {list(self.expected)}", hint=AGAIN)
        return np.array(self.shape, np.int64)


def told_apart(
    stored: Mapping[str, StoredTensor], fused: Mapping[str, tuple[str, ...]], linears: Iterable[Linear]
) -> dict[str, StoredTensor]:
    """`stored` with each tensor of a fused matrix replaced by those of its parts. `fused` has the ends of names, and
    `linears` the graph's matrices. Raises `Corrupt` for a tensor that cannot be cut where the parts meet."""
    sizes = {part: linear for linear in linears for parts in fused.values() for part in parts if _is(linear.name, part)}
    found: dict[str, StoredTensor] = {}
    for name, tensor in stored.items():
        module, _, kind = name.rpartition(".")
        whole = next((one for one in fused if _is(module, one)), None)
        if whole is None:
            found[name] = tensor
            continue
        parts = fused[whole]
        rows = [sizes[part].rows for part in parts]
        for i, part in enumerate(parts):
            ours = f"{module.removesuffix(whole)}{part}.{kind}"
            if ours in stored:
                raise Corrupt(f"tensor `{ours}` is stored twice, once in `{name}`", hint=AGAIN)
            found[ours] = _part(tensor, ours, kind, (sum(rows[:i]), sum(rows[: i + 1]), sum(rows)), sizes[part].cols)
    return found


def _is(name: str, end: str) -> bool:
    return name == end or name.endswith(f".{end}")


def _part(tensor: StoredTensor, name: str, kind: str, rows: tuple[int, int, int], cols: int) -> StoredTensor:
    """Rows (first, end, of all) of one of the matrix's tensors."""
    first, end, total = rows
    shape, info = tensor.info.shape, tensor.info
    if kind == "weight_shape":
        return Shape(tensor.file, name, info, tensor, (total, cols), (end - first, cols))
    if kind in _WHOLE or prod(shape) == 1:
        return Shared(tensor.file, name, info, tensor)
    axis = 1 if kind in _COLUMNS else 0
    along = shape[axis] if axis < len(shape) else 0
    if along == 0 or first * along % total or end * along % total:
        raise Corrupt(
            f"tensor `{tensor.name}` is {list(shape)}, which cannot be cut into the matrices of {total} rows that "
            "config.json asks for",
            hint=AGAIN,
        )
    begin, stop = first * along // total, end * along // total
    cut = (*shape[:axis], stop - begin, *shape[axis + 1 :])
    step = info.nbytes // along
    start = info.begin + begin * step if axis == 0 else info.begin
    part = replace(info, shape=cut, begin=start, end=start + (stop - begin) * step)
    return Part(tensor.file, name, part, tensor, axis, begin, stop)
