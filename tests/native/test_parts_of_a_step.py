"""The first layers alone, and what flows between layers: the meaning, and the bits of a whole step."""

from typing import Any

import numpy as np
import pytest

from localinfer import native
from tests.native import meaning
from tests.native.meaning import Model, Shape, random_model
from tests.native.running import Floats, Runner, build, some_tokens
from tests.native.test_bad_arguments import GOOD, ints
from tests.native.test_equality import SHAPES as TWO_LAYERS

N = 70
SHAPES = {name: TWO_LAYERS[name] for name in ("int4", "int8a16", "gemma")} | {
    "three": Shape(kind="int8", layers=3, bias=True),
    "bf16": Shape(kind="bf16", table_kind="bf16", layers=3, hidden=70, ffn=45),
}


@pytest.fixture(params=SHAPES)
def model(request: pytest.FixtureRequest) -> Model:
    return random_model(SHAPES[request.param])


@pytest.fixture(params=[4, 8, 16])
def kv_bits(request: pytest.FixtureRequest) -> int:
    return int(request.param)


def reference(model: Model, layers: int, kv_bits: int = 8, n: int = N) -> tuple[Floats, Floats]:
    """Logits and hidden rows, one row a step, one thread, the scalar kernels."""
    program = build(model, isa="scalar", kv_bits=kv_bits)
    return Runner(program).feed_part(some_tokens(n, model.shape.vocab), 1, layers)


@pytest.mark.parametrize("layers", [1, 2, 3])
@pytest.mark.parametrize("post_norm", [False, True])
def test_the_meaning(layers: int, post_norm: bool) -> None:
    """Float weights and a 16-bit cache: as in `test_program`, to five digits of the largest value."""
    model = random_model(Shape(kind="bf16", table_kind="bf16", layers=3, post_norm=post_norm, embed_scale=2.0))
    tokens = some_tokens(N, model.shape.vocab)
    logits, hidden = Runner(build(model, kv_bits=16)).feed_part(tokens, N, layers)
    stream = meaning.through(model, meaning.embedded(model, tokens), 16, layers)
    tolerance = 64 * model.shape.ffn**0.5 * 2.0**-24 + 2.0**-11 / 4
    for seen, expected in ((hidden, stream), (logits, meaning.headed(model, stream))):
        np.testing.assert_allclose(seen, expected, rtol=0, atol=tolerance * np.abs(expected).max())


@pytest.mark.parametrize("isa", native.supported_isas())
@pytest.mark.parametrize("chunk", [1, 7, N])
@pytest.mark.parametrize("layers", [1, 2])
def test_isa_and_chunks(model: Model, layers: int, chunk: int, isa: str) -> None:
    tokens = some_tokens(N, model.shape.vocab)
    seen = Runner(build(model, isa=isa)).feed_part(tokens, chunk, layers)
    assert all(map(np.array_equal, seen, reference(model, layers)))


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("max_rows", [1, 3, 16, 64])
def test_threads_and_pieces(model: Model, kv_bits: int, threads: int, max_rows: int) -> None:
    tokens = some_tokens(N, model.shape.vocab)
    program = build(model, threads=threads, max_rows=max_rows, kv_bits=kv_bits)
    seen = Runner(program).feed_part(tokens, N, 1)
    assert all(map(np.array_equal, seen, reference(model, 1, kv_bits)))


def test_all_layers_are_a_whole_step(model: Model) -> None:
    tokens = some_tokens(N, model.shape.vocab)
    whole = Runner(build(model)).feed(tokens, 9)
    named, hidden = Runner(build(model)).feed_part(tokens, 9, model.shape.layers)
    unnamed, same_hidden = Runner(build(model)).feed_part(tokens, 9, 0)
    assert np.array_equal(named, whole)
    assert np.array_equal(unnamed, whole)
    assert np.array_equal(hidden, same_hidden)
    early, _ = Runner(build(model)).feed_part(tokens, 9, 1)
    assert not np.array_equal(early, whole)  # the comparison can fail


def test_company(model: Model) -> None:
    """Rows of several sequences, in one step, each as if it were alone."""
    runner = Runner(build(model, threads=2), 3)
    texts = [some_tokens(n, model.shape.vocab, seed=n) for n in (40, 1, 5)]
    hidden = np.full((46, model.shape.hidden), np.nan, np.float32)
    seen = runner.step(list(enumerate(texts)), end=1, hidden=hidden)
    for text, logits, rows in zip(texts, seen, np.split(hidden, [40, 41]), strict=True):
        expected = Runner(build(model, isa="scalar")).feed_part(text, 1, 1)
        assert all(map(np.array_equal, (logits, rows), expected))


def test_a_partial_step_leaves_no_trace(model: Model, kv_bits: int) -> None:
    """Before a whole step of the same rows, of others, and again after it, as an early-exit drafter does."""
    tokens, wrong = some_tokens(N, model.shape.vocab), some_tokens(N, model.shape.vocab, seed=9)
    expected = Runner(build(model, kv_bits=kv_bits)).feed(tokens, N)
    runner = Runner(build(model, kv_bits=kv_bits, threads=2))
    for at in range(0, N, 10):
        for guess in (wrong, tokens):
            runner.feed_part(guess[at : at + 10], 1, 1)
            runner.lengths[0] = at
        assert np.array_equal(runner.feed(tokens[at : at + 10], 10), expected[at : at + 10])
        runner.lengths[0] = at
        runner.feed_part(tokens[at : at + 10], 5, 1)  # writes into layer 1 what is there, and into no other


def test_the_cache_of_a_partial_step_is_that_of_a_whole_one(model: Model, kv_bits: int) -> None:
    tokens = some_tokens(N, model.shape.vocab)
    runner = Runner(build(model, kv_bits=kv_bits))
    runner.feed(tokens[:50], 50)
    seen = runner.feed_part(tokens[50:], 3, 1)
    assert all(np.array_equal(a, b[50:]) for a, b in zip(seen, reference(model, 1, kv_bits), strict=True))


@pytest.mark.parametrize("threads", [1, 3])
def test_going_on_from_the_stream_reads_no_tokens(model: Model, kv_bits: int, threads: int) -> None:
    """The layers before and those after, in chunks of their own, are the whole; tokens after are not even looked at."""
    tokens, nobody = some_tokens(N, model.shape.vocab), np.full(N, -7, np.int32)
    runner = Runner(build(model, kv_bits=kv_bits, threads=threads, max_rows=16))
    _, stream = runner.feed_part(tokens, 7, 1)
    runner.lengths[0] = 0
    hidden = np.full_like(stream, np.nan)
    pieces = [slice(at, at + 30) for at in range(0, N, 30)]
    seen = [runner.step([(0, nobody[p])], begin=1, inputs=stream[p], hidden=hidden[p])[0] for p in pieces]
    assert np.array_equal(hidden, reference(model, 0, kv_bits)[1])
    assert np.array_equal(np.concatenate(seen), reference(model, 0, kv_bits)[0])


def test_hidden_has_guards_and_changes_nothing() -> None:
    model = random_model(Shape(hidden=70, ffn=45, kind="bf16", table_kind="bf16"))
    tokens = some_tokens(5, model.shape.vocab)
    room = np.full((7, 70), np.nan, np.float32)
    logits = Runner(build(model)).step([(0, tokens)], hidden=room[1:6])[0]
    assert np.isnan(room[[0, 6]]).all()
    assert np.isfinite(room[1:6]).all()
    assert np.array_equal(logits, Runner(build(model)).feed(tokens, 5))


def test_hidden_without_logits() -> None:
    model = random_model(Shape())
    tokens = some_tokens(9, model.shape.vocab)
    count, none = np.arange(9, dtype=np.int32), np.zeros(0, np.int32)
    hidden = np.full((9, 96), np.nan, np.float32)
    program = build(model)
    program.step(tokens, count, 0 * count, ints(3).reshape(1, 1), none, np.zeros((0, 77), np.float32), hidden=hidden)
    assert np.array_equal(hidden, reference(model, 0, n=9)[1])


def test_phases() -> None:
    """A layer less is a layer's phases less; hidden rows cost one, and who does not ask for them pays nothing."""
    model = random_model(Shape(layers=3))
    runner = Runner(build(model, threads=2))

    def phases(**part: Any) -> int:
        runner.lengths[0] = 0
        runner.step([(0, some_tokens(1, 77))], **part)
        return runner.program.phases

    assert phases() == phases(end=3) == 2 + 3 * 5
    assert phases(end=1) == 2 + 5
    assert phases(hidden=np.zeros((1, 96), np.float32)) == phases() + 1


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"end": 3}, "layers 0 to 3, but there are 2"),
        ({"begin": 1 << 60}, "layers 1152921504606846976 to 2, but there are 2"),
        ({"hidden": np.zeros((2, 96), np.float32)}, "hidden is 2 x 96, but must be 3 x 96"),
        ({"hidden": np.zeros((3, 97), np.float32)}, "hidden is 3 x 97, but must be 3 x 96"),
        ({"inputs": np.zeros((3, 96), np.float32)}, "inputs, but this step begins with tokens"),
    ],
)
def test_what_is_refused(change: dict[str, Any], says: str) -> None:
    program = build(random_model(Shape()))
    logits = np.full((2, 77), np.nan, np.float32)
    with pytest.raises(ValueError, match=says):
        program.step(**(GOOD | {"logits": logits} | change))
    assert np.isnan(logits).all()
    program.step(**(GOOD | {"logits": logits}))


@pytest.mark.parametrize("change", [{"end": -1}, {"hidden": np.zeros((3, 96))}, {"begin": 1.0}], ids=str)
def test_types_are_not_converted(change: dict[str, Any]) -> None:
    with pytest.raises(TypeError):
        build(random_model(Shape())).step(**(GOOD | change))


def test_hidden_that_cannot_be_written() -> None:
    hidden = np.zeros((3, 96), np.float32)
    hidden.flags.writeable = False
    with pytest.raises(TypeError):
        build(random_model(Shape())).step(**(GOOD | {"hidden": hidden}))
