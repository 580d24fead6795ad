"""The sampler: its filters against numpy, its choices against the distribution they should have."""

import math
from typing import Any

import numpy as np
import pytest
from numpy.random import default_rng
from numpy.typing import NDArray

from localinfer import native

Floats = NDArray[np.float32]
PLAIN: dict[str, Any] = {
    "temperature": 1.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0, "repeat_penalty": 1.0, "seed": 0, "position": 0
}  # fmt: skip
NONE = np.zeros(0, np.int32)


def draw(logits: Floats, recent: NDArray[np.int32] = NONE, **settings: Any) -> int:
    return native.sample(logits.copy(), recent, **(PLAIN | settings))


def softmax(x: NDArray[np.float64]) -> NDArray[np.float64]:
    e = np.exp(x - x.max())
    p: NDArray[np.float64] = e / e.sum()
    return p


def kept(logits: Floats, top_k: int = 0, top_p: float = 1.0, min_p: float = 0.0) -> list[int]:
    """Tokens that pass the filters, by sorting everything."""
    order = np.lexsort((np.arange(len(logits)), -logits.astype(np.float64)))
    if top_k:
        order = order[:top_k]
    p = softmax(logits[order].astype(np.float64))
    order = order[: int(np.searchsorted(np.cumsum(p), top_p * p.sum())) + 1]
    return sorted(int(i) for i in order if logits[i] >= logits.max() + np.log(max(min_p, 1e-300)))


def seen_over(logits: Floats, n: int, **settings: Any) -> NDArray[np.int64]:
    """How often each token is drawn at positions 0 .. n-1."""
    return np.bincount([draw(logits, position=i, **settings) for i in range(n)], minlength=len(logits))


def test_temperature_zero_takes_the_lowest_index_of_the_largest() -> None:
    logits = np.array([1, 5, 2, 5, -7], np.float32)
    assert draw(logits, temperature=0.0) == 1
    assert draw(logits, temperature=0.0, top_k=2, top_p=0.1, min_p=0.9, seed=99) == 1


@pytest.mark.parametrize("temperature", [0.5, 1.0, 1.7])
@pytest.mark.parametrize("seed", [0, 1, 2**64 - 1])
def test_distribution(temperature: float, seed: int) -> None:
    """Chi-square over 20 tokens: 19 degrees of freedom exceed 49 once in 5000 draws; seeds are fixed."""
    logits = default_rng(3).normal(0, 1.5, 20).astype(np.float32)
    n = 8000
    counts = seen_over(logits, n, temperature=temperature, seed=seed)
    expected = n * softmax(logits.astype(np.float64) / temperature)
    assert ((counts - expected) ** 2 / expected).sum() < 49


def test_seeds_are_independent_of_positions() -> None:
    """Different seeds at one position, and one seed at different positions, both give the distribution."""
    logits = np.zeros(8, np.float32)
    counts = np.bincount([draw(logits, seed=i, position=5) for i in range(4000)], minlength=8)
    assert ((counts - 500) ** 2 / 500).sum() < 30
    same = sum(draw(logits, seed=1, position=i) == draw(logits, seed=2, position=i) for i in range(4000))
    assert abs(same - 500) < 100


def test_neighbours_in_position_are_independent() -> None:
    logits = np.zeros(4, np.float32)
    drawn = np.array([draw(logits, position=i) for i in range(8001)])
    pairs = np.bincount(drawn[:-1] * 4 + drawn[1:], minlength=16)
    assert ((pairs - 500) ** 2 / 500).sum() < 45


def mix(x: int) -> int:
    """The finalizer of splitmix64."""
    x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9 % 2**64
    x = (x ^ x >> 27) * 0x94D049BB133111EB % 2**64
    return x ^ x >> 31


def race(logits: Floats, temperature: float, seed: int, position: int) -> int:
    """argmax(logit / temperature + gumbel(hash(seed, position, token))), with exact integers and the libm's log."""
    golden = 0x9E3779B97F4A7C15
    key = mix((mix((seed + golden) % 2**64) + position * golden) % 2**64)
    scores = []
    for token, logit in enumerate(logits):
        u = ((mix((key + (token + 1) * golden) % 2**64) >> 11) + 0.5) / 2**53
        scores.append(float(logit) / temperature - math.log(-math.log(u)))
    return int(np.argmax(scores))


@pytest.mark.parametrize("seed", [0, 42, 2**64 - 1])
def test_the_race(seed: int) -> None:
    logits = default_rng(0).normal(0, 2, 1000).astype(np.float32)
    for position in [0, 1, 2, 1000, 2**40]:
        assert draw(logits, position=position, seed=seed, temperature=0.75) == race(logits, 0.75, seed, position)


def test_frozen() -> None:
    """A change here changes everyone's text for a given seed: it needs a good reason and a line in the changelog."""
    logits = default_rng(0).normal(0, 2, 1000).astype(np.float32)
    assert [draw(logits, position=i, seed=42, temperature=0.8) for i in range(8)] == FROZEN


FROZEN = [779, 219, 270, 211, 219, 848, 443, 351]


@pytest.mark.parametrize(
    "filters",
    [
        {"top_k": 1},
        {"top_k": 7},
        {"top_k": 1000},
        {"top_p": 0.0},
        {"top_p": 0.5},
        {"top_p": 0.95},
        {"top_p": 0.9999},
        {"min_p": 0.2},
        {"min_p": 1.0},
        {"top_k": 30, "top_p": 0.8},
        {"top_k": 30, "top_p": 0.8, "min_p": 0.3},
    ],
    ids=str,
)
def test_filters(filters: dict[str, Any]) -> None:
    """Hot enough that each token that may be drawn is drawn."""
    logits = default_rng(1).normal(0, 1.5, 60).astype(np.float32)
    counts = seen_over(logits, 6000, temperature=50.0, **filters)
    assert list(np.nonzero(counts)[0]) == kept(logits, **filters)


def test_top_p_without_top_k_on_a_flat_vocabulary() -> None:
    """More tokens are needed than the first guess of how many to sort."""
    logits = default_rng(2).normal(0, 0.01, 5000).astype(np.float32)
    allowed = set(kept(logits, top_p=0.5))
    drawn = {draw(logits, top_p=0.5, position=i) for i in range(400)}
    assert 2400 < len(allowed) < 2600
    assert drawn <= allowed
    assert len(drawn) > 300


def test_ties_at_the_border_of_top_k_go_to_lower_indices() -> None:
    logits = np.zeros(10, np.float32)
    logits[7] = 1
    counts = seen_over(logits, 500, top_k=3)
    assert list(np.nonzero(counts)[0]) == [0, 1, 7]


@pytest.mark.parametrize("vocab", [1, 31, 32, 33, 64, 65, 100])
def test_every_place_can_win(vocab: int) -> None:
    """Logits are looked at in blocks: the largest is found wherever it is, and of two the first."""
    for place in range(vocab):
        logits = default_rng(place).normal(0, 1, vocab).astype(np.float32)
        logits[place] = 9
        logits[place + 7 :: 11] = 9
        assert draw(logits, temperature=0.0) == place
        assert draw(logits, top_k=1) == place


@pytest.mark.parametrize("k", [1, 2, 31, 32, 33, 40, 95])
def test_top_k_across_blocks(k: int) -> None:
    logits = default_rng(k).permutation(np.arange(96, dtype=np.float32) / 96)
    counts = seen_over(logits, 40 * k, temperature=50.0, top_k=k)
    assert set(np.nonzero(counts)[0]) <= set(kept(logits, top_k=k))
    assert (counts > 0).sum() > 0.9 * k


def test_penalty() -> None:
    logits = np.array([2.0, 1.5, -1.0, 0.0], np.float32)
    changed = logits.copy()
    settings = PLAIN | {"temperature": 0.0, "repeat_penalty": 2.0}
    recent = np.array([0, 2, 0, 3, 400, -1], np.int32)  # twice counts once; what is no token is passed over
    assert native.sample(changed, recent, **settings) == 1
    assert np.array_equal(changed, np.array([1.0, 1.5, -2.0, 0.0], np.float32))


def test_counted_penalties() -> None:
    logits = np.array([2.0, 1.5, -1.0, 0.0], np.float32)
    answer = np.array([0, 2, 0, 400, -1], np.int32)
    settings = PLAIN | {"temperature": 0.0, "presence_penalty": 0.5, "frequency_penalty": 0.25, "answer": answer}
    assert native.sample(logits, NONE, **settings) == 1
    assert np.array_equal(logits, np.array([1.0, 1.5, -1.75, 0.0], np.float32))


def longest_repetition(text: list[int], token: int) -> int:
    """Tokens before an earlier `token` that are those at the end of `text`, at most; `-1` equals nothing."""
    found = [0]
    for at in range(1, len(text)):
        n = 0
        while text[at] == token and n < at and text[at - 1 - n] == text[-1 - n] != -1:
            n += 1
        found.append(n)
    return max(found)


@pytest.mark.parametrize("allowed", [1, 2, 4])
def test_repetitions_cost(allowed: int) -> None:
    rng = default_rng(allowed)
    for _ in range(50):
        text = rng.integers(-1, 4, rng.integers(0, 40)).astype(np.int32)
        logits = rng.normal(0, 1, 4).astype(np.float32)
        lengths = np.array([longest_repetition(text.tolist(), token) for token in range(4)])
        cost = np.where(lengths >= allowed, 0.5 * 2.0 ** (lengths - allowed), 0)
        wanted = logits - cost
        settings = PLAIN | {"dry_multiplier": 0.5, "dry_base": 2.0, "dry_allowed": allowed, "dry": text}
        native.sample(logits, NONE, **settings)
        assert np.allclose(logits, wanted, atol=1e-5)


def test_a_long_repetition_costs_no_more_than_all() -> None:
    logits = np.zeros(3, np.float32)
    settings = PLAIN | {"temperature": 0.0, "dry_multiplier": 100.0, "dry_base": 100.0}
    assert native.sample(logits, NONE, **settings, dry=np.zeros(5000, np.int32)) == 1
    assert np.isfinite(logits).all()


def cut(logits: Floats, sigma: float, top_k: int, typical: float, top_p: float, min_p: float) -> list[int]:
    """Tokens that pass all cuts, by sorting everything; descending."""
    order = np.lexsort((np.arange(len(logits)), -logits.astype(np.float64)))
    if sigma:
        order = order[logits[order] >= logits.max() - sigma * logits.std(dtype=np.float64)]
    order = order[: top_k or None]
    if typical < 1:
        p = softmax(logits[order].astype(np.float64))
        entropy = -(p * np.log(p)).sum()
        by_type = np.argsort(np.abs(-np.log(p) - entropy), kind="stable")
        n = int(np.searchsorted(np.cumsum(p[by_type]), typical)) + 1
        order = order[np.sort(by_type[:n])]
    p = softmax(logits[order].astype(np.float64))
    order = order[: int(np.searchsorted(np.cumsum(p), top_p)) + 1]
    return [int(i) for i in order if logits[i] >= logits[order].max() + np.log(max(min_p, 1e-300))]


@pytest.mark.parametrize(
    "cuts",
    [
        {"top_n_sigma": 1.0},
        {"top_n_sigma": 2.0, "top_k": 4},
        {"typical_p": 0.3},
        {"typical_p": 0.6, "top_k": 8},
        {"typical_p": 0.9, "top_p": 0.7},
        {"top_n_sigma": 1.5, "typical_p": 0.8, "top_p": 0.9, "min_p": 0.2, "top_k": 12},
    ],
    ids=str,
)
def test_cuts_follow_one_another(cuts: dict[str, Any]) -> None:
    names = ("top_n_sigma", "top_k", "typical_p", "top_p", "min_p")
    usual = {"top_n_sigma": 0.0, "top_k": 0, "typical_p": 1.0, "top_p": 1.0, "min_p": 0.0}
    for case in range(5):
        logits = default_rng(case).normal(0, 1.5, 20).astype(np.float32)
        counts = seen_over(logits, 400, temperature=30.0, **cuts)
        wanted = cut(logits, *((usual | cuts)[name] for name in names))
        assert [int(i) for i in np.nonzero(counts)[0]] == sorted(wanted)


def test_a_cut_that_cuts_nothing_changes_nothing() -> None:
    for position in range(200):
        logits = default_rng(position).normal(0, 3, 100).astype(np.float32)
        settings: dict[str, Any] = {"top_k": 60, "top_p": 0.99, "min_p": 0.001, "position": position}
        assert draw(logits, **settings) == draw(logits, **settings, top_n_sigma=100.0)


def test_top_choices_are_excluded_at_their_share_of_positions() -> None:
    logits = np.log(np.array([0.4, 0.3, 0.2, 0.1], np.float32))
    n = 4000
    always = seen_over(logits, n, xtc_probability=1.0, xtc_threshold=0.15)
    assert always[:2].sum() == 0
    assert abs(always[2] / n - 2 / 3) < 0.03
    sometimes = seen_over(logits, n, xtc_probability=0.5, xtc_threshold=0.15)
    assert abs(sometimes[0] / n - 0.2) < 0.03
    assert np.array_equal(seen_over(logits, 99, xtc_probability=1.0, xtc_threshold=0.5), seen_over(logits, 99))


def test_what_is_forbidden_counts_for_nothing() -> None:
    lowest = np.finfo(np.float32).min
    logits = np.array([1, lowest, 0.9, lowest, -3, lowest], np.float32)
    every: list[dict[str, Any]] = [{"top_n_sigma": 0.5}, {"typical_p": 0.9}, {"xtc_probability": 1.0}]
    for cuts in every:
        assert set(np.nonzero(seen_over(logits, 200, temperature=50.0, **cuts))[0]) <= {0, 2, 4}
    assert draw(np.full(5, lowest, np.float32), top_n_sigma=1.0) == 0


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("filters", [{}, {"top_k": 3}, {"top_p": 0.9}, {"min_p": 0.1}], ids=str)
@pytest.mark.parametrize("bad", [np.nan, -np.nan, np.inf, -np.inf], ids=["NaN", "-NaN", "inf", "-inf"])
def test_nothing_is_drawn_where_a_logit_is_not_finite(bad: float, temperature: float, filters: dict[str, Any]) -> None:
    for vocab in (1, 31, 32, 33, 100):
        for place in {0, vocab // 2, vocab - 1}:
            logits = default_rng(vocab).normal(0, 1, vocab).astype(np.float32)
            logits[place] = bad
            before = logits.copy()
            settings = PLAIN | {"temperature": temperature, "repeat_penalty": 2.0} | filters
            assert native.sample(logits, np.arange(vocab, dtype=np.int32), **settings) == -1
            assert np.array_equal(logits, before, equal_nan=True)


def test_the_largest_finite_numbers() -> None:
    largest = np.finfo(np.float32).max
    logits = np.array([-largest, largest, 0, largest / 2], np.float32)
    assert {draw(logits, temperature=t, seed=seed) for t in (0.0, 1.0) for seed in range(5)} == {1}
    penalized = {"temperature": 1.0, "repeat_penalty": 0.5}  # doubled, the second is infinite
    assert native.sample(logits, np.array([0, 1], np.int32), **(PLAIN | penalized)) == 1


def test_the_coldest_and_the_hottest() -> None:
    logits = default_rng(4).normal(0, 1, 50).astype(np.float32)
    assert {draw(logits, temperature=1e-30, seed=i) for i in range(50)} == {int(logits.argmax())}
    assert len({draw(logits, temperature=1e30, seed=i) for i in range(500)}) == 50


def test_skipping_hopeless_tokens_changes_nothing() -> None:
    """The short cut past tokens that cannot win, against the whole race in numpy from the same draws: a token that wins
    among all wins among itself and any other."""
    logits = default_rng(5).normal(0, 3, 300).astype(np.float32)
    for position in range(40):
        winner = draw(logits, position=position)
        for other in range(0, 300, 7):
            pair = np.full(300, np.finfo(np.float32).min, np.float32)
            pair[[winner, other]] = logits[[winner, other]]
            assert draw(pair, position=position) == winner


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"temperature": -1.0}, "temperature is -1"),
        ({"temperature": float("nan")}, "temperature is"),
        ({"top_p": 1.5}, "top_p is 1.5"),
        ({"min_p": -0.1}, "min_p is -0.1"),
        ({"repeat_penalty": 0.0}, "repeat_penalty is 0"),
        ({"typical_p": 2.0}, "typical_p is 2"),
        ({"xtc_probability": float("nan")}, "xtc_probability is"),
        ({"top_n_sigma": -1.0}, "top_n_sigma is -1"),
        ({"dry_base": 0.5}, "dry_base is 0.5"),
        ({"presence_penalty": float("inf")}, "presence_penalty is inf"),
    ],
)
def test_bad_settings(change: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        draw(np.zeros(4, np.float32), **change)


def test_bad_arrays() -> None:
    with pytest.raises(ValueError, match="0 logits"):
        draw(np.zeros(0, np.float32))
    with pytest.raises(TypeError):
        native.sample(np.zeros(4, np.float64), NONE, **PLAIN)
    with pytest.raises(TypeError):
        draw(np.zeros(4, np.float32), top_k=-1)


@pytest.mark.parametrize(("vocab", "told"), [(64, 8), (61, 8), (64, 7), (61, 20), (3, 1), (9, 0)])
def test_what_may_not_follow_is_held_back(vocab: int, told: int) -> None:
    rng = default_rng(vocab)
    logits, bits = rng.normal(0, 3, vocab).astype(np.float32), rng.integers(0, 256, told).astype(np.uint8)
    may = np.zeros(vocab, bool)
    known = np.unpackbits(bits, bitorder="little").astype(bool)[:vocab]
    may[: len(known)] = known
    held = logits.copy()
    native.hold(held, bits)
    np.testing.assert_array_equal(held, np.where(may, logits, np.finfo(np.float32).min))


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_numbers_that_are_none_are_seen(bad: float) -> None:
    numbers = np.full(1000, np.finfo(np.float32).max, np.float32)
    assert native.all_finite(numbers)
    numbers[777] = bad
    assert not native.all_finite(numbers)
    assert native.all_finite(numbers[:777])
