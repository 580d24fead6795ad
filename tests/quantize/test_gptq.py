"""Error feedback and descent on small matrices: what must be equal, what may never be worse, what may not break it."""

import numpy as np
import pytest
import torch
from torch import Tensor

from localinfer.quantize import gptq
from localinfer.quantize.scales import BAD_INPUTS, MEASURED_ROWS, round_rows

GROUP = 32


def matrix(rows: int = 48, columns: int = 128, seed: int = 0) -> Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed)) * 0.02


def moments(columns: int = 128, samples: int = 2000, seed: int = 1, rank: int = 40) -> Tensor:
    """Of inputs that are strongly correlated, some columns much larger than others."""
    draw = torch.Generator().manual_seed(seed)
    mix = torch.randn(rank, columns, generator=draw)
    size = torch.exp(torch.randn(columns, generator=draw))
    x = (torch.randn(samples, rank, generator=draw) @ mix + torch.randn(samples, columns, generator=draw)) * size
    return x.T @ x / samples


def cost(weights: Tensor, fitted: gptq.Fitted, hessian: Tensor) -> Tensor:
    """In double precision, from what is stored."""
    scales = np.repeat(fitted.scales.astype(np.float64), GROUP, axis=1)
    d = weights.double() - torch.from_numpy(fitted.values.astype(np.float64) * scales)
    return ((d @ hessian.double()) * d).sum(1)


@pytest.mark.parametrize("bits", [3, 4, 5, 8])
def test_independent_inputs_round_to_the_nearest(bits: int) -> None:
    weights, eye = matrix(), torch.eye(128)
    plain = round_rows(weights.numpy(), bits, GROUP)
    fitted = gptq.fit(weights, eye, bits, GROUP, sweeps=0)
    assert (fitted.values == plain.values).all()
    assert (fitted.scales == plain.scales).all()
    assert fitted.error.sum() == pytest.approx(plain.error, rel=1e-4)
    assert fitted.power.sum() == pytest.approx(plain.power, rel=1e-4)
    assert gptq.fit(weights, eye, bits, GROUP).error.sum() <= fitted.error.sum() * (1 + 1e-6)


def test_a_diagonal_is_enough_for_the_nearest() -> None:
    """The same integers, and the cost of inputs that are independent; of a tall matrix by some of its rows."""
    weights, power = matrix(), moments().diagonal().clone()
    whole, alone = gptq.fit_nearest(weights, power.diag(), 4, GROUP), gptq.fit_nearest(weights, power, 4, GROUP)
    assert (whole.values == alone.values).all()
    assert (whole.scales == alone.scales).all()
    assert alone.error == pytest.approx(whole.error, rel=1e-4)
    tall = gptq.fit_nearest(weights.repeat(2 * MEASURED_ROWS // len(weights) + 2, 1), power, 4, GROUP)
    measured = tall.power > 0
    assert MEASURED_ROWS // 2 < measured.sum() <= MEASURED_ROWS + 1
    every = alone.error.sum() / alone.power.sum()
    assert tall.error.sum() / tall.power.sum() == pytest.approx(every, rel=0.2)


@pytest.mark.parametrize("bits", [3, 4, 5, 8])
def test_correlated_inputs(bits: int) -> None:
    """Each row at least as good as rounding it, all together far better; integers and scales as they are stored."""
    weights, hessian = matrix(), moments()
    fitted = gptq.fit(weights, hessian, bits, GROUP)
    plain = gptq.fit_nearest(weights, hessian, bits, GROUP)
    unweighted = round_rows(weights.numpy(), bits, GROUP)
    simple = gptq.Fitted(unweighted.values, unweighted.scales, plain.error, plain.power)
    assert (cost(weights, fitted, hessian) <= cost(weights, plain, hessian) * (1 + 1e-4)).all()
    assert cost(weights, fitted, hessian).sum() < 0.5 * cost(weights, plain, hessian).sum()
    assert cost(weights, plain, hessian).sum() < 0.9 * cost(weights, simple, hessian).sum()
    assert fitted.values.dtype == np.int8
    assert fitted.values.min() >= -(1 << (bits - 1))
    assert fitted.values.max() < 1 << (bits - 1)
    assert fitted.scales.dtype == np.float16
    np.testing.assert_allclose(fitted.error, cost(weights, fitted, hessian), rtol=1e-2)


def test_descent_only_improves() -> None:
    weights, hessian = matrix(), moments()
    q, s = gptq.nearest(weights, hessian.diagonal(), 3, GROUP)
    before = gptq.cost(weights, q, s, hessian)
    for _ in range(4):
        q, s = gptq.descend(weights, hessian, q, s, 3, 1)
        after = gptq.cost(weights, q, s, hessian)
        assert (after <= before * (1 + 1e-5)).all()
        before = after
    assert (s == s.half().float()).all()


def test_scales_follow_the_moved_weights() -> None:
    """The second group is zero until the first one's errors are moved into it: a scale from before would be zero."""
    weights = matrix(columns=64)
    weights[:, 32:] = 0
    x = torch.randn(500, 32, generator=torch.Generator().manual_seed(3))
    both = torch.cat([x, x + 0.1 * torch.randn(500, 32, generator=torch.Generator().manual_seed(4))], 1)
    both[:, :32] *= 2  # so that it comes first
    fitted = gptq.fit(weights, both.T @ both / 500, 3, GROUP)
    assert (fitted.scales[:, 1] != 0).all()
    assert (fitted.values[:, 32:] != 0).mean() > 0.3


def test_whole_groups_in_the_order_of_importance() -> None:
    importance = torch.arange(96.0)
    importance[5] = 1000
    order = gptq.order_of_groups(importance, GROUP)
    assert order[:2].tolist() == [5, 31]
    assert order[32:34].tolist() == [95, 94]
    assert sorted(order.tolist()) == list(range(96))


def test_few_inputs() -> None:
    """A rank far below the number of columns."""
    weights, hessian = matrix(), moments(samples=7)
    fitted = gptq.fit(weights, hessian, 4, GROUP)
    assert not fitted.note
    plain = gptq.fit_nearest(weights, hessian, 4, GROUP)
    assert (cost(weights, fitted, hessian) <= cost(weights, plain, hessian) * (1 + 1e-3) + 1e-9).all()


def test_dead_columns_keep_their_weights() -> None:
    weights, hessian = matrix(), moments()
    dead = torch.arange(0, 128, 5)
    hessian[dead] = 0
    hessian[:, dead] = 0
    fitted = gptq.fit(weights, hessian, 4, GROUP)
    assert not fitted.note
    scales = np.repeat(np.abs(fitted.scales.astype(np.float32)), GROUP, axis=1)
    off = np.abs(weights.numpy() - fitted.values * np.repeat(fitted.scales.astype(np.float32), GROUP, axis=1))
    inside = (fitted.values > -8) & (fitted.values < 7)
    assert (off <= scales * 0.501)[:, dead][inside[:, dead]].all()


@pytest.mark.parametrize(
    ("hessian", "note"),
    [
        (torch.full((64, 64), float("nan")), BAD_INPUTS),
        (torch.diag(torch.full((64,), float("inf"))), BAD_INPUTS),
        (torch.zeros(64, 64), gptq.NO_FACTOR),
        (torch.eye(64) - 2 * torch.ones(64, 64), gptq.NO_FACTOR),
    ],
    ids=["nan", "infinity", "no input at all", "not positive definite"],
)
def test_what_cannot_be_used_is_named(hessian: Tensor, note: str) -> None:
    weights = matrix(columns=64)
    fitted = gptq.fit(weights, hessian, 4, GROUP)
    assert fitted.note == note
    plain = round_rows(weights.numpy(), 4, GROUP)
    assert np.abs(fitted.values - plain.values).mean() < 1
    assert np.isfinite(fitted.scales).all()


def test_hard_to_factor_takes_more_damping() -> None:
    hessian = torch.eye(64)
    hessian[0, 1] = hessian[1, 0] = 1.2  # one eigenvalue is -0.2
    found = gptq.factored(hessian, GROUP)
    assert found is not None
    assert 0.2 < found.damping < 0.5
    assert (found.upper.tril(-1) == 0).all()
    damped = hessian[found.order][:, found.order] + found.damping * torch.eye(64)
    torch.testing.assert_close(found.upper @ found.upper.T, damped, rtol=1e-3, atol=1e-3)


def test_zero_and_huge_weights() -> None:
    weights = matrix()
    weights[3] = 0
    weights[4, :32] = 0
    fitted = gptq.fit(weights, moments(), 4, GROUP)
    assert (fitted.values[3] == 0).all() or (fitted.scales[3] == 0).all()
    assert np.isfinite(fitted.scales).all()
    weights[5, 7] = 1e6
    with pytest.raises(OverflowError):
        gptq.fit(weights, moments(), 4, GROUP)
    with pytest.raises(OverflowError):
        gptq.fit_nearest(weights, moments(), 4, GROUP)


def test_weights_move_to_make_up_for_inputs_that_are_off() -> None:
    """Inputs that lost a part of themselves which the others still tell: the moved weights win it back."""
    weights = matrix()
    true = torch.randn(3000, 24, generator=torch.Generator().manual_seed(6)) @ torch.randn(
        24, 128, generator=torch.Generator().manual_seed(7)
    )
    seen = true * torch.linspace(0.5, 1, 128)
    hessian, apart = seen.T @ seen / 3000, (true - seen).T @ seen / 3000
    factor = gptq.factored(hessian, GROUP)
    moved, half = gptq.moved(weights, factor, apart=apart, share=1.0), gptq.moved(weights, factor, apart=apart)
    before, after, between = ((true @ weights.T - seen @ w.T).pow(2).sum() for w in (weights, moved, half))
    assert after < 0.05 * before
    assert between < 0.4 * before
    torch.testing.assert_close(gptq.moved(weights, factor, missing=weights @ apart), half, rtol=1e-3, atol=1e-5)
    assert (gptq.moved(weights, factor, apart=torch.zeros(128, 128)) == weights).all()
    for bad in (torch.full((128, 128), float("nan")), torch.full((128, 128), float("inf"))):
        assert gptq.moved(weights, factor, apart=bad) is weights
        assert gptq.moved(weights, gptq.factored(bad, GROUP), apart=apart) is weights
