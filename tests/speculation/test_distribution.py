"""What is said with guesses has the distribution of what is said without; mistakes that would change it are seen."""

import math
from collections import Counter
from collections.abc import Callable
from itertools import pairwise, product

import numpy as np
import pytest

from localinfer import native
from localinfer.speculation.verify import sample_and_match

VOCAB, LENGTH, TEMPERATURE = 12, 3, 0.9
RNG = np.random.default_rng(8)
TARGET = RNG.normal(0, 1.4, (VOCAB, VOCAB)).astype(np.float32)
"""Logits of the next token by the last one."""
DRAFT = (TARGET + RNG.normal(0, 0.7, (VOCAB, VOCAB))).astype(np.float32)
SEEDS = 40_000
PENALTY = 1.3

Generate = Callable[[int], tuple[int, ...]]


def draw(row: np.ndarray, recent: list[int], seed: int, position: int, penalty: float) -> int:
    return native.sample(row.copy(), np.array(recent, np.int32), TEMPERATURE, 0, 1.0, 0.0, penalty, seed, position)


def plain(seed: int, penalty: float = 1.0) -> tuple[int, ...]:
    text = [0]
    for position in range(LENGTH):
        text.append(draw(TARGET[text[-1]], text, seed, position, penalty))
    return tuple(text[1:])


def chooser(
    known: list[int], drafts: list[int], steps: int, seed: int, penalty: float, mistake: str
) -> Callable[[int, list[int]], int]:
    """How a step checks its guesses, with a `mistake` or without."""
    rows = [*known, *drafts]

    def choose(i: int, taken: list[int]) -> int:
        off = mistake == "bonus row off by one" and i == len(drafts)
        recent = known if mistake == "penalties not advanced" else [*known, *taken]
        position = steps + i if mistake == "keyed by step" else len(known) - 1 + len(taken)
        return draw(TARGET[rows[len(known) - 1 + i - off]], recent, seed, position, penalty)

    return choose


def guessed(seed: int, penalty: float = 1.0, mistake: str = "") -> tuple[int, ...]:
    """The same with two guesses a step by another model that draws alike; `mistake` names one that must be seen."""
    text, steps = [0], 0
    while len(text) <= LENGTH:
        ahead = list(text)
        for _ in range(2):
            ahead.append(draw(DRAFT[ahead[-1]], ahead, seed, len(ahead) - 1, penalty))
        drafts, known = ahead[len(text) :], list(text)

        text += sample_and_match(drafts, chooser(known, drafts, steps, seed, penalty, mistake))
        steps += 1
    return tuple(text[1 : LENGTH + 1])


def exact() -> dict[tuple[int, ...], float]:
    scaled = TARGET.astype(np.float64) / TEMPERATURE
    p = np.exp(scaled - scaled.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    found = {}
    for text in product(range(VOCAB), repeat=LENGTH):
        chain = [0, *text]
        found[text] = math.prod(p[a, b] for a, b in pairwise(chain))
    return found


def chi_square(generate: Generate, seeds: int) -> tuple[float, int]:
    """Of all texts of three tokens, those that are rarely expected taken together; and the degrees of freedom."""
    counts, expected = Counter(generate(seed) for seed in range(seeds)), exact()
    rare = {text for text, p in expected.items() if p * seeds < 5}
    cells = [(counts[text], p * seeds) for text, p in expected.items() if text not in rare]
    cells.append((sum(counts[text] for text in rare), seeds * sum(expected[text] for text in rare)))
    return sum((seen - wanted) ** 2 / wanted for seen, wanted in cells), len(cells) - 1


@pytest.mark.parametrize("generate", [plain, guessed])
def test_the_joint_distribution_of_three_tokens(generate: Generate) -> None:
    """Further off than this once in a million; seeds are fixed. And KL(seen || exact) is as small as chance allows."""
    value, freedom = chi_square(generate, SEEDS)
    assert value < freedom + 4.75 * math.sqrt(2 * freedom) + 20
    counts, expected = Counter(generate(seed) for seed in range(SEEDS)), exact()
    kl = sum(n / SEEDS * math.log(n / SEEDS / expected[text]) for text, n in counts.items())
    assert kl < 3 * (VOCAB**LENGTH - 1) / (2 * SEEDS)


@pytest.mark.parametrize("penalty", [1.0, PENALTY])
def test_guesses_change_no_token_of_any_seed(penalty: float) -> None:
    assert all(plain(seed, penalty) == guessed(seed, penalty) for seed in range(2000))


def test_the_chi_square_sees_a_wrong_distribution() -> None:
    value, freedom = chi_square(lambda seed: guessed(seed, mistake="bonus row off by one"), 4000)
    assert value > freedom + 20 * math.sqrt(2 * freedom)


@pytest.mark.parametrize("mistake", ["keyed by step", "penalties not advanced", "bonus row off by one"])
def test_mistakes_are_seen(mistake: str) -> None:
    assert any(plain(seed, PENALTY) != guessed(seed, PENALTY, mistake) for seed in range(300))
