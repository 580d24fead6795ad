"""The measures against answers that are known, and against plain float64 formulas."""

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from localinfer.evaluate.measures import Measured, join, measure
from localinfer.evaluate.quality import figures_of

LN2 = math.log(2)


def row(*probabilities: float) -> NDArray[np.float32]:
    return np.asarray(np.log([probabilities]), np.float32)


def first(count: int = 1) -> NDArray[np.int32]:
    return np.zeros(count, np.int32)


def test_a_known_divergence() -> None:
    found = measure(row(0.25, 0.5, 0.25), row(0.5, 0.25, 0.25), first())
    assert found.kld[0] == pytest.approx(0.25 * LN2, rel=1e-6)
    assert found.nll[0] == pytest.approx(2 * LN2, rel=1e-6)
    assert found.nll_reference[0] == pytest.approx(LN2, rel=1e-6)
    assert not found.same[0]


def test_it_is_the_divergence_of_the_reference_from_the_model() -> None:
    """KL(P || Q), not KL(Q || P)."""
    p, q = row(0.9, 0.1), row(0.5, 0.5)
    assert measure(q, p, first()).kld[0] == pytest.approx(0.9 * math.log(1.8) + 0.1 * math.log(0.2), rel=1e-6)


def test_equal_rows_differ_by_exactly_nothing() -> None:
    logits = np.random.default_rng(0).standard_normal((20, 500)).astype(np.float32) * 20
    found = measure(logits, logits.copy(), first(20))
    assert found.kld.max() == 0.0
    assert found.same.all()
    assert (found.nll == found.nll_reference).all()


def test_a_constant_added_to_all_scores_changes_nothing() -> None:
    logits = np.arange(64, dtype=np.float32).reshape(2, 32)
    assert measure(logits + np.float32(1000), logits, first(2)).kld.max() < 1e-12


def test_ties_take_the_lowest_token() -> None:
    assert measure(row(0.5, 0.5), row(0.6, 0.4), first()).same[0]
    assert not measure(row(0.5, 0.5), row(0.4, 0.6), first()).same[0]


def test_far_scores_do_not_overflow() -> None:
    p, q = np.array([[80000.0, 0, -80000]], np.float32), np.array([[0.0, 80000, -80000]], np.float32)
    found = measure(q, p, first())
    assert found.kld[0] == 80000
    assert found.nll[0] == 80000
    assert figures_of(found, compared=True)["ppl"] == math.inf


def test_against_the_formula_in_float64() -> None:
    rng = np.random.default_rng(1)
    p = (rng.standard_normal((37, 1000)) * 4).astype(np.float32)
    q = (p + rng.standard_normal(p.shape)).astype(np.float32)
    targets = rng.integers(0, 1000, 37).astype(np.int32)

    def log_softmax(x: NDArray[np.float32]) -> NDArray[np.float64]:
        wide = x.astype(np.float64)
        return np.asarray(wide - np.log(np.exp(wide).sum(axis=1, keepdims=True)), np.float64)

    log_p, log_q = log_softmax(p), log_softmax(q)
    found = measure(q, p, targets)
    np.testing.assert_allclose(found.kld, (np.exp(log_p) * (log_p - log_q)).sum(axis=1), rtol=1e-11)
    np.testing.assert_allclose(found.nll, -log_q[np.arange(37), targets], rtol=1e-12)
    np.testing.assert_allclose(found.nll_reference, -log_p[np.arange(37), targets], rtol=1e-12)
    assert (found.same == (p.argmax(axis=1) == q.argmax(axis=1))).all()


def test_figures() -> None:
    nll, before = np.array([1.0, 2, 3, 4]), np.array([1.0, 1, 2, 2])
    kld, same = np.array([0.1, 0.2, 0.3, 1.0]), np.array([True, True, True, False])
    halves = [Measured(nll[part], before[part], kld[part], same[part]) for part in (slice(0, 1), slice(1, 4))]
    said = figures_of(join(halves), compared=True)
    assert said["tokens"] == 4
    assert said["ppl"] == pytest.approx(math.exp(2.5))
    assert said["ppl_reference"] == pytest.approx(math.exp(1.5))
    assert said["ppl_ratio"] == pytest.approx(math.e)
    assert said["ppl_se"] == pytest.approx(math.exp(2.5) * math.sqrt(5 / 3) / 2)
    assert said["kld_mean"] == pytest.approx(0.4)
    assert said["kld_se"] == pytest.approx(math.sqrt((0.09 + 0.04 + 0.01 + 0.36) / 3) / 2)
    assert said["kld_median"] == pytest.approx(0.25)
    assert said["kld_max"] == 1.0
    assert said["top1_agreement"] == 0.75
    assert said["top1_se"] == pytest.approx(math.sqrt(0.75 * 0.25 / 3))


def test_figures_without_a_reference() -> None:
    found = measure(row(0.25, 0.75), None, first())
    said = figures_of(found, compared=False)
    assert said["ppl"] == pytest.approx(4)
    assert said["ppl_se"] == 0.0  # of one token, nothing can be said
    assert said["kld_mean"] is said["ppl_reference"] is said["top1_agreement"] is None
