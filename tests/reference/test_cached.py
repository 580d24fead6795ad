"""The naive 16-bit program: the meaning of the model, to the precision of bfloat16, whatever the pieces it reads."""

import pytest
import torch

from localinfer.graph.weights import Checkpoint
from localinfer.reference.cached import CachedExecutor
from localinfer.reference.executor import Executor, logits
from tests.graph.oracle import oracle
from tests.graph.variants import VARIANTS
from tests.tiny import MIXTURES


class Wide(CachedExecutor):
    """The same program in float32: what is left is the order of sums."""

    weight = Executor.weight


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize(("program", "mean"), [(Wide, 1e-5), (CachedExecutor, 10 * 2.0**-7)])
def test_it_says_what_the_model_means(variant: str, program: type[CachedExecutor], mean: float) -> None:
    said = oracle(variant)
    if program is CachedExecutor and VARIANTS[variant]["family"] in MIXTURES:
        mean *= 2  # rounded scores choose other experts now and then
    checkpoint = Checkpoint(said.path)
    exact = logits(checkpoint, said.tokens)
    naive = program(checkpoint, len(said.tokens))
    assert (naive.read(said.tokens, all_rows=True) - exact).abs().mean() < mean
    naive.start()
    pieces = [naive.read(said.tokens[:5], all_rows=True), *(naive.read([token]) for token in said.tokens[5:])]
    assert (torch.cat(pieces) - exact).abs().mean() < mean


def test_a_new_text_knows_nothing_of_the_last() -> None:
    said = oracle("llama")
    naive = CachedExecutor(Checkpoint(said.path))
    first = naive.read(said.tokens)
    naive.read(said.tokens[:3])
    naive.start()
    assert torch.equal(naive.read(said.tokens), first)
