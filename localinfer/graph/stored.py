"""Tensors as they come from disk: checked for NaN and infinity, as bfloat16, as float32, or as packed integers."""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from localinfer.errors import Corrupt
from localinfer.formats.bf16 import to_bf16
from localinfer.formats.compressed import dequantize, pack, unpack

Order = NDArray[np.intp]
Powers = NDArray[np.int32]
Rows = NDArray[np.bool_]
_PIECE = 1 << 20  # values handled at once, so that temporaries stay small


@dataclass(frozen=True, slots=True)
class Bf16Linear:
    """A matrix in bfloat16: `values` are its bits, uint16 [rows, cols]."""

    values: NDArray[np.uint16]

    kind = "bf16"
    bits = 16
    group = 0

    @property
    def rows(self) -> int:
        return int(self.values.shape[0])

    @property
    def cols(self) -> int:
        return int(self.values.shape[1])

    def rows_in(self, order: Order | None) -> "Bf16Linear":
        """The same matrix with row `order`[i] at i; None: as it is."""
        return self if order is None else Bf16Linear(self.values[order])

    def times(self, powers: Powers) -> "tuple[Bf16Linear, Rows]":
        """Row i times 2 to the power of `powers`[i], and which rows are that exactly: here all, above 1e-36."""
        values = np.empty_like(self.values)
        step = max(1, _PIECE // self.cols)
        for i in range(0, self.rows, step):
            values[i : i + step] = to_bf16(np.ldexp(widen(self.values[i : i + step]), powers[i : i + step, None]))
        return Bf16Linear(values), np.ones(self.rows, np.bool_)

    def float32(self) -> NDArray[np.float32]:
        """The same numbers as float32 [rows, cols], exactly."""
        return widen(self.values)


@dataclass(frozen=True, slots=True)
class IntLinear:
    """A matrix in integers of 3, 4, 5 or 8 bits: `packed` as in formats/compressed.py, one scale a row and group."""

    bits: int
    group: int
    cols: int
    packed: NDArray[np.int32]
    scales: NDArray[np.float16]

    @property
    def kind(self) -> str:
        return f"int{self.bits}"

    @property
    def rows(self) -> int:
        return int(self.packed.shape[0])

    def rows_in(self, order: Order | None) -> "IntLinear":
        """The same matrix with row `order`[i] at i; None: as it is."""
        return self if order is None else replace(self, packed=self.packed[order], scales=self.scales[order])

    def times(self, powers: Powers) -> "tuple[IntLinear, Rows]":
        """Row i times 2 to the power of `powers`[i], and which rows are that exactly: float16 ends somewhere."""
        scales, same = _halves_times(self.scales, powers)
        return replace(self, scales=scales), same

    def float32(self) -> NDArray[np.float32]:
        """Integer times scale, float32 [rows, cols]."""
        return dequantize(unpack(self.packed, self.bits, self.cols), self.scales)


@dataclass(frozen=True, slots=True)
class AffineLinear:
    """A matrix of weights `scale * factor * q + minimum * factor`, q of 4 or 5 bits, from 0 on.

    `packed` as in formats/compressed.py; scales and minima [rows, cols / wide]; `factors` [rows, cols / group, 2], of
    each group the scale's, then the minimum's.
    """

    bits: int
    group: int
    wide: int
    cols: int
    packed: NDArray[np.int32]
    scales: NDArray[np.float16]
    minima: NDArray[np.float16]
    factors: NDArray[np.uint8]

    @property
    def kind(self) -> str:
        return f"affine{self.bits}"

    @property
    def rows(self) -> int:
        return int(self.packed.shape[0])

    def rows_in(self, order: Order | None) -> "AffineLinear":
        """The same matrix with row `order`[i] at i; None: as it is."""
        if order is None:
            return self
        parts = {name: getattr(self, name)[order] for name in ("packed", "scales", "minima", "factors")}
        return replace(self, **parts)

    def times(self, powers: Powers) -> "tuple[AffineLinear, Rows]":
        """As that of `IntLinear`."""
        scales, same = _halves_times(self.scales, powers)
        minima, also = _halves_times(self.minima, powers)
        return replace(self, scales=scales, minima=minima), same & also

    def arrays(self) -> tuple[NDArray[np.int32], NDArray[np.float16], NDArray[np.float16], NDArray[np.uint8]]:
        """As the native code packs it: the factors as [rows, 2 * groups]."""
        return self.packed, self.scales, self.minima, self.factors.reshape(self.rows, -1)

    def float32(self) -> NDArray[np.float32]:
        """The same numbers as float32 [rows, cols], rounded once."""
        q = self._unsigned()
        out = q.astype(np.float32)
        out *= self._of_groups(self.scales, 0)
        out += self._of_groups(self.minima, 1)
        return out.reshape(self.rows, self.cols)

    def _unsigned(self) -> NDArray[np.int8]:
        """Each q, [rows, groups, group]."""
        q = unpack(self.packed, self.bits, self.cols) + np.int8(1 << self.bits - 1)
        return q.reshape(*self.factors.shape[:2], self.group)

    def _of_groups(self, halves: NDArray[np.float16], part: int) -> NDArray[np.float32]:
        """Scales or minima of the groups, exactly: [rows, groups, 1]."""
        wide = np.repeat(halves.astype(np.float32), self.wide // self.group, axis=1)
        wide *= self.factors[:, :, part]
        return wide[:, :, None]

    def widened(self) -> IntLinear | None:
        """The same numbers in 8 bits, where the minimum is a whole multiple of the scale, as with zero points."""
        if self.wide != self.group or (self.factors[:, :, 0] != 1).any() or (self.minima != -self.scales).any():
            return None
        q = self._unsigned()
        q -= self.factors[:, :, 1:].astype(np.int8)
        return IntLinear(8, self.group, self.cols, pack(q.reshape(self.rows, self.cols), 8), self.scales)


TWICE = np.array([0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12], np.int8)
"""Twice the number of a code of MXFP4."""
LARGEST_POWER = 146
"""Of stored powers of MXFP4: more than a weight is."""
_LEAST, _MOST = -24, 15
"""Powers of two that a float16 can be."""


@dataclass(frozen=True, slots=True)
class Mxfp4Linear:
    """A matrix of 4-bit floats: `codes` int32 [rows, cols / 8], eight in a word, the first lowest.

    A weight is twice its code's number times 2 to the power of `exponents` (uint8 [rows, cols / 32]) less 127, and 0
    where that byte is 0.
    """

    cols: int
    codes: NDArray[np.int32]
    exponents: NDArray[np.uint8]

    kind = "mxfp4"
    bits = 4
    group = 32

    @property
    def rows(self) -> int:
        return int(self.codes.shape[0])

    def rows_in(self, order: Order | None) -> "Mxfp4Linear":
        """The same matrix with row `order`[i] at i; None: as it is."""
        return self if order is None else replace(self, codes=self.codes[order], exponents=self.exponents[order])

    def times(self, powers: Powers) -> "tuple[Mxfp4Linear, Rows]":
        """As that of `IntLinear`."""
        moved = self.exponents.astype(np.int32) + powers[:, None]
        zero = self.exponents == 0
        same = ((moved > 0) & (moved < LARGEST_POWER) | zero).all(axis=1)
        exponents = np.where(zero, 0, np.clip(moved, 1, LARGEST_POWER)).astype(np.uint8)
        return replace(self, exponents=exponents), same

    def arrays(self) -> tuple[NDArray[np.int32], NDArray[np.uint8]]:
        """As the native code packs it."""
        return self.codes, self.exponents

    def float32(self) -> NDArray[np.float32]:
        """The same numbers as float32 [rows, cols], exactly."""
        values = np.ldexp(self._twice().astype(np.float32), self.exponents.astype(np.int32)[:, :, None] - 127)
        values[self.exponents == 0] = 0
        return values.reshape(self.rows, self.cols)

    def widened(self) -> IntLinear:
        """The same numbers in 8 bits by 32, those below 2^-24 rounded to a multiple of it. Raises `Corrupt` for weights
        that no scales hold."""
        twice, power = self._twice(), self.exponents.astype(np.int32) - 127
        power[~twice.any(axis=2)] = 0
        shift = power - np.clip(power, _LEAST, _MOST)
        if (shift > 3).any():
            raise Corrupt("weights in MXFP4 are too large for integers of 8 bits", hint="use another quantization")
        if shift.any():
            twice = np.rint(np.ldexp(twice.astype(np.float32), shift[:, :, None])).astype(np.int8)
        scales = np.ldexp(np.float32(1), power - shift).astype(np.float16)
        return IntLinear(8, self.group, self.cols, pack(twice.reshape(self.rows, self.cols), 8), scales)

    def _twice(self) -> NDArray[np.int8]:
        twice: NDArray[np.int8] = TWICE[unpack(self.codes, 4, self.cols) + np.int8(8)]
        return twice.reshape(self.rows, -1, self.group)


StoredLinear = Bf16Linear | IntLinear | AffineLinear | Mxfp4Linear
Form = tuple[int, int] | tuple[int, int, int] | tuple[int, int, Literal["mxfp4"]]
"""(bits, group) of a matrix as it runs, (16, 0) for bfloat16; with minima, the columns that share theirs as well."""


def stacked(parts: Sequence[StoredLinear]) -> StoredLinear:
    """Matrices of one form as one, row after row."""
    first = parts[0]
    arrays = [one.name for one in fields(first) if isinstance(getattr(first, one.name), np.ndarray)]
    joined: Any = {name: np.concatenate([getattr(part, name) for part in parts]) for name in arrays}
    return replace(first, **joined)


def _halves_times(halves: NDArray[np.float16], powers: Powers) -> tuple[NDArray[np.float16], Rows]:
    """[rows, …] times a power of two a row, and the rows that are that exactly."""
    wanted = np.ldexp(halves.astype(np.float32), powers[:, None])
    with np.errstate(over="ignore"):
        found = wanted.astype(np.float16)
    return found, (found == wanted).all(axis=1)


def widen(bits: NDArray[np.uint16]) -> NDArray[np.float32]:
    """bfloat16 bits to the same numbers in float32."""
    wide = bits.astype(np.uint32)
    wide <<= 16
    return wide.view(np.float32)


def narrow(name: str, values: NDArray[np.float32]) -> NDArray[np.uint16]:
    """float32 to the nearest bfloat16, ties to even. Raises `Corrupt` naming the tensor if one is too large for it."""
    out = np.empty(values.shape, np.uint16)
    source, target = values.reshape(-1), out.reshape(-1)
    for i in range(0, source.size, _PIECE):
        target[i : i + _PIECE] = to_bf16(source[i : i + _PIECE])
    require_finite(name, out)
    return out


def require_finite(name: str, values: NDArray[Any]) -> None:
    """Raise `Corrupt` naming the tensor and the place of its first NaN or infinity; uint16 is taken as bfloat16."""
    flat = values.reshape(-1)
    for i in range(0, flat.size, _PIECE):
        piece = flat[i : i + _PIECE]
        finite = (piece & 0x7F80) != 0x7F80 if piece.dtype == np.uint16 else np.isfinite(piece)
        if not finite.all():
            at = np.unravel_index(i + int(np.argmin(finite)), values.shape)
            index = ", ".join(str(int(x)) for x in at)
            raise Corrupt(
                f"tensor `{name}` holds NaN or infinity, first at [{index}]",
                hint="download the model again; if it stays, the model itself is broken",
            )
