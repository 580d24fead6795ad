"""Filled caches for the tests of KV blocks and attention, and what they hold."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from localinfer import _native as native

from .arrays import Bytes, Floats, Guarded, aligned

Attend = Callable[..., None]
ATTEND: dict[int, Attend] = {4: native.attend_4, 8: native.attend_8, 16: native.attend_16}
PUT: dict[int, Callable[..., None]] = {4: native.kv_put_4, 8: native.kv_put_8, 16: native.kv_put_16}


def block_bytes(head_dim: int, bits: int) -> int:
    return {4: 36 * head_dim, 8: 64 * head_dim + 256, 16: 128 * head_dim}[bits]


def allowed(head_dim: int, bits: int) -> int:
    """`head_dim`, or the next one that a cache of 4 bits can have."""
    return -(-head_dim // 32) * 32 if bits == 4 else head_dim


@dataclass(frozen=True)
class Cache:
    """A filled cache of one layer and KV head, its blocks in shuffled order, and what it holds in double precision."""

    bits: int
    blocks: Bytes
    table: NDArray[np.int32]
    keys: NDArray[np.float64]
    values: NDArray[np.float64]

    def attend(self, q: Floats, first: int, end: int, scale: float, isa: str) -> Floats:
        """One row, which sees tokens first to end - 1."""
        return self.attend_rows(q, end - 1, end - first, scale, isa)

    def attend_rows(
        self,
        q: Floats,
        position: int,
        window: int,
        scale: float,
        isa: str,
        *,
        rows: int = 1,
        apart: bool = False,
        softcap: float = 0.0,
    ) -> Floats:
        out = Guarded(q.shape, gap=5)
        where = (out.view, self.blocks, self.table, q, position, window, scale)
        ATTEND[self.bits](*where, rows=rows, apart=apart, isa=isa, softcap=softcap)
        out.check()
        return np.array(out.view)


def stored(x: Floats, bits: int) -> NDArray[np.float64]:
    """What remains of rows of keys or values after storing them."""
    if bits == 16:
        halves: NDArray[np.float64] = x.astype(np.float16).astype(np.float64)
        return halves
    if bits == 4:
        q, scales = in_4_bits(x)
        groups: NDArray[np.float64] = q.astype(np.float64) * scales.astype(np.float64)
        return groups.reshape(x.shape)
    scale = np.abs(x).max(1, keepdims=True) / np.float32(127)
    with np.errstate(divide="ignore", invalid="ignore"):
        q = np.nan_to_num(np.rint(x * (np.float32(127) / np.abs(x).max(1, keepdims=True))))
    kept: NDArray[np.float64] = q.astype(np.float64) * scale
    return kept


def in_4_bits(x: Floats) -> tuple[Floats, NDArray[np.float16]]:
    """Rows of keys or values as q [rows, groups, 32] and scales [rows, groups, 1]."""
    groups = x.reshape(len(x), -1, 32)
    largest = np.abs(groups).max(2, keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        inverse = np.float32(7) / largest
        q = np.where((inverse > 0) & (inverse < np.inf), np.rint(groups * inverse), np.float32(0))
        return q, (largest / np.float32(7)).astype(np.float16)


def filled(rng: Generator, tokens: int, head_dim: int, bits: int, isa: str = "scalar") -> Cache:
    """Unused slots hold NaN and infinities where they can: they must not be looked at."""
    count = (tokens + 31) // 32
    blocks = aligned((count + 1) * block_bytes(head_dim, bits)).reshape(count + 1, -1)
    blocks[:] = 0xFF
    table = rng.permutation(count + 1)[:count].astype(np.int32)
    keys, values = rng.normal(size=(2, tokens, head_dim)).astype(np.float32)
    for t in range(tokens):
        PUT[bits](blocks[table[t // 32]], t % 32, keys[t], values[t], isa=isa)
    return Cache(bits, blocks, table, stored(keys, bits), stored(values, bits))


def spoiled(cache: Cache, first: int, end: int) -> Cache:
    """The same with NaN for the keys and values of tokens first to end - 1."""
    blocks = aligned(cache.blocks.size).reshape(cache.blocks.shape)
    blocks[:] = cache.blocks
    broken = np.full(cache.keys.shape[1], np.nan, np.float32)
    for t in range(first, end):
        PUT[cache.bits](blocks[cache.table[t // 32]], t % 32, broken, broken)
    return Cache(cache.bits, blocks, cache.table, cache.keys, cache.values)
