"""Attention: the meaning in double precision, the same bits on every ISA."""

from collections.abc import Callable

import numpy as np
import pytest
from numpy.random import Generator
from numpy.typing import NDArray

from localinfer import _native as native

from .arrays import EPS, Floats, aligned, assert_close, same_bits, shifted
from .kv import PUT, Cache, allowed, block_bytes, filled, in_4_bits, spoiled, stored

ISAS = native.supported_isas()


def meaning(cache: Cache, q: Floats, first: int, end: int, scale: float, softcap: float = 0.0) -> NDArray[np.float64]:
    wide = q.astype(np.float64) if cache.bits == 16 else stored(q, 8)
    scores = scale * wide @ cache.keys[first:end].T
    scores = softcap * np.tanh(scores / softcap) if softcap else scores
    weights = np.exp(scores - scores.max(1, keepdims=True))
    total: NDArray[np.float64] = weights @ cache.values[first:end] / weights.sum(1, keepdims=True)
    return total


def tolerance(cache: Cache, q: Floats, first: int, end: int, scale: float) -> float:
    """A score is off by its d roundings (16 bit), 3 (8 bit) or 3 and its groups (4 bit); exp hands that on to its
    weight; then one rounding a token, twice (numerator and denominator), on values below their largest."""
    head_dim = q.shape[1]
    largest = float((np.abs(q).astype(np.float64) @ np.abs(cache.keys[first:end]).T).max()) * scale
    roundings: int = {4: 3 + head_dim // 32, 8: 3, 16: head_dim + 1}[cache.bits]
    per_score = roundings * largest + 4 + largest
    return (2 * per_score + 2 * (end - first) + 16) * EPS * float(np.abs(cache.values[first:end]).max())


@pytest.mark.parametrize("bits", [4, 8, 16])
@pytest.mark.parametrize("head_dim", [16, 32, 48, 64, 80, 96, 128, 256, 512])
@pytest.mark.parametrize(("first", "end"), [(0, 1), (0, 33), (7, 300), (0, 600)])
def test_attend(bits: int, head_dim: int, first: int, end: int, rng: Generator) -> None:
    head_dim = allowed(head_dim, bits)
    cache = filled(rng, end, head_dim, bits)
    q = shifted(rng.normal(size=(3, head_dim)).astype(np.float32), 1)
    scale = head_dim**-0.5
    scalar = cache.attend(q, first, end, scale, "scalar")
    assert_close(scalar, meaning(cache, q, first, end, scale), tolerance(cache, q, first, end, scale))
    for isa in ISAS[1:]:
        assert same_bits(cache.attend(q, first, end, scale, isa), scalar), isa


@pytest.mark.parametrize("bits", [4, 8, 16])
@pytest.mark.parametrize("heads", [1, 2, 3, 4, 5, 6, 7, 8, 9, 17, 64])
def test_a_head_does_not_depend_on_the_others(bits: int, heads: int, rng: Generator) -> None:
    cache = filled(rng, 290, 32, bits)
    q = rng.normal(size=(heads, 32)).astype(np.float32)
    alone = np.concatenate([cache.attend(q[h : h + 1], 3, 290, 0.2, "scalar") for h in range(heads)])
    for isa in ISAS:
        assert same_bits(cache.attend(q, 3, 290, 0.2, isa), alone), isa


@pytest.mark.parametrize("bits", [4, 8, 16])
def test_every_window_gives_the_same_bits_everywhere(bits: int, rng: Generator) -> None:
    """First and last token at, before and after the borders of blocks (32) and KV splits (256)."""
    head_dim = allowed(16, bits)
    cache = filled(rng, 800, head_dim, bits)
    q = rng.normal(size=(2, head_dim)).astype(np.float32)
    edges = [0, 1, 15, 16, 31, 32, 33, 255, 256, 257, 288, 511, 512, 513, 767, 768, 799]
    for first in edges:
        for end in [first + 1, *(edge + 1 for edge in edges if edge > first)]:
            scalar = cache.attend(q, first, end, 0.3, "scalar")
            for isa in ISAS[1:]:
                assert same_bits(cache.attend(q, first, end, 0.3, isa), scalar), (isa, first, end)
            assert_close(scalar, meaning(cache, q, first, end, 0.3), tolerance(cache, q, first, end, 0.3))


@pytest.mark.parametrize("bits", [4, 8, 16])
def test_later_tokens_are_not_looked_at(bits: int, rng: Generator) -> None:
    """What decoding sees and what a longer prompt sees at the same position: equal, whatever comes after."""
    head_dim = allowed(48, bits)
    cache = filled(rng, 400, head_dim, bits)
    q = rng.normal(size=(2, head_dim)).astype(np.float32)
    for end in (1, 20, 32, 256, 270):
        shorter = spoiled(cache, end, 400)
        for isa in ISAS:
            assert same_bits(shorter.attend(q, 0, end, 0.1, isa), cache.attend(q, 0, end, 0.1, isa))


@pytest.mark.parametrize("bits", [4, 8, 16])
@pytest.mark.parametrize("heads", [1, 2, 3, 5, 9])
@pytest.mark.parametrize("window", [0, 1, 20, 40, 300])
def test_rows_together_are_as_each_alone(bits: int, heads: int, window: int, rng: Generator) -> None:
    """Rows that end before, on and after borders of blocks and splits; folded and merged; slots after them broken."""
    head_dim = allowed(48, bits)
    cache = filled(rng, 570, head_dim, bits)
    for position, rows in [(0, 1), (0, 33), (29, 7), (250, 12), (255, 1), (256, 17), (540, 8), (3, 300)]:
        q = rng.normal(size=(rows * heads, head_dim)).astype(np.float32)
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


@pytest.mark.parametrize("bits", [4, 8, 16])
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


@pytest.mark.parametrize("bits", [4, 8, 16])
def test_rows_do_not_see_what_lies_before_their_window(bits: int, rng: Generator) -> None:
    """A key and value that only the earlier rows still see is NaN: the later rows of the same tile do not change."""
    cache = filled(rng, 100, 32, bits)
    q = rng.normal(size=(12 * 3, 32)).astype(np.float32)
    for broken in range(60, 72):  # row m stands at 80 + m and sees tokens from 60 + m on
        spoilt = spoiled(cache, broken, broken + 1)
        for isa in ISAS:
            whole = cache.attend_rows(q, 80, 21, 0.2, isa, rows=12)
            seen = spoilt.attend_rows(q, 80, 21, 0.2, isa, rows=12)
            clean = 3 * (broken - 60 + 1)
            assert same_bits(seen[clean:], whole[clean:]), (isa, broken)
            assert np.isnan(seen[:clean]).any(1).all(), (isa, broken)


@pytest.mark.parametrize("bits", [4, 8, 16])
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


@pytest.mark.parametrize("bits", [4, 8, 16])
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
        PUT[bits](cache.blocks[cache.table[2]], 9, k, v)
    scalar = cache.attend(q, 0, 300, 0.2, "scalar")
    for isa in ISAS[1:]:
        assert same_bits(cache.attend(q, 0, 300, 0.2, isa), scalar), isa
    if where == "q":
        assert not np.isfinite(scalar[1]).all()
        assert np.isfinite(scalar[[0, 2]]).all()


@pytest.mark.parametrize("head_dim", [32, 96, 128])
def test_scores_of_4_bits_are_summed_as_told(head_dim: int, rng: Generator) -> None:
    """Two tokens in float32, in the contract's order, to the bit."""
    q, k, v = rng.normal(size=(3, 2, head_dim)).astype(np.float32)
    k[0, :32] *= 1000  # the groups' order matters
    block = aligned(block_bytes(head_dim, 4))
    for t in range(2):
        native.kv_put_4(block, t, k[t], v[t])
    (k_q, k_scale), (v_q, v_scale) = in_4_bits(k), in_4_bits(v)
    q8, q_scale, q_sum = np.zeros(head_dim, np.int8), np.zeros(1, np.float32), np.zeros(1, np.int32)
    native.quantize(q8, q_scale, q_sum, q[0])
    scores = np.zeros(2, np.float32)
    for g in range(head_dim // 32):
        dot = k_q[:, g] @ q8[32 * g : 32 * g + 32].astype(np.float32)  # below 2^24: exact
        product = dot.astype(np.float64) * k_scale[:, g, 0].astype(np.float64)  # exact in float64
        scores = (product + scores).astype(np.float32)  # rounded twice, which these inputs do not show
    scores *= q_scale[0] * np.float32(0.01)
    weights = np.zeros(2, np.float32)
    native.exp(weights, scores - scores.max(), isa="scalar")
    acc = np.zeros((head_dim // 32, 32), np.float32)
    for t in range(2):
        weight = (weights[t] * v_scale[t].astype(np.float32)).astype(np.float64)
        acc = (weight * v_q[t] + acc).astype(np.float32)
    expected = (acc / (weights[0] + weights[1])).reshape(1, -1)
    for isa in ISAS:
        out = np.zeros((1, head_dim), np.float32)
        native.attend_4(out, block[None], np.zeros(1, np.int32), q[:1], 1, 0, 0.01, isa=isa)
        assert same_bits(out, expected), isa


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
        (lambda: native.kv_put_4(cache.blocks[0], 1, q[0], q[0]), "1152 expected"),
        (lambda: native.kv_put_4(cache.blocks[0], 1, q[0, :16], q[0, :16]), "16, must be a multiple of 32"),
        (lambda: native.attend_4(out, cache.blocks, cache.table, q, 39, 0, 1.0), "1152 expected"),
        (lambda: native.rotate(q[0, :24]), "24 values, must be a multiple of 16"),
    ]
    for call, words in calls:
        with pytest.raises(ValueError, match=words):
            call()


@pytest.mark.parametrize("bits", [4, 8, 16])
@pytest.mark.parametrize("rows", [1, 3, 9])
def test_capped_scores(bits: int, rows: int, rng: Generator) -> None:
    """c tanh(s / c) flattens: no score is off by more than before, but for the six roundings of its own."""
    cache = filled(rng, 300, 64, bits)
    q = rng.normal(size=(2 * rows, 64)).astype(np.float32)
    scalar = cache.attend_rows(q, 290, 100, 1.0, "scalar", rows=rows, softcap=3.0)
    for m in range(rows):
        mine, seen = q[2 * m : 2 * m + 2], (191 + m, 291 + m)
        exact = tolerance(cache, mine, *seen, 1.0) + 2 * 6 * 3.0 * EPS * float(np.abs(cache.values).max())
        assert_close(scalar[2 * m : 2 * m + 2], meaning(cache, mine, *seen, 1.0, 3.0), exact)
    for isa in ISAS:
        for apart in (False, True):
            other = cache.attend_rows(q, 290, 100, 1.0, isa, rows=rows, apart=apart, softcap=3.0)
            assert same_bits(other, scalar), (isa, apart)
