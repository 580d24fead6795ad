"""Drafts are worth their time, or there are none: on a clock that nothing but steps and drafters moves."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from localinfer.speculation.loss_budget import SHARE, STEPS, LossBudget
from localinfer.speculation.record import Record
from tests.speculation.virtual import SLOW_START, Right, Run, Scripted, Time, run


def one(right: Right, *, steps: int = 2000, texts: int = 1, noise: float = 0.0, **drafter: float) -> Run:
    """A run with one drafter."""
    time = Time()
    free = not drafter.get("depth_s")
    scripted = Scripted("one", time, free=free, **drafter)  # type: ignore[arg-type]
    return run(right, [scripted], time, steps=steps, texts=texts, noise=noise)


def bound(plain: float, step: float = 1.0) -> float:
    """The most that so much plain work may take with drafts."""
    return (1 + SHARE) * plain + STEPS * step


WRONG: Right = lambda step, depth: False  # noqa: E731
RIGHT: Right = lambda step, depth: True  # noqa: E731


def lucky(chance: float, seed: int = 1) -> Right:
    rng = random.Random(seed)
    return lambda step, depth: rng.random() < chance


def in_turns(period: int) -> Right:
    """All right for a while, all wrong for as long: what was learned is always wrong."""
    return lambda step, depth: step // period % 2 == 0


def spiteful() -> Right:
    """Right as long as little hangs on it."""
    return lambda step, depth: depth < 1 and step % 3 != 0


@given(
    pattern=st.lists(st.integers(0, 12), min_size=1, max_size=60),
    confidence=st.floats(0, 1),
    length=st.integers(1, 31),
    depth_s=st.sampled_from([0.0, 0.0, 0.01, 0.1, 0.5, 1.5]),
    texts=st.integers(1, 6),
)
@settings(max_examples=60, deadline=None)
def test_whatever_the_text_does_little_time_is_lost(
    pattern: list[int], confidence: float, length: int, depth_s: float, texts: int
) -> None:
    """Also by a drafter that is too sure of itself, dear, and right in the wrong moments."""
    found = one(
        lambda step, depth: depth < pattern[step % len(pattern)],
        steps=200,
        texts=texts,
        confidence=confidence,
        length=length,
        depth_s=depth_s,
    )
    plain_step = found.plain / found.tokens * texts
    # A drafter's price is learned by asking it once.
    assert found.spent <= bound(found.plain, plain_step) + depth_s * length


@pytest.mark.parametrize("right", [WRONG, in_turns(6), in_turns(40), spiteful()])
@pytest.mark.parametrize("depth_s", [0.0, 0.3])
def test_long_runs_that_are_meant_to_hurt(right: Right, depth_s: float) -> None:
    found = one(right, steps=4000, confidence=0.99, length=31, depth_s=depth_s)
    assert found.spent <= bound(found.plain) + depth_s * 31
    assert found.drafted > 0


def test_without_the_ledger_the_bound_would_break(monkeypatch: pytest.MonkeyPatch) -> None:
    """The bound comes from the loss budget and not from luck."""
    monkeypatch.setattr(LossBudget, "allows", lambda self, loss, plain: True)
    found = one(WRONG, steps=60, confidence=0.99, length=31)
    assert found.spent > bound(found.plain)


def test_right_guesses_win_what_there_is_to_win() -> None:
    found = one(RIGHT, confidence=0.9, length=31)
    best = max(n / seconds for n, seconds in SLOW_START.items())
    assert found.speedup > 0.9 * best


@pytest.mark.parametrize(("chance", "least"), [(0.9, 2.6), (0.7, 1.8), (0.5, 1.3), (0.2, 0.98), (0.0, 0.98)])
def test_gains_follow_the_chance(chance: float, least: float) -> None:
    assert one(lucky(chance), confidence=0.6, steps=4000).speedup > least


def test_noise_does_not_mislead_it() -> None:
    assert one(lucky(0.7), confidence=0.6, steps=4000, noise=0.3).speedup > 1.6
    assert one(lucky(0.05), confidence=0.6, steps=4000, noise=0.3).speedup > 0.97


@pytest.mark.parametrize(("depth_s", "least"), [(0.05, 2.0), (0.15, 1.5), (0.6, 1.05)])
def test_a_dear_drafter_is_asked_as_far_as_it_pays(depth_s: float, least: float) -> None:
    assert one(lucky(0.85), confidence=0.85, steps=4000, depth_s=depth_s).speedup > least


def test_a_drafter_that_never_pays_is_asked_less_and_less() -> None:
    time = Time()
    scripted = Scripted("dear", time, free=False, depth_s=0.9, confidence=0.9)
    found = run(lucky(0.2), [scripted], time, steps=4000)
    assert scripted.asked < 120
    assert found.speedup > 0.98
    assert "dear" in found.offs[-1]


def test_a_dear_drafter_must_beat_the_free_one_and_not_only_plain_steps() -> None:
    """Two guesses are to be had for nothing; eight dear ones would win less, but more than none."""
    time = Time()
    dear = Scripted("dear", time, free=False, depth_s=0.3, confidence=0.9)
    found = run(RIGHT, [Scripted("free", time, length=2, confidence=0.9), dear], time, steps=2000)
    assert one(RIGHT, steps=2000, depth_s=0.3, confidence=0.9).speedup > 1.3
    assert dear.asked < 120
    assert found.speedup > 0.97 * one(RIGHT, steps=2000, length=2, confidence=0.9).speedup


@pytest.mark.parametrize("steps", [500, 4000])
def test_a_drafter_that_only_promises_is_not_believed(monkeypatch: pytest.MonkeyPatch, steps: int) -> None:
    """It takes longer than its price says, as one that has to catch up each time."""
    monkeypatch.setattr(Record, "price", lambda self, plain: 0.1)
    time = Time()
    scripted = Scripted("dear", time, free=False, depth_s=0.6, confidence=0.4)
    assert run(lucky(0.4), [scripted], time, steps=steps).speedup > 0.97
    assert scripted.asked < 150


def test_an_empty_purse_fills_again_though_asking_takes_time() -> None:
    """Nothing comes true at first, then all does; asking takes more of a step than the loss budget gets in one."""
    time = Time()
    found = run(lambda step, depth: step > 200, [Scripted("one", time, depth_s=0.01, confidence=0.9)], time, steps=3000)
    assert found.speedup > 4


def test_the_better_of_two_is_taken() -> None:
    """One guesses far, the other little, both always right: the far one is checked."""
    time = Time()
    far, near = Scripted("far", time, length=20, confidence=0.9), Scripted("near", time, length=2, confidence=0.9)
    both, alone = run(RIGHT, [near, far], time, steps=500), one(RIGHT, length=20, confidence=0.9, steps=500)
    assert both.speedup > 0.95 * alone.speedup > 1.5 * one(RIGHT, length=2, confidence=0.9, steps=500).speedup


def test_a_batch_that_has_used_up_the_free_rows_has_no_drafts_and_says_so() -> None:
    time = Time()
    found = run(lucky(0.6), [Scripted("one", time, confidence=0.6)], time, steps=1000, texts=16)
    assert found.offs.count("the batch has used up the free rows") > 800
    assert found.speedup > 0.98


def test_rows_go_to_the_likeliest_texts() -> None:
    time = Time()
    found = run(RIGHT, [Scripted("one", time, length=31, confidence=0.9)], time, steps=50, texts=4)
    assert found.tokens > 50 * 4 * 3
    assert found.drafted <= 50 * 31


def test_some_steps_go_without_drafts() -> None:
    found = one(RIGHT, confidence=0.95, steps=1000)
    assert found.offs.count("one step without, to know its cost") >= 10
