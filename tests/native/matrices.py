"""Random weight matrices: as the numbers they mean, and as they lie on disk."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from localinfer import native

BITS = {"int3": 3, "int4": 4, "int5": 5, "int8": 8, "int8a16": 8, "affine4": 4, "affine5": 5, "mxfp4": 4}
"""Bits of the weights; `int8a16` meets activations of 16 bits."""
Doubles = NDArray[np.float64]


@dataclass(frozen=True)
class Matrix:
    """[rows, cols]; `values` are exact: integer times scale, or bf16. Affine: with `wide`, minima and factors."""

    kind: str
    group: int
    values: Doubles
    stored: tuple[Any, ...] | NDArray[np.uint16]
    wide: int = 0


def pack_words(q: NDArray[np.int64], bits: int) -> NDArray[np.int32]:
    """Signed integers [rows, cols] → the little-endian bit stream of each row, in 32-bit words."""
    rows, cols = q.shape
    unsigned = (q + (1 << (bits - 1))).astype(np.uint8)
    stream = np.unpackbits(unsigned[:, :, None], axis=2, count=bits, bitorder="little").reshape(rows, cols * bits)
    stream = np.pad(stream, ((0, 0), (0, -cols * bits % 32)))
    return np.ascontiguousarray(np.packbits(stream, axis=1, bitorder="little")).view("<i4")


def random_matrix(rng: Generator, kind: str, rows: int, cols: int, group: int = 32) -> Matrix:
    """About unit output for unit input; every integer of the range occurs."""
    size = 1.0 / np.sqrt(cols)
    if kind == "bf16":
        bits = (rng.normal(0, size, (rows, cols)).astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)
        exact = (bits.astype(np.uint32) << 16).view(np.float32).astype(np.float64)
        return Matrix(kind, 0, exact, bits)
    if kind.startswith("affine"):
        return random_affine(rng, kind, rows, cols, group, size)
    if kind == "mxfp4":
        return random_mxfp4(rng, rows, cols, size)
    half = 1 << (BITS[kind] - 1)
    q = rng.integers(-half, half, (rows, cols))
    scales = (rng.uniform(0.5, 2.0, (rows, cols // group)) * 1.7 * size / half).astype(np.float16)
    scales *= rng.choice(np.array([-1, 1], np.float16), scales.shape)
    exact = q * np.repeat(scales.astype(np.float64), group, axis=1)
    return Matrix(kind, group, exact, (pack_words(q, BITS[kind]), scales))


def random_affine(rng: Generator, kind: str, rows: int, cols: int, group: int, size: float) -> Matrix:
    """As many groups share scale and minimum as the columns allow; every q and every factor occurs."""
    per = next(n for n in (8, 4, 2, 1) if cols % (n * group) == 0)
    bits = BITS[kind]
    q = rng.integers(0, 1 << bits, (rows, cols))
    factors = rng.integers(0, 64, (rows, cols // group, 2)).astype(np.uint8)
    sizes = rng.uniform(0.5, 2.0, (2, rows, cols // group // per)) * size / 32 * 2.0 ** (4 - bits)
    halves = (sizes * np.array([0.2, -1.6])[:, None, None]).astype(np.float16)
    wide = np.repeat(halves.astype(np.float64), per, axis=2) * factors.transpose(2, 0, 1)
    scale, minimum = np.repeat(wide, group, axis=2).astype(np.float64)
    stored = (pack_words(q - (1 << bits - 1), bits), *halves, factors.reshape(rows, -1))
    return Matrix(kind, group, q * scale + minimum, stored, per * group)


def random_mxfp4(rng: Generator, rows: int, cols: int, size: float) -> Matrix:
    """Every code occurs, and a power of none."""
    numbers = np.array([0, 1, 2, 3, 4, 6, 8, 12])
    codes = rng.integers(0, 16, (rows, cols))
    powers = rng.integers(-3, 0, (rows, cols // 32)) + int(np.log2(size / 4))
    powers[0, 0] = -127
    scale = np.where(powers == -127, 0, np.exp2(powers.astype(np.float64)))
    exact = np.concatenate([numbers, -numbers])[codes] * np.repeat(scale, 32, axis=1)
    return Matrix("mxfp4", 32, exact, (pack_words(codes - 8, 4), (powers + 127).astype(np.uint8)))


def pack(*parts: Matrix, interleave: bool = False, threads: int = 1) -> native.Weight:
    """The parts stacked by rows, in the kernels' panels."""
    first = parts[0]
    if first.kind == "bf16":
        return native.pack_bf16([p.stored for p in parts if isinstance(p.stored, np.ndarray)], interleave, threads)
    pairs = [p.stored for p in parts if isinstance(p.stored, tuple)]
    if first.kind == "mxfp4":
        return native.pack_mxfp4(pairs, interleave, threads)
    if first.kind.startswith("affine"):
        bits = BITS[first.kind]
        return native.pack_affine(first.group, first.wide, pairs, interleave, threads, bits=bits)
    activations = 16 if first.kind == "int8a16" else 8
    return native.pack_int(BITS[first.kind], first.group, pairs, interleave, threads, activation_bits=activations)
