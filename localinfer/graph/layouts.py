"""The ways in which a matrix may be stored, each checked from its headers and read into what the kernels take.

Weights of 4 and 5 bits with zero points run as they are. Those of 3 bits have no kernels of their own: `scale * (q -
zero)` is an integer times the same scale, and 4 bits hold it exactly. Eight-bit floats become bfloat16.
"""

from abc import ABC, abstractmethod
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from localinfer.errors import Corrupt, NotSupported
from localinfer.formats.awq import unpack_awq
from localinfer.formats.checkpoint_files import StoredTensor
from localinfer.formats.compressed import pack, packed_words, unpack
from localinfer.formats.fp8 import from_e4m3
from localinfer.formats.gptq import rows_of, zeros_of
from localinfer.graph.affine import Minima, of_zero_points
from localinfer.graph.mxfp4 import Mxfp4
from localinfer.graph.ops import Linear
from localinfer.graph.scheme import BITS, GROUPS, Integers, Scheme
from localinfer.graph.stored import AffineLinear, Bf16Linear, Form, IntLinear, StoredLinear, narrow, require_finite
from localinfer.graph.tensors import AGAIN, FLOATS, Tensors, wrong_shape

Floats = NDArray[np.float32]
Number = TypeVar("Number", bound=np.generic)
OnDisk = tuple[StoredTensor, StoredTensor | None]

_PIECE = 1 << 20  # values converted at once


class Layout(Protocol):
    """One matrix in one of the ways."""

    parts: tuple[str, ...]
    """Its tensors' full names."""
    form: Form
    copies: int
    """How many times the stored bytes exist at once, at worst, while it is read."""
    note: str
    """What to tell of its conversion."""

    def read(self) -> StoredLinear:
        """As the kernels take it. Raises `Corrupt` naming the tensor with NaN, infinity, or what cannot be."""
        ...

    def on_disk(self) -> OnDisk | None:
        """Values and scales, if they lie as the kernels take them; nobody has looked at the numbers yet."""
        ...


def layout_of(tensors: Tensors, linear: Linear, scheme: Scheme) -> Layout:
    """Which of the ways the headers show, with every shape compared. Reads no weights."""
    name = linear.name
    if f"{name}.weight_min" in tensors and scheme.minima:
        return Minima(tensors, linear)
    packed = f"{name}.weight_packed"
    if scheme.mxfp4 and (f"{name}.weight_blocks" in tensors or tensors.dtype(packed) == "U8"):
        return Mxfp4(tensors, linear)
    if packed in tensors:
        return _Packed(tensors, linear, scheme)
    if f"{name}.qweight" in tensors and scheme.method in ("gptq", "awq"):
        return (_Gptq if scheme.method == "gptq" else _Awq)(tensors, linear, scheme)
    if tensors.dtype(f"{name}.weight") == "F8_E4M3" and scheme.floats:
        return _Fp8(tensors, linear, scheme)
    if tensors.dtype(f"{name}.weight") == "I8" and any(one.bits == 8 for one in scheme.integers):
        return _Int8(tensors, linear, scheme)
    return _Plain(tensors, linear)


class _Plain:
    """`weight` in a float type. float16 and float32 are rounded to bfloat16."""

    parts: tuple[str, ...]
    form: Form = (16, 0)
    note: str = ""

    def __init__(self, tensors: Tensors, linear: Linear) -> None:
        self.tensors, self.name = tensors, f"{linear.name}.weight"
        self.parts = (self.name,)
        tensors.require(self.name, (linear.rows, linear.cols), FLOATS)
        self.copies: int = {"F16": 4, "F32": 2}.get(tensors.dtype(self.name), 1)

    def read(self) -> Bf16Linear:
        if self.tensors.dtype(self.name) == "BF16":
            values: NDArray[np.uint16] = self.tensors.read(self.name)
            require_finite(self.name, values)
            return Bf16Linear(values)
        return Bf16Linear(narrow(self.name, self.tensors.float32(self.name)))

    def on_disk(self) -> OnDisk | None:
        stored = self.tensors.stored[self.name]
        return (stored, None) if stored.info.dtype == "BF16" and stored.in_one_piece else None


class _Fp8:
    """`weight` in e4m3, scaled as a whole, by rows, or by blocks."""

    parts: tuple[str, ...]
    form: Form = (16, 0)
    copies: int = 3
    note: str = "FP8 weights are held as bf16, to 9 bits exact: twice the bytes"

    def __init__(self, tensors: Tensors, linear: Linear, scheme: Scheme) -> None:
        self.tensors, self.linear = tensors, linear
        self.weight = f"{linear.name}.weight"
        self.scale = next((s for s in (f"{self.weight}_scale_inv", f"{self.weight}_scale") if s in tensors), "")
        self.parts = (self.weight, self.scale)
        tensors.require(self.weight, (linear.rows, linear.cols), ("F8_E4M3",))
        shape = tensors.shape(self.scale or f"{self.weight}_scale")
        self.block = (linear.rows, linear.cols)
        if shape in ((linear.rows,), (linear.rows, 1)):
            self.block = (1, linear.cols)
        elif scheme.block is not None:
            self.block = scheme.block
        blocks = -(-linear.rows // self.block[0]), -(-linear.cols // self.block[1])
        if shape not in (blocks, (linear.rows,)) and not (blocks == (1, 1) and shape in ((), (1,))):
            raise wrong_shape(self.scale, shape, blocks)
        self.blocks = blocks
        tensors.require(self.scale, shape, FLOATS)

    def read(self) -> Bf16Linear:
        rows, cols = self.linear.rows, self.linear.cols
        scales, across = self.tensors.float32(self.scale).reshape(self.blocks), np.arange(cols) // self.block[1]
        codes = self.tensors.read(self.weight)
        out = np.empty((rows, cols), np.uint16)
        step = max(1, _PIECE // cols)
        for first in range(0, rows, step):
            piece = slice(first, min(rows, first + step))
            values = from_e4m3(codes[piece])
            with np.errstate(over="ignore"):
                values *= scales[np.ix_(np.arange(piece.start, piece.stop) // self.block[0], across)]
            try:
                out[piece] = narrow(self.weight, values)
            except Corrupt:
                self._name_the_position(codes)
                raise
        return Bf16Linear(out)

    def _name_the_position(self, codes: NDArray[np.uint8]) -> None:
        for first, row in enumerate(codes):
            if (bad := (row & 0x7F) == 0x7F).any():
                raise Corrupt(
                    f"tensor `{self.weight}` holds NaN or infinity, first at [{first}, {int(bad.argmax())}]",
                    hint="download the model again; if it stays, the model itself is broken",
                )

    def on_disk(self) -> OnDisk | None:
        return None


class _Integer(ABC):
    """What all integers share: the announced scheme that the shape of the scales belongs to."""

    parts: tuple[str, ...]
    form: Form
    copies: int = 2
    note: str = ""

    def __init__(self, tensors: Tensors, linear: Linear, bits: int, scheme: Scheme, scale: str, across: bool) -> None:
        """`across`: scales are [groups, rows], not [rows, groups]."""
        self.tensors, self.linear, self.scale = tensors, linear, scale
        seen = tensors.shape(scale)
        fitting = {}
        for one in scheme.integers:
            group = one.group or linear.cols
            if one.bits == bits and linear.cols % group == 0:
                shape = linear.rows, linear.cols // group
                fitting[shape[::-1] if across else shape] = (one, group)
        if seen not in fitting:
            announced = ", ".join(sorted(map(str, scheme.integers))) or "none"
            raise Corrupt(
                f"tensor `{scale}` is {list(seen)} for a matrix of {bits} bits "
                f"[{linear.rows}, {linear.cols}], which is no scheme of config.json ({announced})",
                hint=AGAIN,
            )
        self.kind: Integers = fitting[seen][0]
        self.stored_group: int = fitting[seen][1]
        tensors.require(scale, seen, FLOATS)
        group = next((group for group in reversed(GROUPS) if self.stored_group % group == 0), 0)
        if not group:
            raise NotSupported(
                f"`{linear.name}` has rows of {linear.cols} integers, which is no multiple of {GROUPS[0]}",
                hint="use the unquantized model",
            )
        self.group = group
        self.form = (bits, group)
        if not self.kind.symmetric and bits > 3:
            self.form, self.copies = (bits, group, group), 4
        elif not self.kind.symmetric:
            self.form, self.copies = (4, group), 12
            self.note = "3-bit weights with zero points are held as INT4, exactly"

    def linear_of(self, packed: NDArray[np.int32], scales: NDArray[np.float16]) -> IntLinear:
        """Scales [rows, stored groups] are spread to the kernels' groups."""
        return IntLinear(self.form[0], self.group, self.linear.cols, packed, self._spread(scales))

    def with_zeros(
        self, packed: NDArray[np.int32], scales: NDArray[np.float16], zeros: NDArray[np.integer]
    ) -> IntLinear | AffineLinear:
        """The same with zero points, which are `zeros` [rows, stored groups] above the middle."""
        bits = self.kind.bits
        if bits > 3:
            above = self._spread(zeros.astype(np.int16) + (1 << bits - 1))
            return of_zero_points(bits, self.group, self.linear.cols, packed, self._spread(scales), above)
        q = np.ascontiguousarray(unpack(packed, 3, self.linear.cols)).reshape(*zeros.shape, -1)
        q -= zeros.astype(np.int8)[:, :, None]
        return self.linear_of(pack(q.reshape(self.linear.rows, self.linear.cols), 4), scales)

    def _spread(self, values: NDArray[Number]) -> NDArray[Number]:
        return np.repeat(values, self.stored_group // self.group, axis=1)

    @abstractmethod
    def read(self) -> IntLinear | AffineLinear:
        """The matrix as the kernels take it."""

    def on_disk(self) -> OnDisk | None:
        return None


class _Packed(_Integer):
    """compressed-tensors `pack-quantized`: our own form, too, when it is symmetric."""

    def __init__(self, tensors: Tensors, linear: Linear, scheme: Scheme) -> None:
        name = linear.name
        self.packed, self.zeros, self.said = (f"{name}.weight_{part}" for part in ("packed", "zero_point", "shape"))
        seen = tensors.shape(self.packed)
        by_words = {(linear.rows, packed_words(linear.cols, bits)): bits for bits in BITS}
        if f"{name}.weight_g_idx" in tensors:
            raise _reordered(name, "weight_g_idx")
        if seen not in by_words:
            raise wrong_shape(self.packed, seen, (linear.rows, linear.cols), "packed")
        bits = by_words[seen]
        super().__init__(tensors, linear, bits, scheme, f"{name}.weight_scale", across=False)
        tensors.require(self.packed, seen, ("I32",))
        tensors.require(self.said, (2,), ("I64", "I32"))
        self.parts = (self.packed, self.scale)
        if self.kind.symmetric:
            if self.zeros in tensors:
                raise NotSupported(
                    f"`{name}` has a weight_zero_point, but config.json says its weights are symmetric",
                    hint="use the unquantized model and run `localinfer quantize` on it",
                )
            return
        self.parts += (self.zeros,)
        groups = linear.cols // self.stored_group
        if tensors.dtype(self.zeros) == "I8":  # as older versions stored them
            tensors.require(self.zeros, (linear.rows, groups), ("I8",))
        else:
            tensors.require(self.zeros, (packed_words(linear.rows, bits), groups), ("I32",))

    def read(self) -> IntLinear | AffineLinear:
        self._check_said()
        scales = self.tensors.halves(self.scale)
        packed = self.tensors.read(self.packed)
        if self.kind.symmetric:
            return self.linear_of(packed, scales)
        zeros = self.tensors.read(self.zeros)
        if zeros.dtype == np.int32:
            zeros = unpack(np.ascontiguousarray(zeros.T), self.kind.bits, self.linear.rows).T
        elif not (abs(zeros.astype(np.int16) * 2 + 1) < 1 << self.kind.bits).all():
            raise Corrupt(f"tensor `{self.zeros}` holds more than {self.kind.bits} bits", hint=AGAIN)
        return self.with_zeros(packed, scales, zeros)

    def on_disk(self) -> OnDisk | None:
        as_stored = self.kind.symmetric and self.group == self.stored_group
        if not as_stored or self.tensors.dtype(self.scale) != "F16":
            return None
        self._check_said()
        return self.tensors.stored[self.packed], self.tensors.stored[self.scale]

    def _check_said(self) -> None:
        shape = self.linear.rows, self.linear.cols
        said = tuple(int(x) for x in self.tensors.read(self.said))
        if said != shape:
            raise Corrupt(f"tensor `{self.said}` says {list(said)}, not {list(shape)}", hint=AGAIN)


class _Int8(_Integer):
    """compressed-tensors `int-quantized`: one byte a weight."""

    def __init__(self, tensors: Tensors, linear: Linear, scheme: Scheme) -> None:
        self.weight = f"{linear.name}.weight"
        super().__init__(tensors, linear, 8, scheme, f"{self.weight}_scale", across=False)
        tensors.require(self.weight, (linear.rows, linear.cols), ("I8",))
        self.parts = (self.weight, self.scale)

    def read(self) -> IntLinear:
        return self.linear_of(pack(self.tensors.read(self.weight), 8), self.tensors.halves(self.scale))


class _Gptq(_Integer):
    """AutoGPTQ's and GPTQModel's columns of words."""

    def __init__(self, tensors: Tensors, linear: Linear, scheme: Scheme) -> None:
        name = linear.name
        self.words, self.zeros, self.order = (f"{name}.{part}" for part in ("qweight", "qzeros", "g_idx"))
        (announced,) = scheme.integers
        bits, self.stored_less, self.may_be_v2 = announced.bits, scheme.stored_less, scheme.may_be_v2
        super().__init__(tensors, linear, bits, scheme, f"{name}.scales", across=True)
        tensors.require(self.words, (packed_words(linear.cols, bits), linear.rows), ("I32",))
        groups = linear.cols // self.stored_group
        tensors.require(self.zeros, (groups, packed_words(linear.rows, bits)), ("I32",))
        self.parts = (self.words, self.zeros, self.scale)
        self.copies = max(3, self.copies)
        if self.order in tensors:
            tensors.require(self.order, (linear.cols,), ("I32",))
            self.parts += (self.order,)

    def read(self) -> IntLinear | AffineLinear:
        rows, cols = self.linear.rows, self.linear.cols
        if self.order in self.tensors:
            given = np.arange(cols, dtype=np.int32) // np.int32(self.stored_group)
            if not np.array_equal(self.tensors.read(self.order), given):
                raise _reordered(self.linear.name, "g_idx")
        scales = np.ascontiguousarray(self.tensors.halves(self.scale).T)
        zeros = zeros_of(self.tensors.read(self.zeros), self.kind.bits, rows, self.stored_less)
        packed = rows_of(self.tensors.read(self.words))
        if not self.kind.symmetric:
            return self.with_zeros(packed, scales, zeros)
        if self.may_be_v2 and (zeros == 1).all():  # the second version stores them as they are
            zeros -= np.int16(1)
            self.note = "GPTQ's zero points are read as its second version stores them, which config.json does not name"
        if zeros.any():
            row, group = (int(x) for x in np.argwhere(zeros)[0])
            half = 1 << self.kind.bits - 1
            raise Corrupt(
                f"tensor `{self.zeros}` has a zero point of {half + int(zeros[row, group])} at group {group} of row "
                f"{row}, but config.json says the weights are symmetric, where it is {half}",
                hint=AGAIN,
            )
        return self.linear_of(packed, scales)


class _Awq(_Integer):
    """AutoAWQ's words of eight rows."""

    def __init__(self, tensors: Tensors, linear: Linear, scheme: Scheme) -> None:
        name = linear.name
        self.words, self.zeros = f"{name}.qweight", f"{name}.qzeros"
        super().__init__(tensors, linear, 4, scheme, f"{name}.scales", across=True)
        if linear.rows % 8:
            raise Corrupt(f"`{name}` has {linear.rows} rows, which no words of eight rows can hold", hint=AGAIN)
        tensors.require(self.words, (linear.cols, linear.rows // 8), ("I32",))
        tensors.require(self.zeros, (linear.cols // self.stored_group, linear.rows // 8), ("I32",))
        self.parts = (self.words, self.zeros, self.scale)
        self.copies = 12

    def read(self) -> IntLinear | AffineLinear:
        q = np.ascontiguousarray(unpack_awq(self.tensors.read(self.words)).T)
        zeros = np.ascontiguousarray(unpack_awq(self.tensors.read(self.zeros)).T)
        scales = np.ascontiguousarray(self.tensors.halves(self.scale).T)
        return self.with_zeros(pack(q - np.int8(8), 4), scales, zeros - np.int8(8))


def _reordered(name: str, tensor: str) -> NotSupported:
    return NotSupported(
        f"`{name}` has a {tensor} that reorders its columns, which is not supported",
        hint="use a version made without `desc_act` (or with static groups), or quantize the original yourself",
    )
