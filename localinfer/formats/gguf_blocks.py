"""Integers with scales as ggml's blocks of weights have them.

Q8_0, Q5_0 and Q4_0 hold `integer * float16` just as our files do, 32 weights a block. In some other types, too, every
weight is a small integer times the float16 of its block. Q4_1, Q4_K, Q5_1 and Q5_K have minima: a weight is `scale *
factor * q + minimum * factor`, as a form of ours has it as well (graph/affine.py).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

BLOCK = 32
BLOCK_BYTES = {"Q8_0": 34, "Q4_0": 18, "Q5_0": 22}


def blocks_of(kind: str, values: NDArray[np.int8], scales: NDArray[np.float16]) -> NDArray[np.uint8]:
    """int8 [N, K] (for Q4_0 of 4 bits, for Q5_0 of 5) and float16 [N, K / group], group a multiple of 32 → bytes
    [N, K / 32 * size].

    No weight changes.
    """
    rows, columns = values.shape
    out = np.empty((rows, columns // BLOCK, BLOCK_BYTES[kind]), np.uint8)
    spread = np.repeat(scales, columns // BLOCK // scales.shape[1], axis=1)
    out[:, :, :2] = np.ascontiguousarray(spread.astype("<f2")).view(np.uint8).reshape(rows, -1, 2)
    blocks = values.reshape(rows, -1, BLOCK)
    if kind == "Q8_0":
        out[:, :, 2:] = blocks.view(np.uint8)
    else:
        unsigned = (blocks + np.int8(8 if kind == "Q4_0" else 16)).view(np.uint8)
        out[:, :, -16:] = (unsigned[:, :, :16] & 15) | unsigned[:, :, 16:] << 4
        if kind == "Q5_0":
            out[:, :, 2:6] = _high_bits(unsigned)
    return out.reshape(rows, -1)


EXACT_BITS = {"Q8_0": 8, "Q4_0": 4, "Q5_0": 5, "IQ4_NL": 8, "Q3_K": 8}
"""Bits of the integers that hold every weight of a type exactly, as integer times its block's float16."""

_SCALE_AT = {"IQ4_NL": (0, 18, 1), "Q3_K": (108, 110, -1)}
"""Where in a block its scale lies, the block's bytes, and the scale's sign: Q3_K's integers reach from -124 to 128."""


def integers_of(
    kind: str, raw: NDArray[np.uint8], values: NDArray[np.float32] | None = None
) -> tuple[NDArray[np.int8], NDArray[np.float16]]:
    """The bytes of rows of a type in `EXACT_BITS`, uint8 [N, bytes] → int8 [N, K] and float16 [N, K / 32].

    `values` are what the rows mean, float32 [N, K]; those in `BLOCK_BYTES` do without. Raises `ValueError` if integers
    times scales are not exactly these (a scale that is no number).
    """
    if kind in BLOCK_BYTES:
        blocks = raw.reshape(len(raw), -1, BLOCK_BYTES[kind])
        scales = np.ascontiguousarray(blocks[:, :, :2]).view("<f2")[:, :, 0].astype(np.float16, copy=False)
        packed = blocks[:, :, 2:]
        if kind == "Q8_0":
            return np.ascontiguousarray(packed).view(np.int8).reshape(len(raw), -1), scales
        q = _nibbles(packed[:, :, -16:])
        if kind == "Q5_0":
            q |= _spread_bits(packed[:, :, :4]) << 4
        return (q - np.uint8(8 if kind == "Q4_0" else 16)).view(np.int8).reshape(len(raw), -1), scales
    assert values is not None
    begin, size, sign = _SCALE_AT[kind]
    stored = np.ascontiguousarray(raw.reshape(len(raw), -1, size)[:, :, begin : begin + 2]).view("<f2")[:, :, 0]
    every = values.shape[1] // stored.shape[1]
    scales = np.repeat(stored.astype(np.float16) * np.float16(sign), every // BLOCK, axis=1)
    spread = np.repeat(scales.astype(np.float32), BLOCK, axis=1)
    with np.errstate(all="ignore"):
        integers = np.where(spread == 0, np.float32(0), np.rint(values / spread))
        fits = (integers * spread == values) & (integers >= -128) & (integers <= 127)
    if not fits.all():
        raise ValueError(f"{kind} that is not integers times scales")
    return integers.astype(np.int8), scales


AFFINE = {"Q4_1": (4, 32), "Q4_K": (4, 256), "Q5_1": (5, 32), "Q5_K": (5, 256)}
"""Types with minima: bits, and the columns that share a scale and a minimum."""

STORED = {"Q4_1": 20, "Q4_K": 144, "Q5_1": 24, "Q5_K": 176}
"""Bytes of a block of these."""


@dataclass(frozen=True, slots=True)
class Affine:
    """Rows of a type in `AFFINE`: `q` int8 [N, K] from 0 on; scales and minima float16 [N, K / wide]; `factors` uint8
    [N, K / 32, 2], the scale's and the minimum's."""

    q: NDArray[np.int8]
    scales: NDArray[np.float16]
    minima: NDArray[np.float16]
    factors: NDArray[np.uint8]


def affine_of(kind: str, raw: NDArray[np.uint8]) -> Affine:
    """The bytes of rows, uint8 [N, bytes]. Raises `ValueError` for a scale or minimum that is no number."""
    rows = len(raw)
    blocks = raw.reshape(rows, -1, STORED[kind])
    halves = np.ascontiguousarray(blocks[:, :, :4]).view("<f2").astype(np.float16, copy=False)
    if not np.isfinite(halves).all():
        raise ValueError(f"{kind} with scales that are no numbers")
    scales, minima = np.ascontiguousarray(halves[:, :, 0]), np.ascontiguousarray(halves[:, :, 1])
    bits, wide = AFFINE[kind]
    if wide == BLOCK:
        q, factors = _nibbles(blocks[:, :, -16:]), np.ones((rows, blocks.shape[1], 2), np.uint8)
        if bits == 5:
            q |= _spread_bits(blocks[:, :, 4:8]) << 4
    else:
        factors, minima = _unpacked_factors(blocks[:, :, 4:16]), -minima
        q = _nibbles(blocks[:, :, -128:].reshape(rows, -1, 4, BLOCK))
        if bits == 5:  # bit i of a byte belongs to the i-th 32 columns
            planes = blocks[:, :, None, 16:48] >> np.arange(8, dtype=np.uint8)[:, None] << np.uint8(4) & np.uint8(16)
            q |= planes.reshape(q.shape)
    return Affine(q.view(np.int8).reshape(rows, -1), scales, minima, factors)


def affine_blocks_of(kind: str, affine: Affine) -> NDArray[np.uint8]:
    """The inverse: uint8 [N, bytes]. No weight changes."""
    rows, count = affine.scales.shape
    bits, wide = AFFINE[kind]
    halves = np.stack([affine.scales, affine.minima if wide == BLOCK else -affine.minima], axis=2)
    parts = [np.ascontiguousarray(halves.astype("<f2")).view(np.uint8)]
    q = affine.q.view(np.uint8).reshape(rows, count, wide)
    if wide != BLOCK:
        parts.append(_packed_factors(affine.factors.reshape(rows, count, 8, 2)))
    if bits == 5:
        columns = np.ascontiguousarray(q.reshape(rows, count, 8, BLOCK).swapaxes(2, 3)) if wide != BLOCK else q
        parts.append(_high_bits(columns.reshape(rows, count, wide)))
    halved = q.reshape(rows, count, -1, 2, min(wide // 2, BLOCK))
    nibbles: NDArray[np.uint8] = (halved[:, :, :, 0] & np.uint8(15)) | halved[:, :, :, 1] << np.uint8(4)
    parts.append(nibbles.reshape(rows, count, -1))
    return np.concatenate(parts, axis=2).reshape(rows, -1)


MXFP4_BYTES = 17
"""Bytes of a block of MXFP4: a power of two, and 32 codes of 4 bits."""


def mxfp4_of(raw: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """The bytes of rows, uint8 [N, bytes] → codes uint8 [N, K / 2], two neighbours a byte, the first lowest; and powers
    uint8 [N, K / 32]. ggml has a block's first half in the low halves of its bytes."""
    blocks = raw.reshape(len(raw), -1, MXFP4_BYTES)
    codes = _nibbles(blocks[:, :, 1:])
    pairs: NDArray[np.uint8] = codes[:, :, 0::2] | codes[:, :, 1::2] << np.uint8(4)
    return pairs.reshape(len(raw), -1), np.ascontiguousarray(blocks[:, :, 0])


def mxfp4_blocks_of(codes: NDArray[np.uint8], powers: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The inverse: uint8 [N, bytes]."""
    pairs = codes.reshape(*powers.shape, BLOCK // 2)
    values = np.stack([pairs & 15, pairs >> 4], axis=-1).reshape(*powers.shape, BLOCK)
    halves = values[:, :, : BLOCK // 2] | values[:, :, BLOCK // 2 :] << 4
    return np.concatenate([powers[:, :, None], halves], axis=2).reshape(len(powers), -1)


def _nibbles(packed: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The low halves of the bytes along the last axis, then the high ones."""
    return np.concatenate([packed & 15, packed >> 4], axis=-1)


def _spread_bits(packed: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The bits of the bytes along the last axis, the lowest first."""
    return np.unpackbits(packed, axis=-1, bitorder="little")


def _high_bits(values: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Of values of 5 bits, the highest, eight of them in a byte."""
    return np.packbits(values >> 4, axis=-1, bitorder="little")


def _unpacked_factors(raw: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Q4_K's 12 bytes a block, [N, blocks, 12], are eight pairs of 6 bits: uint8 [N, 8 * blocks, 2]."""
    a, b, c = raw[:, :, :4], raw[:, :, 4:8], raw[:, :, 8:]
    scale = np.concatenate([a & 63, (c & 15) | (a >> 6) << 4], axis=2)
    minimum = np.concatenate([b & 63, (c >> 4) | (b >> 6) << 4], axis=2)
    return np.stack([scale, minimum], axis=3).reshape(len(raw), -1, 2)


def _packed_factors(factors: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The inverse: uint8 [N, blocks, 8, 2] to [N, blocks, 12]."""
    low, high = factors[:, :, :4], factors[:, :, 4:]
    ends = low | (high >> 4) << 6
    middle = (high[..., 0] & 15) | (high[..., 1] & 15) << 4
    return np.concatenate([ends[..., 0], ends[..., 1], middle], axis=2)
