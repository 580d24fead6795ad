"""The replay: an answer that copies its prompt is fast, one that does not costs nothing."""

import random

from localinfer.speculation.cost import Measured, StepCost
from tools.quality.replay import Clock, controller, replayed

STEP_S = {1: 1.0, 2: 1.0, 4: 1.1, 8: 1.4, 16: 2.4, 32: 4.4}


def times(answer: list[int]) -> tuple[float, float]:
    clock, prompt = Clock(), list(range(1000, 1200))
    return replayed(controller(STEP_S, clock), clock, 1, prompt, answer, StepCost(Measured(STEP_S, {}, 0)))


def test_a_copy_is_fast() -> None:
    spent, plain = times(list(range(1000, 1150)))
    assert plain == 149.0
    assert plain / spent > 3


def test_what_is_new_costs_nothing() -> None:
    spent, plain = times(random.Random(1).sample(range(100000), 150))
    assert spent <= 1.02 * plain + 6
