"""A whole model: its operations in order, and what they are and keep together."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain
from math import prod

from localinfer.graph.ops import Embed, Head, LayerInputs, LayerOp, Linear, Mix, Norm, Op, numbers
from localinfer.graph.spec import ModelSpec
from localinfer.graph.states import KvState, State


@dataclass(frozen=True)
class Graph:
    """The operations in the order they run."""

    spec: ModelSpec
    embed: Embed = field(repr=False)
    layers: tuple[tuple[LayerOp, ...], ...] = field(repr=False)
    head: Head = field(repr=False)
    inputs: LayerInputs | None = field(default=None, repr=False)
    mix: Mix | None = field(default=None, repr=False)
    """What it begins with instead of the embedding: it goes on from what another one computed."""

    @property
    def body(self) -> tuple[LayerOp, ...]:
        """The operations of all layers."""
        return tuple(chain(*self.layers))

    @property
    def ops(self) -> tuple[Op, ...]:
        """All operations."""
        first = self.embed if self.mix is None else self.mix
        return (first, *(() if self.inputs is None else (self.inputs,)), *self.body, self.head)

    @cached_property
    def unquantized(self) -> frozenset[Linear]:
        """The matrices that stay floats in a quantized model."""
        return frozenset(linear for op in self.ops for linear in op.unquantized())

    @cached_property
    def gathered(self) -> frozenset[Linear]:
        """The matrices that may stay in their file, as steps read rows of them. Loading asks for each of its own."""
        return frozenset(linear for op in self.ops for linear in op.gathered())

    @property
    def tables(self) -> set[Linear]:
        """The matrices of embedding and head, which are one if they are tied, and the table of inputs by layer."""
        return {self.embed.table, self.head.table, *(() if self.inputs is None else (self.inputs.table,))}

    @property
    def not_trained(self) -> str:
        """What nothing that goes back through the layers knows, or ""."""
        return "a mixture of experts" if self.spec.mixture is not None else self.not_calibrated

    @property
    def not_calibrated(self) -> str:
        """What no method that reads calibration text knows, or ""."""
        if self.inputs is not None:
            return "a model with inputs by layer"
        return "a model with keys and values that layers share" if self.shares_kv else ""

    @property
    def not_on_cards(self) -> str:
        """What cards have no kernels for, or ""."""
        return next((lack for op in self.ops if (lack := op.not_on_cards())), "")

    @property
    def shares_kv(self) -> bool:
        """Whether some layers read keys and values of others."""
        return any(op.borrows() for op in self.body)

    def linears(self) -> Iterator[Linear]:
        """Every matrix once, in the order of use; a tied head is the embedding's own matrix."""
        yield from {linear.name: linear for op in self.ops for linear in op.linears()}.values()

    def norms(self) -> Iterator[Norm]:
        """Every norm once, in the order of use."""
        yield from dict.fromkeys(chain(*(op.norms() for op in self.ops)))

    def vectors(self) -> Iterator[tuple[str, tuple[int, ...]]]:
        """Every tensor that is no matrix, such as norm weights and biases, as (tensor name, shape)."""
        yield from chain.from_iterable(norm.vectors() for norm in self.norms())
        for linear in self.linears():
            if linear.bias:
                yield f"{linear.name}.bias", (linear.rows,)
        yield from chain(*(op.vectors() for op in self.ops))

    def vector_values(self) -> int:
        """How many numbers these hold."""
        return sum(prod(shape) for _, shape in self.vectors())

    def parameters(self) -> int:
        """How many numbers the model holds."""
        return numbers(self.linears()) + self.vector_values()

    def active_parameters(self) -> int:
        """How many numbers of matrices one row is multiplied by."""
        return sum(op.flops(1) for op in self.ops) // 2

    def states(self) -> tuple[State, ...]:
        """What a sequence keeps, of each operation that keeps something."""
        return tuple(state for op in self.ops if (state := op.state()) is not None)

    def kv(self) -> tuple[KvState, ...]:
        """Of `states()` those of keys and values."""
        return tuple(state for state in self.states() if isinstance(state, KvState))

    def kv_windows(self) -> tuple[int, ...]:
        """The windows of the groups of layers that look back equally far (`Program.kv_windows`)."""
        return tuple(dict.fromkeys(state.window for state in self.kv())) or (0,)

    @property
    def slot_bytes(self) -> int:
        """Bytes that a sequence keeps whatever its length; 0 for a model without recurrent operations."""
        return sum(state.bytes_per_sequence for state in self.states())

    def traffic(self, rows: int) -> dict[Linear, float]:
        """Every matrix with the part of it that a step of so many rows reads."""
        read: dict[Linear, float] = {}
        for linear, part in chain(*(op.traffic(rows) for op in self.ops)):
            read[linear] = max(part, read.get(linear, 0.0))
        return read


def together(ops: Iterable[LayerOp]) -> list[tuple[LayerOp, ...]]:
    """The operations in their order, those that read the same residual stream in one."""
    found: list[tuple[LayerOp, ...]] = []
    for op in ops:
        found.append((*found.pop(), op) if op.reads_before() else (op,))
    return found
