"""`import`: the weights of a GGUF file keep their bits.

Types whose weights are integers times a float16 (Q8_0, Q4_0, Q5_0, IQ4_NL, Q3_K) become our integers, each weight as
it is. All others of at most 8 bits are rounded to INT8 by groups of 32, the next wider form and of those the one that
loses least; floats become bf16. What was made is opened, loaded and asked for a few tokens before it counts.
"""

import os
import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from localinfer.errors import Corrupt
from localinfer.formats.compressed import pack, packed_words, quantization_config
from localinfer.formats.gguf import GgufFile
from localinfer.formats.gguf_blocks import BLOCK, EXACT_BITS, integers_of
from localinfer.formats.gguf_import import Bf16, Encoder, Stored, count, in_order, not_finite, read_plan, values_of
from localinfer.formats.gguf_import import import_gguf as write_model
from localinfer.formats.gguf_tensors import Renamed
from localinfer.formats.tokenizer import Tokenizer
from localinfer.graph.program import load_program
from localinfer.graph.registry import read_graph
from localinfer.graph.weights import Checkpoint
from localinfer.quantize.plan import TABLES
from localinfer.quantize.scales import round_rows

OnProgress = Callable[[int, int], None]
_FLOATS = ("F32", "F16", "BF16", "F64")
_PIECE = 1 << 20  # weights that one task converts
_TOGETHER = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"), ("w1", "w3"), ("in_proj_qkv", "in_proj_z"))
"""Matrices that are loaded as one and so have one form, the widest of theirs."""
_NUMBER = re.compile(r"(?<=\\\.)\d+(?=\\\.)")
_TRIED = 4
"""Tokens that a new model must be able to say."""


class GgufImporter:
    """What `hub.importing` needs to make a model of a GGUF file; `bits` 16 makes all weights bf16, None keeps them.

    `free` is how much memory may be taken to try the result (bytes; 0: as much as it takes).
    """

    def __init__(
        self, bits: Literal[16] | None = None, *, free: int = 0, say: Callable[[str], None] | None = None
    ) -> None:
        self._bits, self._free = bits, free
        self._say = say or (lambda text: None)

    def bits_of(self, path: Path) -> int:
        """Bits of the form that `path` will have here. Raises what `write` would raise for its header."""
        file = GgufFile(path)
        plan, _ = read_plan(file)
        read_graph(plan.config)
        return 16 if self._bits == 16 else StoredBits(file, plan.tensors).narrowest

    def write(self, path: Path, dest: Path, on_progress: OnProgress | None = None) -> dict[str, Any]:
        """Write the model into the new directory `dest` and try it; returns what to keep of how it was made.

        Raises what `import_gguf` raises, and `Corrupt` when the model cannot say a few tokens.
        """
        told = self.convert(path, dest, on_progress)
        told["notes"] += try_out(dest, self._free)
        for note in told["notes"]:
            self._say(note)
        return told

    def convert(self, path: Path, dest: Path, on_progress: OnProgress | None = None) -> dict[str, Any]:
        """The same without a trial."""
        file = GgufFile(path)
        plan, tokenizer = read_plan(file)
        read_graph(plan.config)
        stored = None if self._bits == 16 else StoredBits(file, plan.tensors)
        write_model(path, dest, on_progress, stored or Bf16())
        notes = [*tokenizer.notes, *(stored.notes() if stored else ())]
        return {"notes": notes, "error": stored.errors if stored else {}}


@dataclass(slots=True)
class _Loss:
    error: float = 0.0
    power: float = 0.0

    @property
    def relative(self) -> float:
        """Root mean square of the error over that of the weights."""
        return float((self.error / self.power) ** 0.5) if self.power else 0.0


class StoredBits(Encoder):
    """Each matrix in the narrowest of our forms that holds it, which is decided from the header."""

    def __init__(self, file: GgufFile, tensors: tuple[Renamed, ...]) -> None:
        self._types = {one.name: file.tensors[one.source].type for one in tensors}
        matrices = [one for one in tensors if len(one.shape) == 2]
        self._bits = {
            one.name: 16 if one.is_float or _splits_groups(one) else _bits_of(self._types[one.name], one.shape[1])
            for one in matrices
        }
        for one in matrices:
            names = _together(one.name)
            widest = max(self._bits[name] for name in names)
            self._bits |= dict.fromkeys(names, widest)
        self._losses: dict[tuple[str, int], _Loss] = {}
        self.errors: dict[str, float] = {}
        """Relative error of each matrix that was rounded, root mean square."""

    @property
    def narrowest(self) -> int:
        """Bits of the narrowest matrix, by which the form is called."""
        return min(self._bits.values())

    @property
    def quantization(self) -> dict[str, Any] | None:
        forms = sorted({bits for bits in self._bits.values() if bits != 16})
        if not forms:
            return None
        modules = {name.removesuffix(".weight"): bits for name, bits in self._bits.items()}
        ignored = [name for name, bits in modules.items() if bits == 16]
        ignored += ["lm_head"] if "lm_head" not in modules else []
        return quantization_config([(_patterns(modules, bits), bits, BLOCK) for bits in forms], ignored)

    def nbytes(self, tensor: Renamed) -> int:
        bits = self._bits.get(tensor.name, 32)
        if bits >= 16:
            return count(tensor) * bits // 8
        rows, columns = tensor.shape
        return rows * (4 * packed_words(columns, bits) + 2 * columns // BLOCK) + 16

    def encode(self, file: GgufFile, tensor: Renamed) -> Stored:
        bits = self._bits.get(tensor.name)
        if bits is None:
            return {tensor.name: ("F32", values_of(file, tensor))}  # exact, whatever float it was
        if bits == 16:
            return self._as_bf16(file, tensor)
        packed, scales = [], []
        loss = _Loss()
        for part, group_scales, error, power in _converted(file, tensor, bits):
            packed.append(part)
            scales.append(group_scales)
            loss.error += error
            loss.power += power
        self._note(tensor, bits, loss)
        module = tensor.name.removesuffix(".weight")
        return {
            f"{module}.weight_packed": ("I32", in_order(np.concatenate(packed), tensor)),
            f"{module}.weight_scale": ("F16", in_order(np.concatenate(scales), tensor)),
            f"{module}.weight_shape": ("I64", np.array(tensor.shape, np.int64)),
        }

    def notes(self) -> Iterator[str]:
        """What became of each type, and what that cost."""
        for (kind, bits), loss in sorted(self._losses.items()):
            if kind == "BF16":
                continue
            form = "bf16" if bits == 16 else f"INT{bits} by groups of {BLOCK}"
            cost = f"a relative error of {loss.relative:.2%}" if loss.error else "exactly"
            yield f"{kind} became {form}: {cost}"

    def _as_bf16(self, file: GgufFile, tensor: Renamed) -> Stored:
        values = values_of(file, tensor)
        stored = Bf16().encode(file, tensor)
        bits = stored[tensor.name][1].astype(np.uint32) << 16
        loss = _Loss(*_squares(values - bits.view(np.float32), values))
        self._note(tensor, 16, loss)
        return stored

    def _note(self, tensor: Renamed, bits: int, loss: _Loss) -> None:
        if loss.error:
            self.errors[tensor.name] = float(f"{loss.relative:.6g}")
        total = self._losses.setdefault((self._types[tensor.name], bits), _Loss())
        total.error += loss.error
        total.power += loss.power


def _bits_of(kind: str, columns: int) -> int:
    if kind in _FLOATS or columns % BLOCK:
        return 16
    return EXACT_BITS.get(kind, 8)


def _splits_groups(tensor: Renamed) -> bool:
    """Whether columns are in another order here, in parts that are no whole groups."""
    tiles = tensor.tiles
    return tiles is not None and tiles.axis == 1 and tensor.shape[1] // (tiles.heads * tiles.each) % BLOCK != 0


def _together(name: str) -> tuple[str, ...]:
    """The matrices that `name` is loaded with, itself among them."""
    for group in _TOGETHER:
        for part in group:
            if name.endswith(f".{part}.weight"):
                return tuple(name.replace(f".{part}.", f".{other}.") for other in group)
    return (name,)


def _patterns(modules: dict[str, int], bits: int) -> list[str]:
    """Patterns for the modules of one form, one for all layers and experts where they agree."""
    kinds = {name: _NUMBER.sub(r"\\d+", re.escape(re.sub(r"^.*\.layers\.\d+\.", "", name))) for name in modules}
    forms: dict[str, set[int]] = {}
    for name, kind in kinds.items():
        forms.setdefault(kind, set()).add(modules[name])
    chosen = [name for name, width in modules.items() if width == bits]
    short = {kinds[name] if len(forms[kinds[name]]) == 1 else re.escape(name) for name in chosen}
    tables = {re.escape(name) for name in TABLES}
    return [f"re:.*{name}$" for name in sorted(short, key=lambda one: (one in tables, one))]


Piece = tuple[NDArray[np.int32], NDArray[np.float16], float, float]


def _converted(file: GgufFile, tensor: Renamed, bits: int) -> Iterator[Piece]:
    """Rows as packed integers and scales, with the squares of errors and of weights, piece by piece in order."""
    rows, columns = tensor.shape
    step = max(1, _PIECE // columns)
    starts = range(0, rows, step)
    with ThreadPoolExecutor(os.cpu_count() or 1, thread_name_prefix="import") as pool:
        tasks = [pool.submit(_piece, file, tensor, bits, first, min(rows, first + step)) for first in starts]
        try:
            for task in tasks:
                yield task.result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _piece(file: GgufFile, tensor: Renamed, bits: int, first: int, last: int) -> Piece:
    kind = file.tensors[tensor.source].type
    raw = file.raw(tensor.source, tensor.first + first, tensor.first + last)
    values = None if kind in ("Q8_0", "Q4_0") else file.dequantized(tensor.source, raw)
    if values is not None and not np.isfinite(values).all():
        raise not_finite(file, tensor)
    if kind in EXACT_BITS:
        try:
            integers, scales = integers_of(kind, raw, values)
        except ValueError as error:
            raise not_finite(file, tensor) from error
        if not np.isfinite(scales).all():
            raise not_finite(file, tensor)
        return pack(integers, bits), scales, 0.0, 1.0
    assert values is not None
    try:
        rounded = round_rows(values, bits, BLOCK)
    except OverflowError as error:
        raise Corrupt(
            f"{file.path}: `{tensor.source}` holds weights too large for INT8 ({error})",
            hint="the model is broken; or import it with `--bits 16`",
        ) from error
    return pack(rounded.values, bits), rounded.scales, rounded.error, rounded.power


def _squares(difference: NDArray[np.float32], values: NDArray[np.float32]) -> tuple[float, float]:
    return tuple(float(np.square(one, dtype=np.float64).sum()) for one in (difference, values))  # type: ignore[return-value]


def try_out(directory: Path, free: int = 0) -> list[str]:
    """Open what was written, load it and let it say a few tokens; returns what could not be tried.

    Raises `NotSupported` and `Corrupt` naming what is in the way, such as scores that are no numbers.
    """
    tokenizer, checkpoint = Tokenizer(directory), Checkpoint(directory)
    vocab = checkpoint.spec.vocab_size
    if tokenizer.vocab_size > vocab:
        raise Corrupt(f"the tokenizer has {tokenizer.vocab_size} tokens, the weights {vocab}", hint="report this")
    if free and checkpoint.nbytes > free:
        return ["it was not tried: its weights are larger than the memory that is free"]
    program = load_program(checkpoint, context=BLOCK, kv_blocks=1, kv_bits=16)
    tokens = tokenizer.encode_text("Hello")[: BLOCK - _TRIED] or [tokenizer.eos_ids[0] if tokenizer.eos_ids else 0]
    if tokenizer.adds_bos and tokenizer.bos_id is not None:
        tokens = [tokenizer.bos_id, *tokens]
    blocks, out = np.zeros((1, 1), np.int32), np.empty((1, vocab), np.float32)
    at = 0
    for step in range(_TRIED):
        positions = np.arange(at, at + len(tokens), dtype=np.int32)
        last = np.array([len(tokens) - 1], np.int32)
        program.step(np.array(tokens, np.int32), positions, np.zeros(len(tokens), np.int32), blocks, last, out)
        if not np.isfinite(out).all():
            bad = prod(out.shape) - int(np.isfinite(out).sum())
            raise Corrupt(
                f"the model gives {bad} scores that are no finite numbers at token {step + 1}",
                hint="its weights are damaged, or too large for its arithmetic; use another file of the model",
            )
        at, tokens = at + len(tokens), [int(out[0].argmax())]
    tokenizer.decode(tokens)
    return []
