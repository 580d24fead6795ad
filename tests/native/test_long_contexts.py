"""Long contexts are shared by the threads in KV splits of 256 tokens; what they found is merged in order."""

import numpy as np
import pytest

from localinfer import native
from tests.native import running
from tests.native.meaning import Model, Shape, random_model
from tests.native.running import Floats, Runner, build, some_tokens

N = 1340
"""Six KV splits. With seven KV heads and 24 rows a step, memory for parts holds four: they come in two waves."""
STEPS = (1280, 1, 24, 7, 24, 4)
SHAPES = {
    "many": Shape(heads=28, kv_heads=7, head_dim=32, layers=1),
    "window": Shape(heads=28, kv_heads=7, head_dim=32, layers=2, windows=(700, 0)),
    "one": Shape(heads=5, kv_heads=1, head_dim=32, layers=1),
}


@pytest.fixture(autouse=True)
def long_sequences(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "WIDTH", N // 32 + 1)


@pytest.fixture(params=SHAPES)
def model(request: pytest.FixtureRequest) -> Model:
    return random_model(SHAPES[request.param])


def last_rows(model: Model, kv_bits: int, threads: int, isa: str) -> Floats:
    """The steps as listed, in pieces of at most 128 rows; logits of all rows but the first step's."""
    runner = Runner(build(model, threads=threads, isa=isa, max_rows=128, kv_bits=kv_bits))
    tokens = some_tokens(N, model.shape.vocab)
    ends = np.cumsum(STEPS)
    return np.concatenate([runner.feed(tokens[end - n : end], n) for n, end in zip(STEPS, ends, strict=True)][1:])


@pytest.mark.parametrize("kv_bits", [4, 8, 16])
def test_threads_share_a_sequence(model: Model, kv_bits: int) -> None:
    best = native.supported_isas()[-1]
    alone = last_rows(model, kv_bits, 1, best)
    for threads in (2, 3):
        assert np.array_equal(last_rows(model, kv_bits, threads, best), alone), threads
    if model.shape.layers == 1:  # the scalar kernels are slow
        assert np.array_equal(last_rows(model, kv_bits, 2, "scalar"), alone)


def test_one_long_sequence_among_short_ones(model: Model) -> None:
    """The long one is split, the others are not; each row is as in a step of its own."""
    best = native.supported_isas()[-1]
    tokens = some_tokens(N, model.shape.vocab)
    seen: list[Floats] = []
    for threads in (1, 2, 3):
        runner = Runner(build(model, threads=threads, max_rows=128, isa=best, blocks=4 * (N // 32 + 1)), sequences=4)
        runner.feed(tokens[:1300], 1300, sequence=2)
        runner.feed(tokens[:40], 40, sequence=0)
        pieces = [(s, tokens[runner.lengths[s] : runner.lengths[s] + n]) for s, n in ((0, 1), (1, 9), (2, 5), (3, 1))]
        seen.append(np.concatenate(runner.step(pieces)))
        if threads == 1:
            apart = Runner(build(model, max_rows=128, isa=best, blocks=4 * (N // 32 + 1)), sequences=4)
            apart.feed(tokens[:1300], 1300, sequence=2)
            apart.feed(tokens[:40], 40, sequence=0)
            seen.append(np.concatenate([apart.step([piece])[0] for piece in pieces]))
    assert all(np.array_equal(rows, seen[0]) for rows in seen[1:])
