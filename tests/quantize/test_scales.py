"""The best signed scale: never worse than the plain one, exact in float16, and at home with odd weights."""

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from localinfer.formats.compressed import dequantize
from localinfer.quantize.scales import round_rows

Floats = NDArray[np.float32]
# Signal to noise in dB that normal weights must reach; the theory of a uniform grid with the best scale is near these.
EXPECTED = {(3, 32): 15.6, (3, 64): 14.8, (4, 32): 21.7, (4, 64): 20.8, (4, 128): 20.0, (8, 64): 44.7, (8, 32): 45.7}


def normal(seed: int = 0, rows: int = 64, columns: int = 768) -> Floats:
    return (np.random.default_rng(seed).standard_normal((rows, columns)) * 0.02).astype(np.float32)


def snr(weights: Floats, bits: int, group: int) -> float:
    rounded = round_rows(weights, bits, group)
    error = weights - dequantize(rounded.values, rounded.scales)
    assert rounded.error == pytest.approx(float(np.square(error, dtype=np.float64).sum()), rel=1e-5)
    assert rounded.power == pytest.approx(float(np.square(weights, dtype=np.float64).sum()), rel=1e-9)
    return float(10 * np.log10(rounded.power / rounded.error))


def plain(weights: Floats, bits: int, group: int) -> float:
    """The same measure for the usual scale, absmax / (2**(b-1) - 1)."""
    groups = weights.reshape(-1, group)
    half = 1 << (bits - 1)
    scale = np.abs(groups).max(1, keepdims=True) / (half - 1)
    error = groups - np.clip(np.rint(groups / scale), -half, half - 1) * scale
    return float(10 * np.log10(np.square(groups).sum() / np.square(error).sum()))


@pytest.mark.parametrize(("bits", "group"), EXPECTED)
def test_expected_error(bits: int, group: int) -> None:
    weights = normal()
    assert snr(weights, bits, group) > EXPECTED[bits, group]
    assert snr(weights, bits, group) > plain(weights, bits, group) + 0.05


@pytest.mark.parametrize("bits", [3, 4])
def test_close_to_the_best_there_is(bits: int) -> None:
    """Against trying 4,000 scales for each group."""
    weights = normal(rows=1, columns=32 * 40)
    rounded = round_rows(weights, bits, 32)
    groups, half = weights.reshape(-1, 32), 1 << (bits - 1)
    found = groups - dequantize(rounded.values, rounded.scales).reshape(-1, 32)
    for group, left in zip(groups, found, strict=True):
        top = np.abs(group).max() / half
        scales = np.concatenate([np.linspace(0.4, 1.6, 2000) * top, np.linspace(-1.6, -0.4, 2000) * top])[:, None]
        errors = np.square(group - np.clip(np.rint(group / scales), -half, half - 1) * scales).sum(1)
        assert np.square(left).sum() < errors.min() * 1.06


def test_signs() -> None:
    """The largest weight takes -2**(b-1), whichever sign it has."""
    weights = normal(rows=200, columns=32)
    weights[:, 0] = np.where(np.arange(200) % 2, 0.08, -0.08)
    rounded = round_rows(weights, 4, 32)
    signs = np.sign(rounded.scales[:, 0])
    assert (signs[0::2] > 0).mean() > 0.9
    assert (signs[1::2] < 0).mean() > 0.9
    assert (rounded.values.min(1) == -8).mean() > 0.8


@pytest.mark.parametrize("bits", [3, 4, 5, 8])
def test_idempotent(bits: int) -> None:
    """What was quantized once is not changed by a second time beyond the last place of a scale."""
    first = round_rows(normal(), bits, 32)
    once = dequantize(first.values, first.scales)
    second = round_rows(once, bits, 32)
    assert np.abs(once - dequantize(second.values, second.scales)).max() < np.abs(once).max() * 2e-3
    assert second.error < first.error * 1e-2


Make = Callable[[], Floats]
ODD: dict[str, Make] = {
    "zeros": lambda: np.zeros((3, 64), np.float32),
    "one group of zeros": lambda: np.concatenate([np.zeros((3, 32), np.float32), normal(rows=3, columns=32)], 1),
    "constant": lambda: np.full((3, 64), 0.3, np.float32),
    "constant negative": lambda: np.full((3, 64), -0.3, np.float32),
    "one weight": lambda: np.eye(3, 64, dtype=np.float32),
    "outlier": lambda: np.where(np.arange(192).reshape(3, 64) == 70, np.float32(1000), normal(rows=3, columns=64)),
    "denormal": lambda: np.full((3, 64), 1e-42, np.float32),
    "tiny": lambda: normal(rows=3, columns=64) * np.float32(1e-9),
    "small": lambda: normal(rows=3, columns=64) * np.float32(1e-5),
    "large": lambda: normal(rows=3, columns=64) * np.float32(1e6),
    "negative zero": lambda: np.full((3, 64), -0.0, np.float32),
}


@pytest.mark.parametrize("bits", [3, 4, 5, 8])
@pytest.mark.parametrize("make", ODD.values(), ids=ODD.keys())
def test_odd_weights_give_finite_scales(make: Make, bits: int) -> None:
    weights = make()
    rounded = round_rows(weights, bits, 32)
    half = 1 << (bits - 1)
    assert np.isfinite(rounded.scales).all()
    assert -half <= rounded.values.min() <= rounded.values.max() < half
    groups = weights.reshape(-1, 32)
    step = np.abs(groups).max(1, keepdims=True) / half
    error = np.abs(groups - dequantize(rounded.values, rounded.scales).reshape(-1, 32))
    # At most a clipped step and a half; below float16's reach the weight itself is the error.
    assert (error <= np.maximum(1.8 * step, 1e-6)).all()


def test_too_large_for_float16() -> None:
    with pytest.raises(OverflowError):
        round_rows(np.full((1, 32), 1e7, np.float32), 3, 32)


@pytest.mark.parametrize("bits", [3, 8])
def test_a_group_depends_on_its_own_weights_only(bits: int) -> None:
    weights = normal(rows=70, columns=96 * 32)  # more groups than one pass takes
    whole = round_rows(weights, bits, 32)
    for row in (0, 21, 69):
        alone = round_rows(weights[row : row + 1], bits, 32)
        assert alone.values.tobytes() == whole.values[row].tobytes()
        assert alone.scales.tobytes() == whole.scales[row].tobytes()
