"""`export`: the same weights in the form of other engines. Integers are carried over, never rounded again."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
from numpy.typing import NDArray

from localinfer.errors import UsageError
from localinfer.formats.bf16 import to_bf16
from localinfer.formats.checkpoint_files import listed
from localinfer.formats.compressed import unpack
from localinfer.formats.gguf_blocks import AFFINE, BLOCK, Affine, affine_blocks_of, blocks_of, mxfp4_blocks_of
from localinfer.formats.gguf_writing import Written, tokenizer_metadata, write_gguf
from localinfer.graph.names import AHEAD
from localinfer.graph.ops import Linear
from localinfer.graph.stored import AffineLinear, IntLinear, Mxfp4Linear, require_finite
from localinfer.graph.weights import Checkpoint
from localinfer.quantize.export_names import Stacked, ahead_of, describe, factor_of, form_of, in_file_order, tensors_of
from localinfer.quantize.plan import TABLES
from localinfer.quantize.scales import round_rows

GgufType = Literal["Q8_0", "Q5_0", "Q4_0", "F16"]
OnProgress = Callable[[int, int], None]

_BITS = {"Q4_0": 4, "Q5_0": 5, "Q8_0": 8, "F16": 16}
_FILE_TYPES = {"F16": 1, "Q4_0": 2, "Q8_0": 7, "Q5_0": 8, "MXFP4": 38}  # general.file_type
_HELD: dict[int, GgufType] = {3: "Q4_0", 4: "Q4_0", 5: "Q5_0", 8: "Q8_0", 16: "F16"}
_MINIMA = {str(form): kind for kind, form in AFFINE.items()}


def export_gguf(source: Path, dest: Path, kind: GgufType | None = None, on_progress: OnProgress | None = None) -> str:
    """Write the model in `source` as the GGUF file `dest`; returns the type of the layers' weights.

    `kind` None is the smallest that changes no integer; embedding and head are Q8_0 unless they are narrower, and
    weights with minima and MXFP4 go back into the type they came from unless `kind` is F16. Raises
    `UsageError` (dest exists, integers wider than `kind`), `NotSupported` (what GGUF cannot say), `DoesNotFit`.
    """
    must_be_new(dest)
    checkpoint = Checkpoint(source)
    floats = checkpoint.graph.unquantized
    layers = [one for one in checkpoint.graph.linears() if one.name not in TABLES and one not in floats]
    in_mxfp4 = [one for one in layers if _is_mxfp4(checkpoint, one)]
    widest = max((whole_bits(checkpoint, one) for one in layers if one not in in_mxfp4), default=_BITS["Q4_0"])
    chosen = kind or _HELD[widest]
    if widest != 16 and _BITS[chosen] < widest:
        raise UsageError(f"weights of {widest} bits do not fit into {chosen}", hint="export the original, or as Q8_0")
    form, metadata = describe(checkpoint)
    kept = bool(in_mxfp4) and kind != "F16"
    metadata |= {"general.file_type": _FILE_TYPES["MXFP4" if kept else chosen], "general.quantization_version": 2}
    metadata |= tokenizer_metadata(source, checkpoint.spec.vocab_size, raw=form.raw_tokens)
    tensors = _written(checkpoint, tensors_of(form, checkpoint), chosen, as_they_are=kind != "F16")
    if checkpoint.has_ahead and form.ahead:
        ahead = Checkpoint(source, ahead=True)
        tensors += _written(ahead, ahead_of(form, ahead), chosen, as_they_are=kind != "F16")
        metadata |= {f"{form.arch}.block_count": checkpoint.spec.layers + 1, f"{form.arch}.nextn_predict_layers": 1}
    tensors += factors_of(metadata)
    total, done = sum(one.nbytes for one in tensors), 0

    def advance(count: int) -> None:
        nonlocal done
        done += count
        if on_progress is not None:
            on_progress(done, total)

    write_gguf(dest, form.arch, metadata, tensors, advance)
    return f"MXFP4, {chosen}" if kept else chosen


def _written(checkpoint: Checkpoint, several: list[Stacked], chosen: GgufType, *, as_they_are: bool) -> list[Written]:
    """The tensors of a file, with what makes them; `as_they_are`: what has minima, and MXFP4."""
    linears = {f"{linear.name}.weight": linear for linear in checkpoint.graph.linears()}
    offsets = {f"{norm.name}.weight": norm.offset for norm in checkpoint.graph.norms()}
    tensors = []
    for one in several:
        matrices = [linears[part] for part in one.parts if part in linears]
        if matrices:
            tensors.append(_matrix(checkpoint, one, matrices, chosen, as_they_are))
        else:
            make = partial(_vector, checkpoint, one, offsets.get(one.parts[0], 0.0))
            tensors.append(Written(one.first.source, one.shape, "F32", make))
    return tensors


def left_out(source: Path, *, gguf: bool) -> list[str]:
    """What the model in `source` has, and an exported one does not, a line each."""
    checkpoint = Checkpoint(source)
    if not checkpoint.has_ahead or (gguf and form_of(checkpoint.spec).ahead):
        return []
    ahead = sorted(name for name in checkpoint.names if name.startswith(AHEAD))
    return [f"left out: the head that guesses tokens ahead ({listed(ahead)})"]


def factors_of(metadata: dict[str, Any]) -> list[Written]:
    """Take the arrays that `describe` gives under the names of tensors out of `metadata`."""
    names = [key for key in metadata if key.endswith(".weight")]
    arrays = {name: metadata.pop(name) for name in names}
    return [Written(name, array.shape, "F32", partial(np.asarray, array)) for name, array in arrays.items()]


def must_be_new(dest: Path) -> None:
    if dest.exists():
        raise UsageError(f"{dest} is there already", hint="remove it, or choose another place: `--output PATH`")
    if not dest.parent.is_dir():
        raise UsageError(f"{dest.parent}: no such folder", hint="make it first, or choose another place")


def _matrix(
    checkpoint: Checkpoint, one: Stacked, linears: list[Linear], chosen: GgufType, as_they_are: bool
) -> Written:
    """One tensor of one or more matrices, one below the other; a group of experts has a third axis."""
    form = checkpoint.form(linears[0].name)
    wide = linears[0].name in TABLES and form[0] > _BITS[chosen]
    kept = [linear in checkpoint.graph.unquantized for linear in linears]
    kind: str = "Q8_0" if _BITS[chosen] < 8 and (wide or any(kept)) else chosen  # some among others, in one tensor
    if one.first.is_float:
        kind = "F32"
    elif all(kept) and form[0] == 16 and kind != "F16":
        kind = "BF16"
    elif linears[0].cols % BLOCK or _splits_groups(checkpoint, one):
        kind = "F16"  # rows of no whole blocks
    elif as_they_are and checkpoint.has_minima(linears[0].name):
        kind = _MINIMA[str((form[0], form[-1]))]
    elif as_they_are and all(_is_mxfp4(checkpoint, linear) for linear in linears):
        kind = "MXFP4"
    elif any(_is_mxfp4(checkpoint, linear) for linear in linears) and _BITS[chosen] < 8:
        kind = "Q8_0"

    def make() -> NDArray[Any]:
        parts = [_weights(checkpoint, one, linear, kind) for linear in linears]
        rows = parts[0] if len(parts) == 1 else np.concatenate(parts)
        return rows.reshape(*one.shape[:-1], -1)

    return Written(one.first.source, one.shape, kind, make)


def _splits_groups(checkpoint: Checkpoint, one: Stacked) -> bool:
    """Whether columns are in another order there, in parts that are no whole groups."""
    tiles = one.first.tiles
    if tiles is None or tiles.axis != 1:
        return False
    name = one.parts[0].removesuffix(".weight")
    group = max(BLOCK, checkpoint.form(name)[1])
    return checkpoint.has_minima(name) or one.first.shape[1] // (tiles.heads * tiles.each) % group != 0


def _weights(checkpoint: Checkpoint, one: Stacked, linear: Linear, kind: str) -> NDArray[Any]:
    factor = np.float32(factor_of(checkpoint.spec, one.first.source, linear.name))
    if kind in ("F32", "F16", "BF16"):
        values = in_file_order(one.first, checkpoint.matrix(linear.name) * factor)
        if kind == "BF16":
            return to_bf16(values).view(np.uint8)
        return values if kind == "F32" else halves(linear.name, values)
    if kind == "MXFP4":
        return _mxfp4(one, cast(Mxfp4Linear, checkpoint.linear(linear.name)))
    if checkpoint.form(linear.name)[0] == 16:
        rounded = round_rows(checkpoint.matrix(linear.name) * factor, _BITS[kind], BLOCK)
        integers, scales = rounded.values, rounded.scales
    else:
        stored = integers_of(checkpoint, linear)
        integers, scales = unpack(stored.packed, stored.bits, stored.cols), stored.scales
        scales = _times(linear.name, scales, factor)
        if isinstance(stored, AffineLinear):
            parts = (
                integers + np.int8(1 << stored.bits - 1),
                scales,
                _times(linear.name, stored.minima, factor),
                stored.factors,
            )
            return affine_blocks_of(kind, Affine(*(in_file_order(one.first, part) for part in parts)))
    integers, scales = in_file_order(one.first, integers), in_file_order(one.first, scales)
    return blocks_of(kind, np.ascontiguousarray(integers), np.ascontiguousarray(scales))


def _is_mxfp4(checkpoint: Checkpoint, linear: Linear) -> bool:
    return checkpoint.form(linear.name)[-1] == "mxfp4"


def _mxfp4(one: Stacked, stored: Mxfp4Linear) -> NDArray[np.uint8]:
    """Powers are stored for the numbers, not for twice the numbers, and are those of some weight or 0."""
    powers = np.where(stored.exponents == 0, 0, stored.exponents + np.uint8(1)).astype(np.uint8)
    codes = np.ascontiguousarray(stored.codes.astype("<i4")).view(np.uint8).reshape(*powers.shape, -1)
    codes = np.where(powers[:, :, None] == 0, np.uint8(0), codes).reshape(stored.rows, -1)
    return mxfp4_blocks_of(in_file_order(one.first, codes), in_file_order(one.first, powers))


def _times(name: str, values: NDArray[np.float16], factor: np.float32) -> NDArray[np.float16]:
    return values if factor == 1.0 else halves(name, values.astype(np.float32) * factor)


def halves(name: str, values: NDArray[np.float32]) -> NDArray[np.float16]:
    with np.errstate(over="ignore"):
        halves = values.astype(np.float16)
    require_finite(f"{name}.weight", halves)
    return halves


def whole_bits(checkpoint: Checkpoint, linear: Linear) -> int:
    """Bits of the integers that hold it with scales alone: 8 where it has zero points, and of MXFP4."""
    form = checkpoint.form(linear.name)
    return 8 if len(form) == 3 and not checkpoint.has_minima(linear.name) else form[0]


def integers_of(checkpoint: Checkpoint, linear: Linear) -> IntLinear | AffineLinear:
    """The matrix, by scales alone where it has zero points or is MXFP4."""
    stored = cast(IntLinear | AffineLinear | Mxfp4Linear, checkpoint.linear(linear.name))
    return stored if isinstance(stored, IntLinear) else stored.widened() or cast(AffineLinear, stored)


def _vector(checkpoint: Checkpoint, one: Stacked, offset: float) -> NDArray[np.float32]:
    values = np.concatenate([checkpoint.vector(part) for part in one.parts]) + np.float32(offset)
    if one.first.is_rate:
        values = -np.exp(values)
    return in_file_order(one.first, values).reshape(one.shape)
