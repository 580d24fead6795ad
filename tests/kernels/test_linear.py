"""Panels times rows: the meaning in double precision, the same bits on every ISA, alone as in a batch."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.random import Generator

from localinfer import _native as native

from .arrays import EPS, Floats, Guarded, aligned, assert_close, same_bits, shifted
from .panels import BITS, PLANES, IntCase, bf16_panel, int_case, int_panel, widened

ISAS = native.supported_isas()
ROWS = [*range(1, 18), 25, 33, 40]


def run(kernel: str, case: IntCase, isa: str, rows: slice = slice(None)) -> Floats:
    """The kernel on some rows of the case, with a gap between the rows of the output."""
    out = Guarded((case.a_scale[rows].shape[0], 32), gap=3)
    getattr(native, kernel)(out.view, case.panel, case.some(rows), case.a_scale[rows], case.a_sum[rows], isa=isa)
    out.check()
    return np.array(out.view)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("kernel", BITS)
@pytest.mark.parametrize(("group", "groups"), [(32, 1), (32, 7), (64, 1), (64, 5), (128, 3)])
def test_int_meaning(kernel: str, group: int, groups: int, isa: str, rng: Generator) -> None:
    case = int_case(rng, kernel, group, group * groups, rows=9)
    expected, size = case.meaning()
    # dots are exact; each group adds one rounded scale product and one rounded fma; dots of two planes, beyond 2^24,
    # are rounded to float too
    assert_close(run(kernel, case, isa), expected, ((1 + PLANES[kernel]) * groups + 1) * EPS * size)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("kernel", BITS)
@pytest.mark.parametrize("group", [32, 64, 128])
def test_int_same_bits_for_any_number_of_rows(kernel: str, group: int, isa: str, rng: Generator) -> None:
    case = int_case(rng, kernel, group, group * 3, rows=max(ROWS))
    alone = np.concatenate([run(kernel, case, "scalar", slice(m, m + 1)) for m in range(max(ROWS))])
    for rows in ROWS:
        assert same_bits(run(kernel, case, isa, slice(rows)), alone[:rows]), f"{rows} rows"


@pytest.mark.parametrize("kernel", BITS)
@pytest.mark.parametrize("group", [32, 64, 128])
def test_two_panels_at_once_give_what_each_gives(kernel: str, group: int, rng: Generator) -> None:
    if "avx2" not in ISAS:
        pytest.skip("the kernels that read two panels by turns are those of AVX2")
    one, other = (int_case(rng, kernel, group, group * 3, rows=1) for _ in range(2))
    apart = [run(kernel, replace(one, panel=case.panel), "scalar") for case in (one, other)]
    both = aligned(2 * one.panel.size)
    both[:] = np.concatenate([one.panel, other.panel])
    out = Guarded((1, 64), gap=3)
    getattr(native, kernel)(out.view, both, one.q, one.a_scale, one.a_sum, isa="avx2")
    out.check()
    assert same_bits(np.array(out.view), np.concatenate(apart, 1))
    with pytest.raises(ValueError, match="panel has"):
        getattr(native, kernel)(out.view, both, one.q, one.a_scale, one.a_sum, isa="scalar")


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("kernel", BITS)
@pytest.mark.parametrize("group", [32, 64, 128])
@pytest.mark.parametrize("sign", [-1, 1])
def test_int_extremes_do_not_saturate(kernel: str, group: int, sign: int, isa: str) -> None:
    """All weights and all activations at an end of their range: 16-bit sums would overflow here."""
    half, planes = 1 << (BITS[kernel] - 1), PLANES[kernel]
    largest = sign * (127 if planes == 1 else 32512)
    ones = np.ones((32, 2), np.float16)
    for w in (-half, half - 1):
        panel = int_panel(np.full((32, 2 * group), w), ones, BITS[kernel])
        for rows in (1, 2, 5, 12):
            q = np.full((rows * planes, 2 * group), sign * 127, np.int8)
            sums = np.full((rows, 2), largest * group, np.int32)
            out = np.zeros((rows, 32), np.float32)
            getattr(native, kernel)(out, panel, q, np.ones((rows, 2), np.float32), sums, isa=isa)
            assert (out == 2 * group * w * largest).all()


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("kernel", BITS)
@pytest.mark.parametrize("rows", [1, 3, 16])
def test_int_strange_scales_give_the_same_bits(kernel: str, rows: int, isa: str, rng: Generator) -> None:
    """Subnormal, huge, infinite and NaN scales: never a crash, never another answer than scalar."""
    case = int_case(rng, kernel, 32, 32 * 4, rows)
    case.scales[:8, 0] = np.array([0x0001, 0x03FF, 0x7BFF, 0x7C00, 0xFC00, 0x7E00, 0x8000, 0x0400], "<u2").view("<f2")
    case.a_scale[:, 1] = np.float32(1e-45)
    case.a_scale[0, 2] = np.float32(3e38)
    case.a_scale[-1, 3] = np.float32(np.nan)
    panel = int_panel(case.values, case.scales, case.bits)
    outs = []
    for name in ("scalar", isa):
        out = np.zeros((rows, 32), np.float32)
        getattr(native, kernel)(out, panel, case.q, case.a_scale, case.a_sum, isa=name)
        outs.append(out)
    assert same_bits(*outs)


def test_int3_planes_hold_every_combination_of_values() -> None:
    """The packer of these tests is a bijection: 2^24 different byte triples for the 2^24 choices of 8 values."""
    n = np.arange(1 << 24, dtype=np.int32)
    v = [(n >> 3 * i & 7).astype(np.uint8) for i in range(8)]
    l0 = (v[0] & 3) | (v[2] >> 1) << 2 | (v[1] & 3) << 4 | (v[3] >> 1) << 6
    l1 = (v[4] & 3) | (v[6] >> 1) << 2 | (v[5] & 3) << 4 | (v[7] >> 1) << 6
    h = (v[6] & 1) | (v[2] & 1) << 1 | (v[0] >> 2) << 2 | (v[4] >> 2) << 3
    h |= (v[7] & 1) << 4 | (v[3] & 1) << 5 | (v[1] >> 2) << 6 | (v[5] >> 2) << 7
    seen = np.zeros(1 << 24, bool)
    seen[l0 + (l1 + h.astype(np.int32) * 256) * 256] = True
    assert seen.all()


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("rows", [1, 32])
def test_int3_unpacks_every_combination_of_values(rows: int, isa: str) -> None:
    """All 2^24 byte triples through the kernel. One-hot rows pick single values; the 8 groups of a panel, 1024 triples,
    are told apart in the sum by activation scales 8^g: everything stays below 2^24, so exact."""
    step = 1 if rows > 1 and isa != "scalar" else 61  # odd: all bits of the index keep changing
    n = (np.arange(0, 1 << 14, step)[:, None] * 1024 + np.arange(1024)).reshape(-1, 8, 2, 64)
    v = [(n >> 3 * i & 7).astype(np.uint8) for i in range(8)]
    tiles = np.zeros((*n.shape[:2], 448), np.uint8)
    tiles[:, :, :64] = np.tile(np.array([0x00, 0x3C], np.uint8), 32)  # scale 1
    planes = tiles[:, :, 64:].reshape(-1, 8, 2, 3, 64)
    planes[:, :, :, 0] = (v[0] & 3) | (v[2] >> 1) << 2 | (v[1] & 3) << 4 | (v[3] >> 1) << 6
    planes[:, :, :, 1] = (v[4] & 3) | (v[6] >> 1) << 2 | (v[5] & 3) << 4 | (v[7] >> 1) << 6
    planes[:, :, :, 2] = (v[6] & 1) | (v[2] & 1) << 1 | (v[0] >> 2) << 2 | (v[4] >> 2) << 3
    planes[:, :, :, 2] |= (v[7] & 1) << 4 | (v[3] & 1) << 5 | (v[1] >> 2) << 6 | (v[5] >> 2) << 7
    q = np.tile(np.eye(32, dtype=np.int8), (1, 8))
    scale = np.tile((8.0 ** np.arange(8)).astype(np.float32), (32, 1))
    sums = np.ones((32, 8), np.int32)
    seen = np.zeros((len(n), 32, 32), np.float32)
    panels = shifted(tiles.reshape(len(n), -1), 0)
    for panel, out in zip(panels, seen, strict=True):
        for m in range(0, 32, rows):
            native.linear_i3(
                out[m : m + rows], panel, q[m : m + rows], scale[m : m + rows], sums[m : m + rows], isa=isa
            )
    for i in range(8):
        digits = np.tensordot(v[i].astype(np.float32), (8.0 ** np.arange(8)).astype(np.float32), (1, 0))
        expected = digits.reshape(-1, 32, 4).transpose(0, 2, 1) - np.float32(4 * (8**8 - 1) // 7)
        assert (seen[:, 4 * i : 4 * i + 4] == expected).all(), i


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("k", [1, 7, 31, 32, 33, 200])
@pytest.mark.parametrize("offset", [0, 1, 3])
def test_bf16(k: int, offset: int, isa: str, rng: Generator) -> None:
    w = (rng.normal(size=(32, k)).astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)
    x = shifted(rng.normal(size=(max(ROWS), k)).astype(np.float32), offset)
    panel = bf16_panel(w)
    wide = widened(w).astype(np.float64)
    expected = x.astype(np.float64) @ wide.T
    size = np.abs(x).astype(np.float64) @ np.abs(wide).T
    alone = np.zeros((max(ROWS), 32), np.float32)
    for m in range(max(ROWS)):
        native.linear_bf16(alone[m : m + 1], panel, x[m : m + 1], isa="scalar")
    assert_close(alone, expected, (k + 1) * EPS * size)
    for rows in ROWS:
        out = Guarded((rows, 32), offset=offset, gap=1)
        native.linear_bf16(out.view, panel, x[:rows], isa=isa)
        out.check()
        assert same_bits(np.array(out.view), alone[:rows]), f"{rows} rows"


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("rows", [1, 3, 12, 13])
def test_bf16_every_weight_gives_the_same_bits(rows: int, isa: str, rng: Generator) -> None:
    """All 2^16 weights, with their subnormals, infinities and NaNs; neighbouring rows differ in every bit."""
    w = np.arange(1 << 16, dtype=np.uint16).reshape(-1, 32, 16)
    w[:, 1::2] ^= 0xFFFF
    x = rng.normal(size=(rows, 16)).astype(np.float32)
    for part in w:
        panel = bf16_panel(part)
        outs = []
        for name in ("scalar", isa):
            out = np.zeros((rows, 32), np.float32)
            native.linear_bf16(out, panel, x, isa=name)
            outs.append(out)
        assert same_bits(*outs)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("kernel", BITS)
def test_rows_may_lie_apart(kernel: str, isa: str, rng: Generator) -> None:
    case = int_case(rng, kernel, 64, 192, rows=10)
    expected = run(kernel, case, isa)
    q = np.full((10 * case.planes, 192 + 5), 99, np.int8)
    scale = np.full((10, 3 + 2), np.nan, np.float32)
    sums = np.full((10, 3 + 2), 12345, np.int32)
    q[:, :192], scale[:, :3], sums[:, :3] = case.q, case.a_scale, case.a_sum
    out = np.zeros((10, 32), np.float32)
    getattr(native, kernel)(out, case.panel, q[:, :192], scale[:, :3], sums[:, :3], isa=isa)
    assert same_bits(out, expected)


def row_count_dependent(kernel: str, case: IntCase, rows: slice) -> Floats:
    """What the contract forbids, on purpose: with 2 rows or more, K is split in two halves, added at the end."""
    groups = case.scales.shape[1]
    if case.a_scale[rows].shape[0] < 2:
        return run(kernel, case, "scalar", rows)
    total = np.zeros((case.a_scale[rows].shape[0], 32), np.float32)
    for half in (slice(0, groups // 2), slice(groups // 2, groups)):
        columns = slice(half.start * case.group, half.stop * case.group)
        panel = int_panel(case.values[:, columns], case.scales[:, half], case.bits)
        out = np.zeros_like(total)
        q, scale, sums = case.some(rows)[:, columns], case.a_scale[rows, half], case.a_sum[rows, half]
        getattr(native, kernel)(out, panel, q, scale, sums, isa="scalar")
        total += out
    return total


@pytest.mark.parametrize("kernel", BITS)
def test_control_a_sum_that_depends_on_the_rows_is_caught(kernel: str, rng: Generator) -> None:
    case = int_case(rng, kernel, 32, 32 * 8, rows=4)
    alone = np.concatenate([row_count_dependent(kernel, case, slice(m, m + 1)) for m in range(4)])
    together = row_count_dependent(kernel, case, slice(4))
    expected, size = case.meaning()
    assert_close(together, expected, 20 * EPS * size)  # a tolerance would have let it pass
    assert not same_bits(together, alone)


Change = dict[str, Any]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"out": np.zeros((3, 32), np.float32)}, "out must be"),
        ({"panel": np.zeros(100, np.uint8)}, "panel has 100 bytes"),
        ({"scale": np.zeros((2, 3), np.float32), "sum": np.zeros((2, 3), np.int32)}, "do not make 3 groups"),
        ({"scale": np.zeros((2, 8), np.float32), "sum": np.zeros((2, 8), np.int32)}, "group is 16"),
        ({"sum": np.zeros((2, 1), np.int32)}, "same groups"),
    ],
)
def test_wrong_sizes_are_refused_at_the_door(change: Change, words: str, rng: Generator) -> None:
    case = int_case(rng, "linear_i4", 64, 128, rows=2)
    good: Change = {
        "out": np.zeros((2, 32), np.float32),
        "panel": case.panel,
        "q": case.q,
        "scale": case.a_scale,
        "sum": case.a_sum,
    }
    native.linear_i4(**good)
    with pytest.raises(ValueError, match=words):
        native.linear_i4(**(good | change))


def test_half_a_row_of_two_planes_is_refused(rng: Generator) -> None:
    case = int_case(rng, "linear_i8_16", 32, 64, rows=2)
    with pytest.raises(ValueError, match="3 rows of q are not whole rows of 2 planes"):
        native.linear_i8_16(np.zeros((1, 32), np.float32), case.panel, case.q[:3], case.a_scale[:1], case.a_sum[:1])


def test_a_panel_must_be_aligned(rng: Generator) -> None:
    case = int_case(rng, "linear_i8", 32, 64, rows=1)
    with pytest.raises(ValueError, match="64 bytes"):
        native.linear_i8(np.zeros((1, 32), np.float32), shifted(case.panel, 16), case.q, case.a_scale, case.a_sum)


def test_an_unknown_kernel_set_names_those_there_are(rng: Generator) -> None:
    x = rng.normal(size=8).astype(np.float32)
    with pytest.raises(ValueError, match="'avx1024' is not supported here; this machine runs: scalar"):
        native.argmax(x, isa="avx1024")
