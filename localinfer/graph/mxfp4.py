"""MXFP4 (Open Compute Project, 2023): 4-bit floats, 32 of which share a power of two, as integers of 8 bits.

Twice a value is a whole number up to 12, so nothing is lost: an integer of 8 bits, and half the power of two is its
scale.
"""

import numpy as np

from localinfer.errors import Corrupt
from localinfer.formats.compressed import pack
from localinfer.graph.ops import Linear
from localinfer.graph.stored import Form, IntLinear
from localinfer.graph.tensors import AGAIN, Tensors

BLOCK = 32
"""Values that share a scale."""

_TWICE = np.array([0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12], np.int8)
_PAIRS = np.stack([_TWICE[np.arange(256) & 15], _TWICE[np.arange(256) >> 4]], axis=1)
"""Of a byte: twice the value of its low half, then of its high half."""

_BIAS = 127
_LEAST, _MOST = -24, 15
"""Powers of two that a float16 can be."""


class Mxfp4:
    """`weight_blocks` [rows, blocks, 16] and `weight_scales` [rows, blocks], bytes."""

    form: Form = (8, BLOCK)
    copies: int = 8
    note: str = "MXFP4 weights are held as INT8 by 32, exactly: twice the bytes"

    def __init__(self, tensors: Tensors, linear: Linear) -> None:
        self.tensors, self.linear = tensors, linear
        self.blocks, self.scales = f"{linear.name}.weight_blocks", f"{linear.name}.weight_scales"
        self.parts: tuple[str, ...] = (self.blocks, self.scales)
        if linear.cols % BLOCK:
            raise Corrupt(
                f"`{linear.name}` has rows of {linear.cols} values, which no blocks of {BLOCK} make", hint=AGAIN
            )
        tensors.require(self.blocks, (linear.rows, linear.cols // BLOCK, BLOCK // 2), ("U8",))
        tensors.require(self.scales, (linear.rows, linear.cols // BLOCK), ("U8",))

    def read(self) -> IntLinear:
        """The same numbers. Those below 2^-24 of a block of the smallest scales are rounded to a multiple of 2^-24."""
        codes = self.tensors.read(self.blocks)
        twice = _PAIRS[codes].reshape(self.linear.rows, -1, BLOCK)
        exponents = self.tensors.read(self.scales)
        power = exponents.astype(np.int32) - (_BIAS + 1)
        power[~twice.any(axis=2)] = 0
        if (power > _MOST + 3).any():
            row, block = (int(x) for x in np.argwhere(power > _MOST + 3)[0])
            raise Corrupt(
                f"tensor `{self.scales}` holds {int(exponents[row, block])} at [{row}, {block}], "
                "which is too large for a weight",
                hint=AGAIN,
            )
        shift = power - np.clip(power, _LEAST, _MOST)
        if shift.any():
            if (shift < 0).any():
                self.note = "MXFP4 weights are held as INT8 by 32, exactly but for those below 4e-7: twice the bytes"
            twice = np.rint(np.ldexp(twice.astype(np.float32), shift[:, :, None])).astype(np.int8)
        scales = np.ldexp(np.float32(1), power - shift).astype(np.float16)
        return IntLinear(8, BLOCK, self.linear.cols, pack(twice.reshape(self.linear.rows, -1), 8), scales)

    def on_disk(self) -> None:
        """Nothing lies as the kernels take it."""
