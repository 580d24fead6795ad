"""Operations on one row: meaning in double precision, the same bits on every ISA, tails, guards, strange values."""

import math
from collections.abc import Callable

import numpy as np
import pytest
from numpy.random import Generator
from numpy.typing import NDArray

from localinfer import _native as native

from .arrays import EPS, Floats, Guarded, assert_close, same_bits, shifted

ISAS = native.supported_isas()
SIZES = [1, 2, 7, 8, 9, 15, 16, 17, 31, 33, 64, 1000]
STRANGE = np.array(
    [0.0, -0.0, 1e-45, -1e-45, 1.1754944e-38, 3.4e38, -3.4e38, np.inf, -np.inf, np.nan, 88.7, 88.71, -87.3, -87.31],
    np.float32,
)


def normal(rng: Generator, n: int, offset: int = 0, size: float = 1.0) -> Floats:
    return shifted((rng.normal(size=n) * size).astype(np.float32), offset)


def on_every_isa(call: Callable[[Floats, str], None], n: int) -> Floats:
    """`call(out, isa)` on every ISA; all must write the same bits, inside the guards only."""
    first = Guarded((n,))
    call(first.view, "scalar")
    first.check()
    for isa in ISAS[1:]:
        for offset in (1, 3):
            out = Guarded((n,), offset=offset)
            call(out.view, isa)
            out.check()
            assert same_bits(np.array(out.view), np.array(first.view)), isa
    return np.array(first.view)


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("offset", [0, 1, 3])
def test_rms_norm(n: int, offset: int, rng: Generator) -> None:
    x, w = normal(rng, n, offset, 3.0), normal(rng, n, offset)
    out = on_every_isa(lambda out, isa: native.rms_norm(out, x, w, 1e-6, isa=isa), n)
    wide = x.astype(np.float64)
    expected = wide / np.sqrt((wide**2).mean() + 1e-6) * w
    # n / 16 additions a lane and 4 in the tree, halved by the root; then mean, eps, root, quotient, two products
    assert_close(out, expected, (n / 32 + 8) * EPS * np.abs(expected))


def test_rms_norm_may_write_over_its_input(rng: Generator) -> None:
    x, w = normal(rng, 100), normal(rng, 100)
    apart = np.zeros(100, np.float32)
    native.rms_norm(apart, x, w, 1e-5)
    for isa in ISAS:
        copy = x.copy()
        native.rms_norm(copy, copy, w, 1e-5, isa=isa)
        assert same_bits(copy, apart)


@pytest.mark.parametrize("size", [1e-30, 1e-20, 1e18, 1e30])
def test_rms_norm_of_tiny_and_huge_rows_is_the_same_everywhere(size: float, rng: Generator) -> None:
    x, w = normal(rng, 77, size=size), normal(rng, 77)
    on_every_isa(lambda out, isa: native.rms_norm(out, x, w, 1e-6, isa=isa), 77)


@pytest.mark.parametrize("d", [2, 4, 14, 16, 18, 32, 34, 64, 80, 128, 256])
@pytest.mark.parametrize("offset", [0, 1])
def test_rope(d: int, offset: int, rng: Generator) -> None:
    x = normal(rng, d, offset)
    angles = rng.uniform(0, 100, d // 2)
    cos, sin = shifted(np.cos(angles).astype(np.float32), offset), shifted(np.sin(angles).astype(np.float32), offset)

    def rotate(out: Floats, isa: str) -> None:
        out[:] = x
        native.rope(out, cos, sin, isa=isa)

    seen = on_every_isa(rotate, d)
    a, b = np.split(x.astype(np.float64), 2)
    expected = np.concatenate([a * cos - b * sin, b * cos + a * sin])
    assert_close(seen, expected, 2 * EPS * np.tile(np.hypot(a, b), 2) * math.sqrt(2))


def silu(x: NDArray[np.float64]) -> NDArray[np.float64]:
    with np.errstate(over="ignore"):
        y: NDArray[np.float64] = x / (1 + np.exp(-x))
    return y


def gelu_tanh(x: NDArray[np.float64]) -> NDArray[np.float64]:
    y: NDArray[np.float64] = 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
    return y


def gelu(x: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.array([0.5 * v * math.erfc(-v / math.sqrt(2)) for v in x])


@pytest.mark.parametrize(("activation", "meaning"), [("silu", silu), ("gelu_tanh", gelu_tanh), ("gelu", gelu)])
@pytest.mark.parametrize("n", SIZES)
def test_gated(
    activation: str, meaning: Callable[[NDArray[np.float64]], NDArray[np.float64]], n: int, rng: Generator
) -> None:
    gate, up = normal(rng, n, 1, 4.0), normal(rng, n, 3)
    out = on_every_isa(lambda out, isa: native.gated(out, gate, up, activation, isa=isa), n)
    expected = meaning(gate.astype(np.float64)) * up
    # exp multiplies the relative error of its argument by the argument: 2u stays below 2 |x| + x^3 / 4 here
    x = np.abs(gate).astype(np.float64)
    assert_close(out, expected, (8 + 4 * x + x**3) * EPS * np.abs(expected) + 1e-12)


def test_gelu_is_as_near_as_numerics_says() -> None:
    x = np.linspace(-14, 14, 200_001).astype(np.float32)
    out = on_every_isa(lambda out, isa: native.gated(out, x, np.ones_like(x), "gelu", isa=isa), len(x))
    wide = x.astype(np.float64)
    assert (np.abs(out - gelu(wide)) <= 2.0**-23 * np.maximum(1, np.abs(wide))).all()


@pytest.mark.parametrize("activation", ["silu", "gelu_tanh", "gelu"])
def test_gated_strange_values(activation: str) -> None:
    up = np.ones_like(STRANGE)
    out = on_every_isa(lambda out, isa: native.gated(out, STRANGE, up, activation, isa=isa), len(STRANGE))
    assert out[5] == STRANGE[5]  # far right it is the identity
    assert out[6] == 0  # far left nothing
    assert np.isnan(out[9])


@pytest.mark.parametrize("n", SIZES)
def test_add(n: int, rng: Generator) -> None:
    a, b = normal(rng, n, 1), normal(rng, n, 2)
    assert same_bits(on_every_isa(lambda out, isa: native.add(out, a, b, isa=isa), n), a + b)


def test_outputs_may_be_inputs(rng: Generator) -> None:
    a, b = normal(rng, 50), normal(rng, 50)
    gated = np.zeros(50, np.float32)
    native.gated(gated, a, b, "silu")
    for isa in ISAS:
        for place in (0, 1):
            pair = [a.copy(), b.copy()]
            native.add(pair[place], pair[0], pair[1], isa=isa)
            assert same_bits(pair[place], a + b)
            pair = [a.copy(), b.copy()]
            native.gated(pair[place], pair[0], pair[1], "silu", isa=isa)
            assert same_bits(pair[place], gated)


def test_exp_over_its_whole_range() -> None:
    """One float in 2,000 of all that there are between the two ends, both signs, and what lies outside."""
    top = int(np.float32(90).view(np.uint32))
    patterns = np.arange(0, top, 2003, dtype=np.uint32)
    x = np.concatenate(
        [patterns.view(np.float32), -patterns.view(np.float32), np.linspace(-90, 90, 100_001, dtype="f4")]
    )
    out = on_every_isa(lambda out, isa: native.exp(out, x, isa=isa), len(x))
    inside = (x >= np.float32(-87.3)) & (x <= np.float32(88.7))
    expected = np.exp(x[inside].astype(np.float64))
    assert_close(out[inside], expected, 2.5 * EPS * expected)
    assert (out[x < np.float32(-87.3)] == 0).all()
    assert np.isposinf(out[x > np.float32(88.7)]).all()


def test_exp_strange_values() -> None:
    out = on_every_isa(lambda out, isa: native.exp(out, STRANGE, isa=isa), len(STRANGE))
    assert (out[:5] == 1).all()
    assert np.isposinf(out[[5, 7, 11]]).all()
    assert (out[[6, 8, 13]] == 0).all()
    assert np.isnan(out[9])
    assert 0 < out[12] < np.finfo(np.float32).tiny * 1.04


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("n", [*SIZES, 50_257])
def test_argmax(n: int, isa: str, rng: Generator) -> None:
    x = normal(rng, n, 1)
    assert native.argmax(x, isa=isa) == int(np.argmax(x))
    for place in {0, n // 2, n - 1}:
        y = x.copy()
        y[place] = 100
        y[place + 1 :: 3] = 100  # ties: the lowest index wins
        assert native.argmax(y, isa=isa) == place


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("n", SIZES)
def test_argmax_nan_is_the_smallest(n: int, isa: str) -> None:
    x = np.full(n, np.nan, np.float32)
    assert native.argmax(x, isa=isa) == 0
    x[n - 1] = -np.inf
    assert native.argmax(x, isa=isa) == n - 1
    x[n // 2] = -5
    assert native.argmax(x, isa=isa) == n // 2
    assert native.argmax(np.array([-0.0, 0.0], np.float32), isa=isa) == 0


def quantized(x: Floats, group: int, isa: str, most: int = 127) -> tuple[NDArray[np.int64], Floats, NDArray[np.int32]]:
    """Integers up to `most`, scales and sums; two planes are put together once they are as table.h says."""
    groups, planes = len(x) // group, 1 if most == 127 else 2
    q = Guarded((len(x),) if planes == 1 else (2, len(x)), np.int8, gap=planes - 1)
    scale, total = Guarded((groups,)), Guarded((groups,), np.int32)
    kernel = native.quantize if planes == 1 else native.quantize_16
    kernel(q.view, scale.view, total.view, x, isa=isa)
    for guarded in (q, scale, total):
        guarded.check()
    wide = q.view.astype(np.int64)
    assert np.abs(wide).max() <= 127
    if planes == 2:
        wide = 255 * wide[0] + wide[1]
        assert (q.view[0] == np.rint(wide / 255)).all()
    return wide, np.array(scale.view), np.array(total.view)


@pytest.mark.parametrize("most", [127, 32512])
@pytest.mark.parametrize("group", [1, 7, 16, 24, 32, 64, 80, 128, 256])
@pytest.mark.parametrize("offset", [0, 1])
def test_quantize(group: int, offset: int, most: int, rng: Generator) -> None:
    x = normal(rng, group * 6, offset)
    x[:group] = 0
    x[group : 2 * group] *= np.float32(1e-42)  # too small for most / absmax
    x[2 * group : 3 * group] *= np.float32(1e30)
    q, scale, total = quantized(x, group, "scalar", most)
    for isa in ISAS[1:]:
        other = quantized(x, group, isa, most)
        assert (other[0] == q).all()
        assert same_bits(other[1], scale)
        assert (other[2] == total).all()
    rows = x.reshape(6, group)
    absmax = np.abs(rows).max(1)
    assert same_bits(scale, absmax / np.float32(most))
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        expected = np.rint(rows * (np.float32(most) / absmax)[:, None])  # numpy rounds half to even too
    expected[:2] = 0
    assert (q.reshape(6, group) == expected).all()
    assert (total == q.reshape(6, group).sum(1, dtype=np.int32)).all()
    assert scale[0] == 0


@pytest.mark.parametrize("most", [127, 32512])
def test_quantize_rounds_halves_to_even(most: int) -> None:
    x = np.zeros(32, np.float32)
    x[:6] = [most, 0.5, 1.5, 2.5, -0.5, -1.5]
    for isa in ISAS:
        assert quantized(x, 32, isa, most)[0][:6].tolist() == [most, 0, 2, 2, 0, -2]


@pytest.mark.parametrize("isa", ISAS)
def test_every_value_of_16_bits_is_split_into_planes(isa: str) -> None:
    x = np.append(np.arange(-32512, 32513), np.zeros(63)).astype(np.float32)
    assert (quantized(x, len(x), isa, 32512)[0] == x).all()


@pytest.mark.parametrize("most", [127, 32512])
@pytest.mark.parametrize("bad", [np.inf, -np.inf, np.nan])
def test_quantize_does_not_hide_a_broken_value(bad: float, most: int, rng: Generator) -> None:
    """The scale says it (infinite or NaN), so that the product is NaN; the integers are 0."""
    x = normal(rng, 64)
    x[40] = bad
    for isa in ISAS:
        q, scale, total = quantized(x, 32, isa, most)
        assert not np.isfinite(scale[1])
        assert not q[32:].any()
        assert total[1] == 0
        assert np.isfinite(scale[0])


def test_wrong_sizes_are_refused_at_the_door() -> None:
    x = np.zeros(8, np.float32)
    for call in (
        lambda: native.rms_norm(x, x, x[:7], 1e-6),
        lambda: native.rope(x[:7], x[:3], x[:3]),
        lambda: native.rope(x, x[:3], x[:4]),
        lambda: native.gated(x, x, x[:7], "silu"),
        lambda: native.gated(x, x, x, "relu"),
        lambda: native.add(x, x, x[:7]),
        lambda: native.argmax(x[:0]),
        lambda: native.exp(x, x[:7]),
        lambda: native.quantize(np.zeros(8, np.int8), np.zeros(3, np.float32), np.zeros(3, np.int32), x),
        lambda: native.quantize_16(np.zeros((2, 8), np.int8), np.zeros(3, np.float32), np.zeros(3, np.int32), x),
        lambda: native.quantize_16(np.zeros((1, 8), np.int8), np.zeros(1, np.float32), np.zeros(1, np.int32), x),
    ):
        with pytest.raises(ValueError, match=r"values|must be|empty|groups"):
            call()


def test_an_output_of_another_type_is_refused_not_copied() -> None:
    x = np.zeros(8, np.float32)
    with pytest.raises(TypeError):
        native.exp(np.zeros(8, np.float64), x)
    with pytest.raises(TypeError):
        native.exp(np.zeros(16, np.float32)[::2], x)
