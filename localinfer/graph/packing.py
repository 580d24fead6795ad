"""Matrices of a graph, packed for the kernels as they are read."""

from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Literal

from localinfer import native
from localinfer.errors import NotSupported
from localinfer.formats.checkpoint_files import StoredTensor
from localinfer.formats.safetensors import SafetensorsFile
from localinfer.graph.key_powers import AS_STORED, Changed
from localinfer.graph.ops import Linear
from localinfer.graph.prepared import AS_THEY_ARE, Orders
from localinfer.graph.stored import AffineLinear, Bf16Linear, Form, IntLinear, Mxfp4Linear, stacked
from localinfer.graph.weights import Checkpoint

OnProgress = Callable[[int, int], None]
FileJob = tuple[int, int, int, list[tuple[int, int, int, int, int]], bool, int]
"""As `native.pack_files` takes it."""


def activation_bits(checkpoint: Checkpoint) -> Literal[8, 16]:
    """Bits of the integers that activations become where they meet integer weights, body and head alike.

    16 when every matrix of the layers has 8 bits: there the rounding of activations would cost more than that of the
    weights. Narrower weights cost more than 8 bits of activation do.
    """
    graph = checkpoint.graph
    kept = graph.tables | graph.unquantized
    body = (linear for linear in graph.linears() if linear not in kept)
    return 16 if all(checkpoint.form(linear.name)[0] == 8 for linear in body) else 8


@dataclass(frozen=True, slots=True)
class Place:
    """Stands for a weight that is packed from files later, with all the others."""

    number: int


class Calls:
    """Stands for the program while the graph is gone through: keeps what is called, to be called with the weights."""

    def __init__(self) -> None:
        self.kept: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = []

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *given, **named: self.kept.append((name, given, named))


class Packer:
    """Packs the matrices of a checkpoint: at once where they need work, or all together from their files."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        target: native.Program,
        threads: int,
        files: ExitStack,
        on_progress: OnProgress,
    ) -> None:
        self.checkpoint, self.target, self.files = checkpoint, target, files
        self.on_progress, self.done = on_progress, 0
        self.total = self.bytes_of(linear for linear in checkpoint.graph.linears() if not checkpoint.in_file(linear))
        self.threads = threads
        self.activation_bits = activation_bits(checkpoint)
        self.handles: dict[SafetensorsFile, int] = {}
        self.jobs: list[tuple[tuple[Linear, ...], bool, FileJob]] = []
        self.placed: list[tuple[tuple[Linear, ...], native.Weight | Place]] = []
        self.tables: dict[str, native.Weight | Place] = {}

    def pack_placed(self, packed: dict[str, native.Weight]) -> list[native.Weight]:
        """Pack what lies in files: the weights of all places. `packed` gets the weight of each matrix."""
        sizes = [self.bytes_of(linears) for linears, _, _ in self.jobs]

        def told(done: int) -> None:
            self.on_progress(self.done + sum(sizes[:done]), self.total)

        found = native.pack_files(self.target, [job for _, _, job in self.jobs], told)
        weights = [
            self.from_arrays(linears, interleave) if weight is None else weight
            for (linears, interleave, _), weight in zip(self.jobs, found, strict=True)
        ]
        told(len(sizes))
        for linears, weight in self.placed:
            packed |= dict.fromkeys((linear.name for linear in linears), with_weights(weight, weights))
        return weights

    def table(self, linear: Linear) -> native.Weight | Place:
        """The packed matrix; embedding and head share one if they are tied."""
        if linear.name not in self.tables:
            self.tables[linear.name] = self.pack(linear)
        return self.tables[linear.name]

    def pack(
        self,
        *linears: Linear,
        interleave: bool = False,
        orders: Orders = AS_THEY_ARE,
        changed: Changed = AS_STORED,
        joined: int = 1,
    ) -> native.Weight | Place:
        """One weight of the rows of all `linears`, for one pass over the activations; the first `joined` are one part
        of it."""
        self.require_alike(linears)
        job = None if orders or changed or joined > 1 else self.file_job(linears, interleave)
        weight: native.Weight | Place
        if job is None:
            weight = self.from_arrays(linears, interleave, orders, changed, joined)
            self.done += self.bytes_of(linears)
            self.on_progress(self.done, self.total)
        else:
            weight = Place(len(self.jobs))
            self.jobs.append((linears, interleave, job))
        self.placed.append((linears, weight))
        return weight

    def now(self, *linears: Linear, interleave: bool = False) -> native.Weight:
        """The same at once, and of nobody else's interest."""
        self.require_alike(linears)
        job = self.file_job(linears, interleave)
        weight = None if job is None else native.pack_files(self.target, [job])[0]
        return self.from_arrays(linears, interleave) if weight is None else weight

    def require_alike(self, linears: tuple[Linear, ...]) -> None:
        """Raise `NotSupported` where matrices that are used together have different forms."""
        forms = [self.checkpoint.form(linear.name) for linear in linears]
        if len(set(forms)) > 1:
            kinds = (_called(form) for form in forms)
            names = ", ".join(f"`{linear.name}` {kind}" for linear, kind in zip(linears, kinds, strict=True))
            raise NotSupported(
                f"matrices that are used together are quantized differently: {names}",
                hint="use the unquantized model and run `localinfer quantize` on it",
            )

    def bytes_of(self, linears: Iterable[Linear]) -> int:
        return sum(self.checkpoint.stored_bytes(linear.name) for linear in linears)

    def file_job(self, linears: tuple[Linear, ...], interleave: bool) -> FileJob | None:
        """To pack it as it is read. None: it lies in another form."""
        bits, group = self.checkpoint.form(linears[0].name)[:2]
        parts = []
        for linear in linears:
            stored = self.checkpoint.on_disk(linear.name)
            if stored is None:
                return None
            values, scales = stored[0], stored[1] or stored[0]
            locations = (self.handle(values), values.info.begin, self.handle(scales), scales.info.begin)
            parts.append((linear.rows, *locations))
        return bits, group, linears[0].cols, parts, interleave, self.activations(bits)

    def rows(self, linear: Linear) -> native.RowFile | None:
        """The matrix in its file, which stays open. None: it must be packed. Raises `Corrupt` for a file that is too
        short."""
        stored = self.checkpoint.on_disk(linear.name) if self.checkpoint.in_file(linear) else None
        if stored is None:
            return None
        values, scales = stored[0], stored[1] or stored[0]
        at = self.handle(values), values.info.begin, self.handle(scales), scales.info.begin
        name = f"{values.file.path}: `{linear.name}`"
        return native.open_rows(*self.checkpoint.form(linear.name)[:2], linear.cols, linear.rows, at, name)

    def handle(self, tensor: StoredTensor) -> int:
        """Of its file, open until all is packed."""
        if tensor.file not in self.handles:
            self.handles[tensor.file] = self.files.enter_context(tensor.file.opened())
        return self.handles[tensor.file]

    def from_arrays(
        self,
        linears: tuple[Linear, ...],
        interleave: bool,
        orders: Orders = AS_THEY_ARE,
        changed: Changed = AS_STORED,
        joined: int = 1,
    ) -> native.Weight:
        """The slower way, which converts what it must, and names the tensor that is broken."""
        parts = [
            changed[linear.name]
            if linear.name in changed
            else self.checkpoint.linear(linear.name).rows_in(orders.get(linear.name))
            for linear in linears
        ]
        if joined > 1:
            parts = [stacked(parts[:joined]), *parts[joined:]]
        bf16 = [part.values for part in parts if isinstance(part, Bf16Linear)]
        if bf16:
            return native.pack_bf16(bf16, interleave=interleave, threads=self.threads)
        affine = [part for part in parts if isinstance(part, AffineLinear)]
        if affine:
            arrays = [part.arrays() for part in affine]
            first = affine[0]
            return native.pack_affine(first.group, first.wide, arrays, interleave, self.threads, bits=first.bits)
        floats = [part.arrays() for part in parts if isinstance(part, Mxfp4Linear)]
        if floats:
            return native.pack_mxfp4(floats, interleave, self.threads)
        bits, group = self.checkpoint.form(linears[0].name)[:2]
        packed = [(part.packed, part.scales) for part in parts if isinstance(part, IntLinear)]
        return native.pack_int(
            bits, group, packed, interleave=interleave, threads=self.threads, activation_bits=self.activations(bits)
        )

    def activations(self, bits: int) -> Literal[8, 16]:
        """For weights of `bits` bits: a table may be narrower than the layers."""
        return self.activation_bits if bits == 8 else 8


def with_weights(value: Any, weights: Sequence[native.Weight]) -> Any:
    """`value` with each place filled."""
    if isinstance(value, Place):
        return weights[value.number]
    if isinstance(value, dict):
        return {name: with_weights(item, weights) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(with_weights(item, weights) for item in value)
    return value


def _called(form: Form) -> str:
    if form[0] == 16:
        return "bf16"
    if len(form) == 3:
        return "mxfp4" if form[2] == "mxfp4" else f"int{form[0]} by {form[1]} with minima"
    return f"int{form[0]} by {form[1]}"
