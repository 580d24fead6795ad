"""Weight panels made in the plainest way from `native/kernels/block.h`, and quantized rows."""

from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from .arrays import Bytes, Floats, aligned

BITS = {"linear_i4": 4, "linear_i3": 3, "linear_i5": 5, "linear_i8": 8, "linear_i8_16": 8}
RUN = {4: 64, 3: 192, 5: 320, 8: 128}
PLANES = {"linear_i4": 1, "linear_i3": 1, "linear_i5": 1, "linear_i8": 1, "linear_i8_16": 2}


def plane_bytes(stored: NDArray[np.int64], bits: int) -> Bytes:
    """One group of 16 rows, `stored` [16, group] unsigned, as the bytes of block.h."""
    group = stored.shape[1]
    lanes = stored.reshape(16, group // 4, 4).transpose(1, 0, 2).reshape(group // 4, 64)  # [four columns, row*4 + t]
    if bits == 8:
        return lanes.astype(np.uint8)
    if bits == 4:
        return (lanes[0::2] | lanes[1::2] << 4).astype(np.uint8)
    v = lanes.reshape(group // 32, 8, 64).transpose(1, 0, 2)
    if bits == 5:
        vectors = [v[2 * j] & 15 | v[2 * j + 1] >> 1 << 4 for j in range(4)]
        plane = sum((v[2 * j + 1] & 1) << j | v[2 * j] >> 4 << 4 + j for j in range(4))
        return np.stack([*vectors, plane], 1).astype(np.uint8)
    low = (v[0] & 3) | (v[2] >> 1) << 2 | (v[1] & 3) << 4 | (v[3] >> 1) << 6
    high = (v[4] & 3) | (v[6] >> 1) << 2 | (v[5] & 3) << 4 | (v[7] >> 1) << 6
    first = (v[6] & 1) | (v[2] & 1) << 1 | (v[0] >> 2) << 2 | (v[4] >> 2) << 3
    second = (v[7] & 1) << 4 | (v[3] & 1) << 5 | (v[1] >> 2) << 6 | (v[5] >> 2) << 7
    return np.stack([low, high, first | second], 1).astype(np.uint8)


def int_panel(values: NDArray[np.int64], scales: NDArray[np.float16], bits: int) -> Bytes:
    """Panel of signed `values` [32, k] with `scales` [32, groups]."""
    groups = scales.shape[1]
    stored = (values + (1 << (bits - 1))).reshape(2, 16, groups, -1)
    tiles = []
    for g in range(groups):
        tiles.append(scales[:, g].copy().view(np.uint8))
        blocks = [plane_bytes(stored[block, :, g], bits).reshape(-1, RUN[bits]) for block in range(2)]
        tiles.append(np.stack(blocks, 1).ravel())  # they take turns, run by run
    joined = np.concatenate(tiles)
    panel = aligned(joined.size)
    panel[:] = joined
    return panel


def bf16_panel(halves: NDArray[np.uint16]) -> Bytes:
    """Panel of bf16 bit patterns [32, k]."""
    lines = np.ascontiguousarray(halves.T).view(np.uint8).ravel()
    panel = aligned(lines.size)
    panel[:] = lines
    return panel


def widened(halves: NDArray[np.uint16]) -> Floats:
    """bf16 bit patterns as float32, exactly."""
    return (halves.astype(np.uint32) << 16).view(np.float32)


@dataclass(frozen=True)
class IntCase:
    """A panel and rows to multiply it with; `q` is [rows * planes, k], the planes of a row one after the other."""

    bits: int
    group: int
    values: NDArray[np.int64]
    scales: NDArray[np.float16]
    panel: Bytes
    q: NDArray[np.int8]
    a_scale: Floats
    a_sum: NDArray[np.int32]
    planes: int

    def some(self, rows: slice) -> NDArray[np.int8]:
        """`q` of some rows."""
        k = self.q.shape[1]
        return self.q.reshape(-1, self.planes, k)[rows].reshape(-1, k)

    def meaning(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """(result, sum of the sizes of its terms) [rows, 32] in double precision."""
        groups = self.scales.shape[1]
        w = self.values.reshape(32, groups, self.group)
        a = joined(self.q, self.planes).reshape(-1, groups, self.group)
        dots = np.einsum("mgk,rgk->mrg", a, w).astype(np.float64)
        terms = dots * self.scales.astype(np.float64) * self.a_scale.astype(np.float64)[:, None, :]
        return terms.sum(-1), np.abs(terms).sum(-1)


def joined(q: NDArray[np.int8], planes: int) -> NDArray[np.int64]:
    """What rows of `q` mean: themselves, or 255 * high + low of each two."""
    wide = q.astype(np.int64)
    return wide if planes == 1 else 255 * wide[0::2] + wide[1::2]


def int_case(rng: Generator, kernel: str, group: int, k: int, rows: int) -> IntCase:
    """Random weights over the whole range, random rows; one group of zeros, and one group of extremes in each."""
    bits, planes = BITS[kernel], PLANES[kernel]
    half = 1 << (bits - 1)
    groups = k // group
    values = rng.integers(-half, half, (32, k))
    values[:, :group] = np.where(rng.random((32, group)) < 0.5, -half, half - 1)
    scales = rng.uniform(-0.02, 0.02, (32, groups)).astype(np.float16)
    scales[5] = 0
    q = rng.integers(-127, 128, (rows * planes, k)).astype(np.int8)
    q[:planes, :group] = -127
    q[-planes:, :group] = 127
    q[:, -group:] = 0
    a_scale = rng.uniform(0, 0.1, (rows, groups)).astype(np.float32)
    a_sum = joined(q, planes).reshape(rows, groups, group).sum(-1, dtype=np.int32)
    return IntCase(bits, group, values, scales, int_panel(values, scales, bits), q, a_scale, a_sum, planes)
