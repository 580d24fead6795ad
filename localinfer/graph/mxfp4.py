"""MXFP4 (Open Compute Project, 2023): 4-bit floats, 32 of which share a power of two."""

import numpy as np

from localinfer.errors import Corrupt
from localinfer.graph.ops import Linear
from localinfer.graph.stored import LARGEST_POWER, Form, Mxfp4Linear
from localinfer.graph.tensors import AGAIN, Tensors

BLOCK = 32
"""Values that share a scale."""


class Mxfp4:
    """`weight_blocks` [rows, blocks, 16] and `weight_scales` [rows, blocks], bytes; or `weight_packed` [rows, cols / 2]
    and `weight_scale` [rows, blocks], the same bytes as compressed-tensors has them."""

    form: Form = (4, BLOCK, "mxfp4")
    copies: int = 3
    note: str = ""

    def __init__(self, tensors: Tensors, linear: Linear) -> None:
        self.tensors, self.linear = tensors, linear
        apart = f"{linear.name}.weight_blocks" in tensors
        names = ("weight_blocks", "weight_scales") if apart else ("weight_packed", "weight_scale")
        self.blocks, self.scales = (f"{linear.name}.{part}" for part in names)
        self.parts: tuple[str, ...] = (self.blocks, self.scales)
        if linear.cols % BLOCK:
            raise Corrupt(
                f"`{linear.name}` has rows of {linear.cols} values, which no blocks of {BLOCK} make", hint=AGAIN
            )
        of_row = (linear.cols // BLOCK, BLOCK // 2) if apart else (linear.cols // 2,)
        tensors.require(self.blocks, (linear.rows, *of_row), ("U8",))
        tensors.require(self.scales, (linear.rows, linear.cols // BLOCK), ("U8",))

    def read(self) -> Mxfp4Linear:
        """The same numbers; powers below 2^-125 count as none."""
        exponents = self.tensors.read(self.scales)
        blocks = self.tensors.read(self.blocks).reshape(*exponents.shape, BLOCK // 2)
        zeros = ~((blocks & 0x77) != 0).any(axis=2)  # codes 0 and 8
        if (large := (exponents > LARGEST_POWER) & ~zeros).any():
            row, block = (int(x) for x in np.argwhere(large)[0])
            raise Corrupt(
                f"tensor `{self.scales}` holds {int(exponents[row, block])} at [{row}, {block}], "
                "which is too large for a weight",
                hint=AGAIN,
            )
        lower = np.where(zeros, np.uint8(0), exponents - np.minimum(exponents, np.uint8(1)))  # twice the numbers, half
        codes = np.ascontiguousarray(blocks.reshape(self.linear.rows, -1)).view("<i4")
        return Mxfp4Linear(self.linear.cols, codes.astype(np.int32, copy=False), lower)

    def on_disk(self) -> None:
        """The reader of files knows no such scales."""
