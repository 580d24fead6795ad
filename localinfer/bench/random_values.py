"""Seeded random numbers in the forms that weights are stored in, made about as fast as memory takes them."""

import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from localinfer.formats.compressed import packed_words

_FLAT_STD = {3: 2.29, 4: 4.61, 5: 9.23, 8: 73.9}
"""Of all integers of so many bits, each as likely as the others."""


class RandomValues:
    """Values for named tensors: a tensor's depend on the seed and its own name, not on what was made before.

    Matrices have entries of about 1 / sqrt(columns), so that activations neither grow nor vanish.
    """

    def __init__(self, seed: int) -> None:
        self._seed = seed

    def bits(self, name: str, nbytes: int) -> NDArray[np.uint8]:
        """`nbytes` random bytes."""
        words = self._rng(name).integers(0, 1 << 64, -(-nbytes // 8), dtype=np.uint64)
        return words.view(np.uint8)[:nbytes]

    def packed(self, name: str, rows: int, cols: int, bits: int) -> NDArray[np.int32]:
        """Packed integers int32 [rows, words]; `cols` is a whole number of 32s, so every bit is used."""
        words = packed_words(cols, bits)
        return self.bits(name, 4 * rows * words).view(np.int32).reshape(rows, words)

    def scales(self, name: str, rows: int, cols: int, group: int, bits: int) -> NDArray[np.float16]:
        """float16 [rows, cols / group]: each within a half of the mean."""
        mean = cols**-0.5 / _FLAT_STD[bits]
        spread = self._rng(name).random((rows, cols // group), np.float32) + np.float32(0.5)
        return (spread * np.float32(mean)).astype(np.float16)

    def bf16(self, name: str, rows: int, cols: int) -> NDArray[np.uint16]:
        """bfloat16 bits uint16 [rows, cols] of random sign and fraction, and four exponents around the wanted size."""
        exponent = 127 + round(float(np.log2(cols**-0.5))) - 3
        words = self.bits(name, 2 * rows * cols).view(np.uint16).reshape(rows, cols)
        words &= np.uint16(0x81FF)
        words += np.uint16(exponent << 7)
        return words

    def blocks(self, name: str, count: int, layout: "np.dtype[Any]", mean: float) -> NDArray[np.void]:
        """`count` records of random bytes whose field `d` is a sane float16 of about `mean`, either sign."""
        records = self.bits(name, count * layout.itemsize).view(layout)
        signs = records["d"].view(np.uint16) & np.uint16(0x8000)
        spread = (self._rng(f"{name}.d").random(count, np.float32) + np.float32(0.5)) * np.float32(mean)
        records["d"] = (spread.astype(np.float16).view(np.uint16) | signs).view(np.float16)
        return records

    def _rng(self, name: str) -> np.random.Generator:
        return np.random.Generator(np.random.SFC64([self._seed, zlib.crc32(name.encode())]))
