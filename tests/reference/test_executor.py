"""The torch executor against transformers: the same greedy text, and logits that differ by float32 rounding only."""

import math

import pytest
import torch

from localinfer.graph.rope import Rope
from localinfer.graph.weights import Checkpoint
from localinfer.reference.executor import Executor, logits, rotate, visible
from tests.graph.oracle import PROMPT, assert_close, oracle
from tests.graph.variants import VARIANTS

# transformers takes RoPE angles in float32: at position 80 they are off by 80 * 2^-24 at most, on scores q.k of about
# ten, in three layers; everything else is sums of at most 320 terms in another order, which is less.
TOLERANCE = 3 * 10 * 80 * 2.0**-24


@pytest.mark.parametrize("variant", VARIANTS)
def test_says_what_transformers_says(variant: str) -> None:
    said = oracle(variant)
    said.decides()

    seen = logits(Checkpoint(said.path), said.tokens)

    assert_close(seen.numpy(), said.logits, TOLERANCE)
    assert seen[len(PROMPT) - 1 : -1].argmax(-1).tolist() == said.greedy


def test_a_row_knows_nothing_of_later_rows() -> None:
    said = oracle("llama")
    executor = Executor(Checkpoint(said.path))
    assert torch.allclose(executor.logits(said.tokens)[:9], executor.logits(said.tokens[:9]), atol=1e-5)


def test_rotation_turns_by_position_times_frequency() -> None:
    x = torch.tensor([[[1.0, 0.0]]] * 3)
    turned = rotate(x, Rope((math.pi / 2,)))
    assert torch.allclose(turned[:, 0], torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]]), atol=1e-6)
    assert torch.equal(rotate(x, Rope((0.0,), attention_factor=1.5)), 1.5 * x)


def test_a_window_of_two_sees_itself_and_the_one_before() -> None:
    assert visible(3, 2).tolist() == [[True, False, False], [True, True, False], [False, True, True]]
    assert visible(3, 0).tolist() == [[True, False, False], [True, True, False], [True, True, True]]
