"""Tensors of all experts of a layer in one, told apart: nothing else knows that they were one."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from localinfer.errors import Corrupt
from localinfer.formats.checkpoint_files import StoredTensor
from localinfer.graph.ops import Linear
from localinfer.graph.tensors import AGAIN


@dataclass(frozen=True, slots=True)
class Stack:
    """A tensor [experts, rows, …] that holds several matrices of every expert, row after row or `alternating`.

    `parts` are the graph's names in an expert. `transposed`: it is [experts, columns, rows].
    """

    parts: tuple[str, ...]
    alternating: bool = False
    transposed: bool = False


Stacks = Mapping[str, Stack]
"""By the end of the stored tensor's name."""

STACKED: Stacks = {
    "experts.gate_up_proj": Stack(("gate_proj.weight", "up_proj.weight")),
    "experts.down_proj": Stack(("down_proj.weight",)),
}
"""As transformers holds experts since its version 5."""


@dataclass(frozen=True, slots=True)
class OfExpert(StoredTensor):
    """Rows `rows` of what `whole` holds of one expert; `name` is what they are called."""

    whole: StoredTensor
    expert: int
    rows: slice
    transposed: bool

    @property
    def in_one_piece(self) -> bool:
        return not self.transposed and self.rows.step == 1

    def read(self) -> NDArray[Any]:
        (all_rows,) = self.whole.read_rows(self.expert, self.expert + 1)
        return np.ascontiguousarray((all_rows.T if self.transposed else all_rows)[self.rows])

    def read_rows(self, first: int, last: int | None) -> NDArray[Any]:
        return self.read()[first:last]


def unstacked(
    stored: Mapping[str, StoredTensor], stacks: Stacks, experts: int, linears: Iterable[Linear]
) -> dict[str, StoredTensor]:
    """`stored` with each tensor of all experts replaced by those of each. Raises `Corrupt` where the number of experts,
    or their rows, are not those of `linears`."""
    first = {linear.name.partition(".experts.0.")[2]: linear for linear in linears}
    found: dict[str, StoredTensor] = {}
    for name, tensor in stored.items():
        end = next((end for end in stacks if name.endswith(f".{end}")), None)
        if end is None:
            found[name] = tensor
            continue
        stack = stacks[end]
        rows = [first[part.rpartition(".")[0]].rows for part in stack.parts]
        _check(tensor, stack, experts, sum(rows))
        for expert in range(experts):
            for place, part in enumerate(stack.parts):
                ours = f"{name.removesuffix(end)}experts.{expert}.{part}"
                if ours in stored:
                    raise Corrupt(f"tensor `{ours}` is stored twice, once in `{name}`", hint=AGAIN)
                found[ours] = _of_expert(tensor, ours, stack, expert, place, rows)
    return found


def _check(tensor: StoredTensor, stack: Stack, experts: int, rows: int) -> None:
    shape = tensor.info.shape
    along = 2 if stack.transposed else 1
    if len(shape) <= along or shape[0] != experts or shape[along] != rows or (stack.transposed and len(shape) != 3):
        raise Corrupt(
            f"tensor `{tensor.name}` is {list(shape)}, but config.json asks for {rows} rows of each of {experts} "
            "experts",
            hint=AGAIN,
        )


def _of_expert(tensor: StoredTensor, name: str, stack: Stack, expert: int, place: int, rows: list[int]) -> StoredTensor:
    before, count = sum(rows[:place]), rows[place]
    taken = slice(place, None, len(rows)) if stack.alternating else slice(before, before + count, 1)
    info = tensor.info
    inner = (info.shape[1],) if stack.transposed else info.shape[2:]
    each = info.nbytes // info.shape[0]
    begin = info.begin + expert * each + before * (each // sum(rows))
    size = count * (each // sum(rows))
    of_part = replace(info, shape=(count, *inner), begin=begin, end=begin + size)
    return OfExpert(tensor.file, name, of_part, tensor, expert, taken, stack.transposed)
