"""`import`: the weights of a GGUF file keep their bits.

Types whose weights are integers times a float16 (Q8_0, Q4_0, Q5_0, IQ4_NL, Q3_K) become our integers, each weight as
it is; so do those with minima (Q4_1, Q4_K, Q5_1, Q5_K). All others of at most 8 bits are rounded to INT8 by groups of
32, the next wider form and of those the one that loses least; MXFP4 stays what it is, and floats become bf16. What was
made is opened, loaded and asked for a few tokens before it counts.
"""

import os
import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from localinfer.errors import Corrupt
from localinfer.formats.compressed import INTEGERS, MINIMA, MXFP4, pack, packed_words, quantization_config
from localinfer.formats.gguf import GgufFile
from localinfer.formats.gguf_blocks import AFFINE, BLOCK, BLOCK_BYTES, EXACT_BITS, affine_of, integers_of, mxfp4_of
from localinfer.formats.gguf_import import Bf16, Encoder, Stored, count, in_order, not_finite, read_plan, values_of
from localinfer.formats.gguf_import import import_gguf as write_model
from localinfer.formats.gguf_tensors import Renamed
from localinfer.formats.tokenizer import Tokenizer
from localinfer.graph.program import load_program
from localinfer.graph.registry import read_graph
from localinfer.graph.stored import LARGEST_POWER
from localinfer.graph.weights import Checkpoint
from localinfer.quantize.plan import TABLES
from localinfer.quantize.scales import round_rows

OnProgress = Callable[[int, int], None]
_FLOATS = ("F32", "F16", "BF16", "F64")
_PIECE = 1 << 20  # weights that one task converts
_TOGETHER = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"), ("w1", "w3"), ("in_proj_qkv", "in_proj_z"))
"""Matrices that are loaded as one and so have one form, the widest of theirs."""
_NUMBER = re.compile(r"(?<=\\\.)\d+(?=\\\.)")
_Form = tuple[int, int | str]
"""Bits, and with minima the columns that share theirs, else 0; or `_OF_MXFP4`."""
_OF_MXFP4: _Form = (4, MXFP4)
_FLOAT: _Form = (16, 0)
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
        notes = [*tokenizer.notes, *plan.notes, *(stored.notes() if stored else ())]
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
        matrices = [one for one in tensors if len(one.shape) == 2 and one.name.endswith(".weight")]
        self._forms = {one.name: _form_of(self._types[one.name], one) for one in matrices}
        for one in matrices:
            names = [name for name in _together(one.name) if name in self._forms]  # an MLP may have no gate
            if len({self._forms[name] for name in names}) > 1:
                least = 8 if any(self._forms[name][1] for name in names) else 0  # with minima, or MXFP4
                widest = max(least, *(self._forms[name][0] for name in names))
                self._forms |= dict.fromkeys(names, (widest, 0))
        self._losses: dict[tuple[str, _Form], _Loss] = {}
        self.errors: dict[str, float] = {}
        """Relative error of each matrix that was rounded, root mean square."""

    @property
    def narrowest(self) -> int:
        """Bits of the narrowest matrix, by which the form is called."""
        return min(bits for bits, _ in self._forms.values())

    @property
    def quantization(self) -> dict[str, Any] | None:
        forms = sorted({form for form in self._forms.values() if form != _FLOAT}, key=str)
        if not forms:
            return None
        modules = {name.removesuffix(".weight"): form for name, form in self._forms.items()}
        ignored = [name for name, form in modules.items() if form == _FLOAT]
        ignored += ["lm_head"] if "lm_head" not in modules else []
        groups = [(_patterns(modules, form), form[0], BLOCK, _format(form)) for form in forms]
        return quantization_config(groups, ignored)

    def nbytes(self, tensor: Renamed) -> int:
        bits, wide = self._forms.get(tensor.name, (32, 0))
        if bits >= 16:
            return count(tensor) * bits // 8
        rows, columns = tensor.shape
        if isinstance(wide, str):
            return rows * (columns // 2 + columns // BLOCK)
        if wide:
            return rows * (4 * packed_words(columns, bits) + 4 * columns // wide + 2 * columns // BLOCK)
        return rows * (4 * packed_words(columns, bits) + 2 * columns // BLOCK) + 16

    def encode(self, file: GgufFile, tensor: Renamed) -> Stored:
        if tensor.name not in self._forms:
            return {tensor.name: ("F32", values_of(file, tensor))}  # exact, whatever float it was
        bits, wide = self._forms[tensor.name]
        if bits == 16:
            return self._as_bf16(file, tensor)
        if isinstance(wide, str):
            return self._as_mxfp4(file, tensor)
        if wide:
            return self._with_minima(file, tensor)
        packed, scales = [], []
        loss = _Loss()
        for part, group_scales, error, power in _pieces(tensor, lambda rows: _piece(file, tensor, bits, *rows)):
            packed.append(part)
            scales.append(group_scales)
            loss.error += error
            loss.power += power
        self._note(tensor, loss)
        module = tensor.name.removesuffix(".weight")
        return {
            f"{module}.weight_packed": ("I32", in_order(np.concatenate(packed), tensor)),
            f"{module}.weight_scale": ("F16", in_order(np.concatenate(scales), tensor)),
            f"{module}.weight_shape": ("I64", np.array(tensor.shape, np.int64)),
        }

    def notes(self) -> Iterator[str]:
        """What became of each type, and what that cost."""
        for (kind, (bits, wide)), loss in sorted(self._losses.items(), key=str):
            if kind == "BF16":
                continue
            form = "bf16" if bits == 16 else f"INT{bits} by groups of {BLOCK}{' with minima' if wide else ''}"
            form = "MXFP4" if wide == MXFP4 else form
            cost = f"a relative error of {loss.relative:.2%}" if loss.error else "exactly"
            yield f"{kind} {'stayed' if form == kind else 'became'} {form}: {cost}"

    def _as_bf16(self, file: GgufFile, tensor: Renamed) -> Stored:
        values = values_of(file, tensor)
        stored = Bf16().encode(file, tensor)
        bits = stored[tensor.name][1].astype(np.uint32) << 16
        loss = _Loss(*_squares(values - bits.view(np.float32), values))
        self._note(tensor, loss)
        return stored

    def _with_minima(self, file: GgufFile, tensor: Renamed) -> Stored:
        pieces = list(_pieces(tensor, lambda rows: _affine_piece(file, tensor, *rows)))
        self._note(tensor, _Loss(0.0, 1.0))
        module = tensor.name.removesuffix(".weight")
        kinds = {"weight_packed": "I32", "weight_scale": "F16", "weight_min": "F16", "weight_factors": "U8"}
        return {
            f"{module}.{part}": (kind, in_order(np.concatenate(arrays), tensor))
            for (part, kind), arrays in zip(kinds.items(), zip(*pieces, strict=True), strict=True)
        }

    def _as_mxfp4(self, file: GgufFile, tensor: Renamed) -> Stored:
        packed, powers = zip(*_pieces(tensor, lambda rows: _mxfp4_piece(file, tensor, *rows)), strict=True)
        self._note(tensor, _Loss(0.0, 1.0))
        module = tensor.name.removesuffix(".weight")
        return {
            f"{module}.weight_packed": ("U8", in_order(np.concatenate(packed), tensor)),
            f"{module}.weight_scale": ("U8", in_order(np.concatenate(powers), tensor)),
        }

    def _note(self, tensor: Renamed, loss: _Loss) -> None:
        if loss.error:
            self.errors[tensor.name] = float(f"{loss.relative:.6g}")
        total = self._losses.setdefault((self._types[tensor.name], self._forms[tensor.name]), _Loss())
        total.error += loss.error
        total.power += loss.power


def _form_of(kind: str, tensor: Renamed) -> _Form:
    if tensor.is_float or kind in _FLOATS or tensor.shape[1] % BLOCK or _splits_groups(tensor):
        return _FLOAT
    if kind == "MXFP4":
        return _OF_MXFP4
    moved = tensor.tiles is not None and tensor.tiles.axis == 1  # columns, away from those of their minimum
    return AFFINE[kind] if kind in AFFINE and not moved else (EXACT_BITS.get(kind, 8), 0)


def _format(form: _Form) -> str:
    """What compressed-tensors calls it."""
    return form[1] if isinstance(form[1], str) else MINIMA if form[1] else INTEGERS


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


def _patterns(modules: dict[str, _Form], form: _Form) -> list[str]:
    """Patterns for the modules of one form, one for all layers and experts where they agree."""
    kinds = {name: _NUMBER.sub(r"\\d+", re.escape(re.sub(r"^.*\.layers\.\d+\.", "", name))) for name in modules}
    forms: dict[str, set[_Form]] = {}
    for name, kind in kinds.items():
        forms.setdefault(kind, set()).add(modules[name])
    chosen = [name for name, one in modules.items() if one == form]
    short = {kinds[name] if len(forms[kinds[name]]) == 1 else re.escape(name) for name in chosen}
    tables = {re.escape(name) for name in TABLES}
    return [f"re:.*{name}$" for name in sorted(short, key=lambda one: (one in tables, one))]


Converted = TypeVar("Converted")
Piece = tuple[NDArray[np.int32], NDArray[np.float16], float, float]


def _pieces(tensor: Renamed, convert: Callable[[tuple[int, int]], Converted]) -> Iterator[Converted]:
    """What `convert` makes of rows [first, last), piece by piece in order."""
    rows, columns = tensor.shape
    step = max(1, _PIECE // columns)
    starts = range(0, rows, step)
    with ThreadPoolExecutor(os.cpu_count() or 1, thread_name_prefix="import") as pool:
        tasks = [pool.submit(convert, (first, min(rows, first + step))) for first in starts]
        try:
            for task in tasks:
                yield task.result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _affine_piece(file: GgufFile, tensor: Renamed, first: int, last: int) -> tuple[NDArray[Any], ...]:
    """Words, scales, minima and factors."""
    raw = file.raw(tensor.source, tensor.first + first, tensor.first + last)
    kind = file.tensors[tensor.source].type
    try:
        affine = affine_of(kind, raw)
    except ValueError as error:
        raise not_finite(file, tensor) from error
    bits = AFFINE[kind][0]
    return pack(affine.q - np.int8(1 << bits - 1), bits), affine.scales, affine.minima, affine.factors


def _mxfp4_piece(file: GgufFile, tensor: Renamed, first: int, last: int) -> tuple[NDArray[Any], ...]:
    """Codes and powers."""
    codes, powers = mxfp4_of(file.raw(tensor.source, tensor.first + first, tensor.first + last))
    large = powers > LARGEST_POWER
    if large.any() and (codes.reshape(*powers.shape, -1)[large] & 0x77).any():
        raise not_finite(file, tensor)
    return codes, powers


def _piece(file: GgufFile, tensor: Renamed, bits: int, first: int, last: int) -> Piece:
    """Rows as packed integers and scales, with the squares of errors and of weights."""
    kind = file.tensors[tensor.source].type
    raw = file.raw(tensor.source, tensor.first + first, tensor.first + last)
    values = None if kind in BLOCK_BYTES else file.dequantized(tensor.source, raw)
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
