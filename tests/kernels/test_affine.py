"""Panels of affine weights and of MXFP4 times rows: the meaning in double precision, the scalar bits on every kernel
set, those of integers of 8 bits, the door."""

import numpy as np
import pytest
from numpy.random import Generator
from numpy.typing import NDArray

from localinfer import _native as native

from .arrays import EPS, Bytes, Floats, Guarded, aligned, assert_close, same_bits
from .panels import RUN, int_panel, plane_bytes
from .test_linear import ROWS

Rows = tuple[NDArray[np.int8], Floats, NDArray[np.int32]]
FORMS = [(32, 8), (32, 1), (64, 2), (128, 1)]


def affine_panel(
    q: NDArray[np.int64], halves: NDArray[np.float16], factors: NDArray[np.uint8], group: int, bits: int = 4
) -> Bytes:
    """q [32, k], from 0 on; halves [32, k / wide, 2] and factors [32, k / group, 2], the scale's first."""
    parts = [halves.transpose(1, 2, 0).copy().view(np.uint8).ravel()]
    stored = q.reshape(2, 16, -1, group)
    for g in range(stored.shape[2]):
        parts.append(factors[:, g].T.ravel())
        blocks = [plane_bytes(stored[block, :, g], bits).reshape(-1, RUN[bits]) for block in range(2)]
        parts.append(np.stack(blocks, 1).ravel())
    joined = np.concatenate(parts)
    panel = aligned(joined.size)
    panel[:] = joined
    return panel


def some_rows(rng: Generator, rows: int, k: int, group: int) -> Rows:
    q = rng.integers(-127, 128, (rows, k)).astype(np.int8)
    q[0, :group], q[-1, :group] = -127, 127
    sums = q.reshape(rows, -1, group).sum(-1, dtype=np.int32)
    return q, rng.uniform(0, 0.1, sums.shape).astype(np.float32), sums


def run(panel: Bytes, rows: Rows, wide: int, isa: str, count: int, bits: int = 4) -> Floats:
    out = Guarded((count, 32), gap=3)
    q, scale, sums = rows
    linear = native.linear_a5 if bits == 5 else native.linear_a4
    linear(out.view, panel, q[:count], scale[:count], sums[:count], wide, isa=isa)
    out.check()
    return np.array(out.view)


@pytest.mark.parametrize("isa", native.supported_isas())
@pytest.mark.parametrize("bits", [4, 5])
@pytest.mark.parametrize(("group", "per"), FORMS)
def test_meaning_and_the_same_bits_for_any_number_of_rows(
    group: int, per: int, bits: int, isa: str, rng: Generator
) -> None:
    groups, wide = 3 * per, per * group
    k = groups * group
    q = rng.integers(0, 1 << bits, (32, k))
    q[:, :group] = (1 << bits) - 1
    halves = rng.uniform(-0.02, 0.02, (32, 3, 2)).astype(np.float16)
    factors = rng.integers(0, 256, (32, groups, 2)).astype(np.uint8)
    factors[:, 0] = 255
    rows = some_rows(rng, max(ROWS), k, group)
    panel = affine_panel(q, halves, factors, group, bits)
    scale = np.repeat(halves.astype(np.float64), per, axis=1) * factors
    a = (rows[0].reshape(-1, groups, group) * rows[1].astype(np.float64)[:, :, None]).reshape(-1, k)
    w, least = (np.repeat(scale[:, :, i], group, axis=1) for i in range(2))
    size = np.abs(a) @ (np.abs(q * w) + np.abs(least)).T
    each = ((rows[0][m : m + 1], rows[1][m : m + 1], rows[2][m : m + 1]) for m in range(max(ROWS)))
    alone = np.concatenate([run(panel, one, wide, "scalar", 1, bits) for one in each])
    assert_close(alone, a @ (q * w + least).T, (4 * groups + 1) * EPS * size)
    for count in ROWS:
        assert same_bits(run(panel, rows, wide, isa, count, bits), alone[:count]), f"{count} rows"


@pytest.mark.parametrize("isa", native.supported_isas())
@pytest.mark.parametrize("bits", [4, 5])
def test_zero_points_give_what_eight_bits_give(bits: int, isa: str, rng: Generator) -> None:
    """`scale * (q - zero)`, in numbers that no sum rounds: the same as integers of 8 bits."""
    q, zeros = rng.integers(0, 1 << bits, (32, 256)), rng.integers(0, (1 << bits) + 1, (32, 2))
    scales = np.exp2(rng.integers(-6, 0, (32, 2))).astype(np.float16)
    activations, _, sums = some_rows(rng, 9, 256, 128)
    ones = np.ones(sums.shape, np.float32)
    factors = np.stack([np.ones_like(zeros), zeros], axis=2).astype(np.uint8)
    panel = affine_panel(q, np.stack([scales, -scales], axis=2), factors, 128, bits)
    wide = int_panel(q - np.repeat(zeros, 128, axis=1), scales, 8)
    expected = np.zeros((9, 32), np.float32)
    native.linear_i8(expected, wide, activations, ones, sums, isa="scalar")
    assert np.array_equal(run(panel, (activations, ones, sums), 128, isa, 9, bits), expected)


@pytest.mark.parametrize("isa", native.supported_isas())
@pytest.mark.parametrize("groups", [1, 4, 7])
def test_mxfp4_gives_the_bits_of_eight_bits(groups: int, isa: str, rng: Generator) -> None:
    """Twice the numbers are integers, and the powers float16."""
    numbers = np.array([0, 1, 2, 3, 4, 6, 8, 12])
    codes = rng.integers(0, 16, (32, 32 * groups))
    codes[:16, :32], codes[16:, :32] = 7, 15
    powers = rng.integers(-24, 16, (32, groups))
    stored = codes.reshape(2, 16, groups, 32)
    lines = np.zeros((groups + 1 & ~1, 32), np.uint8)
    lines[:groups] = (powers + 127).T
    tiles = [plane_bytes(stored[block, :, g], 4).reshape(-1, 64) for g in range(groups) for block in range(2)]
    joined = np.concatenate(
        [lines.ravel(), *(np.stack(two, 1).ravel() for two in zip(tiles[::2], tiles[1::2], strict=True))]
    )
    panel = aligned(joined.size)
    panel[:] = joined
    wide = int_panel(
        np.concatenate([numbers, -numbers])[codes], np.exp2(powers.astype(np.float32)).astype(np.float16), 8
    )
    q, scale, sums = some_rows(rng, max(ROWS), 32 * groups, 32)
    alone = np.zeros((max(ROWS), 32), np.float32)
    native.linear_i8(alone, wide, q, scale, sums, isa="scalar")
    for count in ROWS:
        out = Guarded((count, 32), gap=3)
        native.linear_mx4(out.view, panel, q[:count], scale[:count], sums[:count], isa=isa)
        out.check()
        assert same_bits(np.array(out.view), alone[:count]), f"{count} rows"


@pytest.mark.parametrize(
    ("wide", "short", "words"), [(96, 0, "96 columns share"), (32, 0, "panel has"), (64, 64, "panel has")]
)
def test_wrong_sizes_are_refused_at_the_door(wide: int, short: int, words: str, rng: Generator) -> None:
    q = rng.integers(0, 16, (32, 192))
    factors, halves = np.ones((32, 6, 2), np.uint8), np.ones((32, 3, 2), np.float16)
    panel = affine_panel(q, halves, factors, 32)
    with pytest.raises(ValueError, match=words):
        run(panel[: panel.size - short], some_rows(rng, 2, 192, 32), wide, "", 2)


@pytest.mark.parametrize("bits", [4, 5])
@pytest.mark.parametrize(("group", "per"), FORMS)
def test_two_panels_at_once_give_what_each_gives(group: int, per: int, bits: int, rng: Generator) -> None:
    if "avx2" not in native.supported_isas():
        pytest.skip("the kernels that read two panels by turns are those of AVX2")
    groups, wide = 3 * per, per * group
    rows = some_rows(rng, 1, groups * group, group)
    panels = [
        affine_panel(
            rng.integers(0, 1 << bits, (32, groups * group)),
            rng.uniform(-0.02, 0.02, (32, 3, 2)).astype(np.float16),
            rng.integers(0, 256, (32, groups, 2)).astype(np.uint8),
            group,
            bits,
        )
        for _ in range(2)
    ]
    both, out = aligned(2 * panels[0].size), Guarded((1, 64), gap=3)
    both[:] = np.concatenate(panels)
    linear = native.linear_a5 if bits == 5 else native.linear_a4
    linear(out.view, both, *rows, wide, isa="avx2")
    out.check()
    assert same_bits(np.array(out.view), np.concatenate([run(p, rows, wide, "scalar", 1, bits) for p in panels], 1))
