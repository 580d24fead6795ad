"""Weights of 4 and 5 bits with a scale and a minimum by group, as `import` stores GGUF's Q4_1, Q4_K, Q5_1 and Q5_K."""

import numpy as np
from numpy.typing import NDArray

from localinfer.errors import Corrupt
from localinfer.formats.compressed import packed_words
from localinfer.graph.ops import Linear
from localinfer.graph.stored import AffineLinear, Form
from localinfer.graph.tensors import AGAIN, Tensors

GROUP = 32
WIDE = (32, 256)
"""Columns that share scale and minimum."""


class Minima:
    """`weight_packed` [rows, words]; `weight_scale` and `weight_min`, one for each `wide` columns; and
    `weight_factors` [rows, groups, 2], bytes."""

    copies: int = 2
    note: str = ""

    def __init__(self, tensors: Tensors, linear: Linear) -> None:
        parts = ("weight_packed", "weight_scale", "weight_min", "weight_factors")
        self.tensors, self.linear = tensors, linear
        self.parts: tuple[str, ...] = tuple(f"{linear.name}.{part}" for part in parts)
        packed, scale, minimum, factors = self.parts
        seen = tensors.shape(scale)
        found = [wide for wide in WIDE if linear.cols % wide == 0 and seen == (linear.rows, linear.cols // wide)]
        if not found:
            raise Corrupt(
                f"tensor `{scale}` is {list(seen)} for a matrix [{linear.rows}, {linear.cols}] with minima, whose "
                f"scales stand for {WIDE[0]} or {WIDE[1]} columns",
                hint=AGAIN,
            )
        self.wide = found[0]
        self.bits = 5 if tensors.shape(packed) == (linear.rows, packed_words(linear.cols, 5)) else 4
        self.form: Form = (self.bits, GROUP, self.wide)
        tensors.require(packed, (linear.rows, packed_words(linear.cols, self.bits)), ("I32",))
        for name in (scale, minimum):
            tensors.require(name, seen, ("F16",))
        tensors.require(factors, (linear.rows, linear.cols // GROUP, 2), ("U8",))

    def read(self) -> AffineLinear:
        packed, scale, minimum, factors = self.parts
        return AffineLinear(
            self.bits,
            GROUP,
            self.wide,
            self.linear.cols,
            self.tensors.read(packed),
            self.tensors.halves(scale),
            self.tensors.halves(minimum),
            self.tensors.read(factors),
        )

    def on_disk(self) -> None:
        """The reader of files knows no minima."""


def of_zero_points(
    bits: int, group: int, cols: int, packed: NDArray[np.int32], scales: NDArray[np.float16], zeros: NDArray[np.integer]
) -> AffineLinear:
    """`scale * (q - zero)`: the minimum is -scale, zero its factor. `packed` as in formats/compressed.py, scales and
    zeros [rows, groups]; zeros in [0, 2 ** bits]."""
    factors = np.stack([np.ones_like(zeros, np.uint8), zeros.astype(np.uint8)], axis=2)
    return AffineLinear(bits, group, group, cols, packed, scales, -scales, factors)
