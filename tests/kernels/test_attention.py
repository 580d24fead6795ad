"""KV blocks and attention: what is stored, the meaning in double precision, the same bits on every ISA."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
from numpy.random import Generator
from numpy.typing import NDArray

from localinfer import _native as native

from .arrays import EPS, Bytes, Floats, Guarded, aligned, assert_close, same_bits, shifted

ISAS = native.supported_isas()
Attend = Callable[..., None]


def block_bytes(head_dim: int, bits: int) -> int:
    return 64 * head_dim + 256 if bits == 8 else 128 * head_dim


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
        self, q: Floats, position: int, window: int, scale: float, isa: str, *, rows: int = 1, apart: bool = False
    ) -> Floats:
        out = Guarded(q.shape, gap=5)
        kernel: Attend = native.attend_8 if self.bits == 8 else native.attend_16
        kernel(out.view, self.blocks, self.table, q, position, window, scale, rows=rows, apart=apart, isa=isa)
        out.check()
        return np.array(out.view)


def stored(x: Floats, bits: int) -> NDArray[np.float64]:
    """What remains of rows of keys or values after storing them."""
    if bits == 16:
        halves: NDArray[np.float64] = x.astype(np.float16).astype(np.float64)
        return halves
    scale = np.abs(x).max(1, keepdims=True) / np.float32(127)
    with np.errstate(divide="ignore", invalid="ignore"):
        q = np.nan_to_num(np.rint(x * (np.float32(127) / np.abs(x).max(1, keepdims=True))))
    kept: NDArray[np.float64] = q.astype(np.float64) * scale
    return kept


def filled(rng: Generator, tokens: int, head_dim: int, bits: int, isa: str = "scalar") -> Cache:
    """Unused slots hold NaN and infinities where they can: they must not be looked at."""
    count = (tokens + 31) // 32
    blocks = aligned((count + 1) * block_bytes(head_dim, bits)).reshape(count + 1, -1)
    blocks[:] = 0xFF
    table = rng.permutation(count + 1)[:count].astype(np.int32)
    keys, values = rng.normal(size=(2, tokens, head_dim)).astype(np.float32)
    put = native.kv_put_8 if bits == 8 else native.kv_put_16
    for t in range(tokens):
        put(blocks[table[t // 32]], t % 32, keys[t], values[t], isa=isa)
    return Cache(bits, blocks, table, stored(keys, bits), stored(values, bits))


def spoiled(cache: Cache, first: int, end: int) -> Cache:
    """The same with NaN for the keys and values of tokens first to end - 1."""
    blocks = aligned(cache.blocks.size).reshape(cache.blocks.shape)
    blocks[:] = cache.blocks
    put = native.kv_put_8 if cache.bits == 8 else native.kv_put_16
    broken = np.full(cache.keys.shape[1], np.nan, np.float32)
    for t in range(first, end):
        put(blocks[cache.table[t // 32]], t % 32, broken, broken)
    return Cache(cache.bits, blocks, cache.table, cache.keys, cache.values)


def meaning(cache: Cache, q: Floats, first: int, end: int, scale: float) -> NDArray[np.float64]:
    wide = stored(q, 8) if cache.bits == 8 else q.astype(np.float64)
    scores = scale * wide @ cache.keys[first:end].T
    weights = np.exp(scores - scores.max(1, keepdims=True))
    total: NDArray[np.float64] = weights @ cache.values[first:end] / weights.sum(1, keepdims=True)
    return total


def tolerance(cache: Cache, q: Floats, first: int, end: int, scale: float) -> float:
    """A score is off by its d roundings (16 bit) or 3 (8 bit); exp hands that on to its weight; then one rounding a
    token, twice (numerator and denominator), on values below their largest."""
    head_dim = q.shape[1]
    largest = float((np.abs(q).astype(np.float64) @ np.abs(cache.keys[first:end]).T).max()) * scale
    per_score = (3 if cache.bits == 8 else head_dim + 1) * largest + 4 + largest
    return (2 * per_score + 2 * (end - first) + 16) * EPS * float(np.abs(cache.values[first:end]).max())


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("head_dim", [16, 32, 48, 64, 80, 96, 128, 256, 512])
@pytest.mark.parametrize(("first", "end"), [(0, 1), (0, 33), (7, 300), (0, 600)])
def test_attend(bits: int, head_dim: int, first: int, end: int, rng: Generator) -> None:
    cache = filled(rng, end, head_dim, bits)
    q = shifted(rng.normal(size=(3, head_dim)).astype(np.float32), 1)
    scale = head_dim**-0.5
    scalar = cache.attend(q, first, end, scale, "scalar")
    assert_close(scalar, meaning(cache, q, first, end, scale), tolerance(cache, q, first, end, scale))
    for isa in ISAS[1:]:
        assert same_bits(cache.attend(q, first, end, scale, isa), scalar), isa


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("heads", [1, 2, 3, 4, 5, 6, 7, 8, 9, 17, 64])
def test_a_head_does_not_depend_on_the_others(bits: int, heads: int, rng: Generator) -> None:
    cache = filled(rng, 290, 32, bits)
    q = rng.normal(size=(heads, 32)).astype(np.float32)
    alone = np.concatenate([cache.attend(q[h : h + 1], 3, 290, 0.2, "scalar") for h in range(heads)])
    for isa in ISAS:
        assert same_bits(cache.attend(q, 3, 290, 0.2, isa), alone), isa


@pytest.mark.parametrize("bits", [8, 16])
def test_every_window_gives_the_same_bits_everywhere(bits: int, rng: Generator) -> None:
    """First and last token at, before and after the borders of blocks (32) and cuts (256)."""
    cache = filled(rng, 800, 16, bits)
    q = rng.normal(size=(2, 16)).astype(np.float32)
    edges = [0, 1, 15, 16, 31, 32, 33, 255, 256, 257, 288, 511, 512, 513, 767, 768, 799]
    for first in edges:
        for end in [first + 1, *(edge + 1 for edge in edges if edge > first)]:
            scalar = cache.attend(q, first, end, 0.3, "scalar")
            for isa in ISAS[1:]:
                assert same_bits(cache.attend(q, first, end, 0.3, isa), scalar), (isa, first, end)
            assert_close(scalar, meaning(cache, q, first, end, 0.3), tolerance(cache, q, first, end, 0.3))


@pytest.mark.parametrize("bits", [8, 16])
def test_later_tokens_are_not_looked_at(bits: int, rng: Generator) -> None:
    """What decoding sees and what a longer prompt sees at the same position: equal, whatever comes after."""
    cache = filled(rng, 400, 48, bits)
    q = rng.normal(size=(2, 48)).astype(np.float32)
    for end in (1, 20, 32, 256, 270):
        shorter = spoiled(cache, end, 400)
        for isa in ISAS:
            assert same_bits(shorter.attend(q, 0, end, 0.1, isa), cache.attend(q, 0, end, 0.1, isa))


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("heads", [1, 2, 3, 5, 9])
@pytest.mark.parametrize("window", [0, 1, 20, 40, 300])
def test_rows_together_are_as_each_alone(bits: int, heads: int, window: int, rng: Generator) -> None:
    """Rows that end before, on and after the borders of blocks and cuts; folded and merged; slots after them broken."""
    cache = filled(rng, 570, 48, bits)
    for position, rows in [(0, 1), (0, 33), (29, 7), (250, 12), (255, 1), (256, 17), (540, 8), (3, 300)]:
        q = rng.normal(size=(rows * heads, 48)).astype(np.float32)
        alone = np.concatenate(
            [
                cache.attend_rows(q[m * heads : (m + 1) * heads], position + m, window, 0.2, "scalar")
                for m in range(rows)
            ]
        )
        broken = spoiled(cache, position + rows, 570)
        for isa in ISAS:
            for apart in (False, True):
                seen = broken.attend_rows(q, position, window, 0.2, isa, rows=rows, apart=apart)
                assert same_bits(seen, alone), (isa, position, rows, apart)


@pytest.mark.parametrize("bits", [8, 16])
def test_rows_do_not_see_what_comes_after_them(bits: int, rng: Generator) -> None:
    """A key and value that only the later rows see is NaN: the earlier rows of the same tile do not change."""
    cache = filled(rng, 80, 32, bits)
    q = rng.normal(size=(12 * 3, 32)).astype(np.float32)
    for broken in range(60, 72):
        spoilt = spoiled(cache, broken, broken + 1)
        for isa in ISAS:
            whole = cache.attend_rows(q, 60, 0, 0.2, isa, rows=12)
            seen = spoilt.attend_rows(q, 60, 0, 0.2, isa, rows=12)
            clean = 3 * (broken - 60)
            assert same_bits(seen[:clean], whole[:clean]), (isa, broken)
            assert np.isnan(seen[clean:]).any(1).all(), (isa, broken)


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("scale", [0.0, 1e-30, 30.0, 1e30, -1.0])
def test_flat_sharp_and_overflowing_scores(bits: int, scale: float, rng: Generator) -> None:
    cache = filled(rng, 520, 32, bits)
    q = rng.normal(size=(5, 32)).astype(np.float32)
    scalar = cache.attend(q, 5, 520, scale, "scalar")
    for isa in ISAS[1:]:
        assert same_bits(cache.attend(q, 5, 520, scale, isa), scalar)
    if abs(scale) < 100:
        largest = np.abs(cache.values).max(0)
        assert (np.abs(scalar) <= largest * 1.0001).all()  # a weighted mean


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("where", ["q", "k", "v"])
def test_broken_values_show_and_are_the_same_everywhere(bits: int, bad: float, where: str, rng: Generator) -> None:
    cache = filled(rng, 300, 32, bits)
    q = rng.normal(size=(3, 32)).astype(np.float32)
    k, v = rng.normal(size=(2, 32)).astype(np.float32)
    if where == "q":
        q[1, 7] = bad
    else:
        (k if where == "k" else v)[7] = bad
        put = native.kv_put_8 if bits == 8 else native.kv_put_16
        put(cache.blocks[cache.table[2]], 9, k, v)
    scalar = cache.attend(q, 0, 300, 0.2, "scalar")
    for isa in ISAS[1:]:
        assert same_bits(cache.attend(q, 0, 300, 0.2, isa), scalar), isa
    if where == "q":
        assert not np.isfinite(scalar[1]).all()
        assert np.isfinite(scalar[[0, 2]]).all()


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("head_dim", [16, 48, 64, 128, 512])
def test_put_writes_one_slot_and_the_same_bytes_everywhere(bits: int, head_dim: int, rng: Generator) -> None:
    put = native.kv_put_8 if bits == 8 else native.kv_put_16
    k, v = shifted(rng.normal(size=(2, head_dim)).astype(np.float32), 1)
    k[:4] = [0, 1e-7, 65519, -65520] if bits == 16 else [0, 1e-7, 3, -3]
    for token in (0, 13, 31):
        written = []
        for isa in ISAS:
            block = aligned(block_bytes(head_dim, bits))
            block[:] = 0x5A
            put(block, token, k, v, isa=isa)
            written.append(block)
            assert (block == written[0]).all(), isa
        touched = np.flatnonzero(written[0] != 0x5A)
        keys, values, scales = slots(token, head_dim, bits)
        assert set(touched.tolist()) <= {*keys.ravel().tolist(), *values.ravel().tolist(), *scales.tolist()}
        if bits == 16:
            with np.errstate(over="ignore"):
                assert (written[0][keys].ravel().view(np.float16) == k.astype(np.float16)).all()
                assert (written[0][values].ravel().view(np.float16) == v.astype(np.float16)).all()
        else:
            k_scale, v_scale = written[0][scales].view(np.float32)
            assert k_scale == np.abs(k).max() / np.float32(127)
            assert v_scale == np.abs(v).max() / np.float32(127)
            assert (written[0][keys].ravel().astype(np.int64) - 128 == np.rint(stored(k[None], 8)[0] / k_scale)).all()
            assert (written[0][values].ravel().view(np.int8) == np.rint(stored(v[None], 8)[0] / v_scale)).all()


def slots(token: int, head_dim: int, bits: int) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.intp]]:
    """Byte positions of a token's key, value and scales in a block, from block.h."""
    d = np.arange(head_dim)[:, None]
    if bits == 8:
        keys = d // 4 * 128 + token * 4 + d % 4
        values = 32 * head_dim + token * head_dim + d
        scales = 64 * head_dim + token * 4 + np.array([[0], [128]]) + np.arange(4)
        return keys, values, scales.ravel()
    two = np.arange(2)
    return 64 * d + 2 * token + two, 64 * head_dim + 2 * (token * head_dim + d) + two, np.zeros(0, np.intp)


def test_half_precision_of_every_size(rng: Generator) -> None:
    """Rounding to float16 on every ISA as numpy does it: normal, subnormal, ties, overflow, NaN."""
    halves = np.arange(0, 0x7C00, dtype=np.uint16).view(np.float16).astype(np.float32)
    ties = (halves[:-1] + halves[1:]) / 2
    near = np.concatenate([ties, np.nextafter(ties, np.float32(0)), np.nextafter(ties, np.float32(np.inf)), halves])
    x = np.concatenate([near, -near, np.array([65519.99, 65520, 1e30, np.inf, -np.inf, 1e-45, 2e-8, 3e-8], np.float32)])
    x = np.concatenate([x, np.zeros(-len(x) % 512, np.float32)])
    with np.errstate(over="ignore"):
        expected = x.astype(np.float16).view(np.uint16)
    block = aligned(block_bytes(512, 16))
    for isa in ISAS:
        for start in range(0, len(x), 512):
            row = x[start : start + 512]
            native.kv_put_16(block, 3, row, row, isa=isa)
            assert (block.view(np.uint16)[3 : 512 * 32 : 32] == expected[start : start + 512]).all()


def test_wrong_sizes_are_refused_at_the_door(rng: Generator) -> None:
    cache = filled(rng, 40, 32, 8)
    q = np.zeros((2, 32), np.float32)
    out = np.zeros((2, 32), np.float32)
    bad_table = np.array([0, 9], np.int32)
    calls: list[tuple[Callable[[], object], str]] = [
        (lambda: native.attend_8(out, cache.blocks, cache.table, q, 64, 0, 1.0), "1 rows from position 64"),
        (lambda: native.attend_8(out, cache.blocks, cache.table, q, 63, 0, 1.0, rows=2), "not in 2 blocks"),
        (lambda: native.attend_8(out, cache.blocks, cache.table, q, 3, 0, 1.0, rows=3), "2 queries do not make 3"),
        (lambda: native.attend_8(out, cache.blocks, bad_table, q, 39, 0, 1.0), "no block 9"),
        (lambda: native.attend_16(out, cache.blocks, cache.table, q, 39, 0, 1.0), "4096 expected"),
        (lambda: native.attend_8(out[:1], cache.blocks, cache.table, q, 39, 0, 1.0), "shaped like q"),
        (lambda: native.kv_put_8(cache.blocks[0], 32, q[0], q[0]), "holds 32"),
        (lambda: native.kv_put_8(cache.blocks[0], 1, q[0, :24], q[0, :24]), "multiple of 16"),
        (lambda: native.kv_put_16(cache.blocks[0], 1, q[0], q[0]), "4096 expected"),
    ]
    for call, words in calls:
        with pytest.raises(ValueError, match=words):
            call()
