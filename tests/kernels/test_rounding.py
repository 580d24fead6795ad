"""Rounding of weights: the numpy meaning to the last bit, on every instruction set."""

from typing import Any

import numpy as np
import pytest
from numpy.random import Generator
from numpy.typing import NDArray

from localinfer import _native as native

from .arrays import Floats, Guarded, same_bits, shifted

ISAS = native.supported_isas()
TRIALS = (1 / np.linspace(0.7, 1.15, 12)).astype(np.float32)
TINY = np.float32(1e-12)
SHAPES = [(32, 1), (32, 19), (64, 8), (128, 33)]


def integers(x: NDArray[Any], low: float, high: float) -> Floats:
    clipped: Floats = np.clip(np.rint(x), low, high).astype(np.float32)
    return clipped


def summed(x: Floats) -> Floats:
    total = np.zeros(x.shape[1], np.float32)
    for row in x:
        total = total + row
    return total


def meant_scales(w: Floats, share: Floats, half: float) -> Floats:
    largest = np.abs(w).max(axis=0)
    zero = largest < TINY
    largest[zero] = 1
    weighted, base = w * share, np.float32(half) / largest
    best, found = np.full(w.shape[1], -1, np.float32), np.zeros(w.shape[1], np.float32)
    for trial in TRIALS:
        for sign, low, high in ((1, -half, half - 1), (-1, 1 - half, half)):
            q = integers(w * (base * trial), low, high)
            product, square = summed(weighted * q), summed(q * q * share)
            ratio = product / np.maximum(square, TINY)
            better = product * ratio > best
            best, found = np.where(better, product * ratio, best), np.where(better, sign * ratio, found)
    found[zero] = 0
    q = integers(w / np.where(found == 0, np.float32(np.inf), found), -half, half - 1)
    product, square = summed(weighted * q), summed(q * q * share)
    meant: Floats = np.where(square > 0, product / np.maximum(square, TINY), found)
    return meant


@pytest.mark.parametrize("bits", [3, 4, 5, 8])
@pytest.mark.parametrize(("group", "n"), SHAPES)
@pytest.mark.parametrize("wide", [True, False])
def test_scales(bits: int, group: int, n: int, wide: bool, rng: Generator) -> None:
    w = shifted(rng.normal(size=(group, n)).astype(np.float32), 3)
    w[:, 0] *= np.float32(1e-20)  # nothing
    share = rng.uniform(0.1, 3, (group, n if wide else 1)).astype(np.float32)
    meant = meant_scales(w, share, float(1 << (bits - 1)))
    for isa in ISAS:
        scale = Guarded((n,))
        native.group_scales(scale.view, w, share, TRIALS, bits, isa=isa)
        scale.check()
        assert same_bits(np.array(scale.view), meant)


@pytest.mark.parametrize("bits", [3, 4, 5, 8])
@pytest.mark.parametrize(("group", "n"), SHAPES)
def test_forward(bits: int, group: int, n: int, rng: Generator) -> None:
    half = float(1 << (bits - 1))
    w, weights = (rng.normal(size=(group, n)).astype(np.float32) for _ in range(2))
    scale = rng.normal(size=n).astype(np.float32) / np.float32(half)
    scale[0] = 0
    left = rng.normal(size=(group, group)).astype(np.float32) / np.float32(group)
    wanted, errors, meant = w.copy(), weights.copy(), np.empty_like(w)
    for j in range(group):
        meant[j] = integers(wanted[j] / np.where(scale == 0, np.float32(np.inf), scale), -half, half - 1)
        errors[j] -= meant[j] * scale
        wanted[j + 1 :] += left[j, j + 1 :, None] * errors[j]
    for isa in ISAS:
        q, off = Guarded((group, n), gap=5), Guarded((group, n), gap=2)
        off.view[...] = weights
        native.round_forward(q.view, off.view, w, scale, left, bits, isa=isa)
        q.check()
        off.check()
        assert same_bits(np.array(q.view) + np.float32(0), meant + np.float32(0))
        assert same_bits(np.array(off.view), errors)


@pytest.mark.parametrize("bits", [3, 4, 5, 8])
@pytest.mark.parametrize(("group", "n"), SHAPES)
def test_again(bits: int, group: int, n: int, rng: Generator) -> None:
    half = float(1 << (bits - 1))
    slopes = rng.normal(size=(group, n)).astype(np.float32)
    first = integers(half * rng.normal(size=(group, n)).astype(np.float32), -half, half - 1)
    scale = rng.normal(size=n).astype(np.float32)
    scale[0] = 0
    inner = rng.normal(size=(group, 2 * group)).astype(np.float32)
    inner = np.ascontiguousarray(inner @ inner.T / np.float32(group))
    slope, meant, step = slopes.copy(), first.copy(), np.where(scale == 0, np.float32(np.inf), scale)
    for j in range(group):
        best = integers(slope[j] / (step * inner[j, j]) + meant[j], -half, half - 1)
        change, meant[j] = (best - meant[j]) * scale, best
        slope[j + 1 :] -= inner[j, j + 1 :, None] * change
    for isa in ISAS:
        q = Guarded((group, n), gap=3)
        q.view[...] = first
        native.round_again(q.view, slopes, scale, inner, bits, isa=isa)
        q.check()
        assert same_bits(np.array(q.view) + np.float32(0), meant + np.float32(0))


def test_nan_is_contained(rng: Generator) -> None:
    w = rng.normal(size=(32, 16)).astype(np.float32)
    w[3, 5] = np.nan
    scale, q, off = np.ones(16, np.float32), np.empty_like(w), np.zeros_like(w)
    for isa in ISAS:
        native.round_forward(q, off, w, scale, np.zeros((32, 32), np.float32), 4, isa=isa)
        assert q[3, 5] == -8
        assert np.isfinite(q).all()


def test_shapes_that_do_not_fit_are_refused() -> None:
    w, scale = np.zeros((32, 8), np.float32), np.zeros(8, np.float32)
    square = np.zeros((32, 32), np.float32)
    with pytest.raises(ValueError, match="7 scales of 8 columns"):
        native.group_scales(scale[:7], w, w, TRIALS, 4)
    with pytest.raises(ValueError, match="share is"):
        native.group_scales(scale, w, w[:, :3], TRIALS, 4)
    with pytest.raises(ValueError, match="129 rows"):
        native.group_scales(scale, np.zeros((129, 8), np.float32), w, TRIALS, 4)
    with pytest.raises(ValueError, match="bits is 6"):
        native.round_forward(w.copy(), w.copy(), w, scale, square, 6)
    with pytest.raises(ValueError, match="left must be"):
        native.round_forward(w.copy(), w.copy(), w, scale, square[:, :31], 4)
    with pytest.raises(ValueError, match="q must be"):
        native.round_again(w[:4].copy(), w, scale, square, 4)
