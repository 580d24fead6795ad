"""Steps of some layers only: the parts give the bits of the whole, and a program may begin with rows of numbers."""

import numpy as np
import pytest

from localinfer import native
from tests.native.matrices import pack, random_matrix
from tests.native.meaning import Shape, random_model
from tests.native.running import WIDTH, build

MODEL = random_model(Shape(kind="int4", qk_norm=True, windows=(0, 9, 0)))
TOKENS = (np.arange(70, dtype=np.int32) * 37 + 5) % MODEL.shape.vocab
ROWS = np.arange(70, dtype=np.int32)
ALONE = np.zeros(70, np.int32)
TABLE = np.arange(WIDTH, dtype=np.int32)[None]


def step(program: native.Program, **how: object) -> tuple[np.ndarray, np.ndarray]:
    """Logits and hidden rows of all tokens."""
    logits = np.full((70, program.vocab), np.nan, np.float32)
    hidden = np.full((70, program.hidden), np.nan, np.float32)
    program.step(TOKENS, ROWS, ALONE, TABLE, ROWS, logits, hidden=hidden, **how)  # type: ignore[arg-type]
    return logits, hidden


@pytest.fixture(scope="module")
def whole() -> tuple[np.ndarray, np.ndarray]:
    return step(build(MODEL))


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("max_rows", [7, 64])
@pytest.mark.parametrize("isa", native.supported_isas())
def test_hidden_rows_do_not_depend_on_how_they_are_run(
    whole: tuple[np.ndarray, np.ndarray], threads: int, max_rows: int, isa: str
) -> None:
    logits, hidden = step(build(MODEL, threads=threads, max_rows=max_rows, isa=isa))
    assert np.array_equal(logits, whole[0])
    assert np.array_equal(hidden, whole[1])


@pytest.mark.parametrize("threads", [1, 2])
def test_layers_in_two_steps_are_the_layers_in_one(whole: tuple[np.ndarray, np.ndarray], threads: int) -> None:
    program = build(MODEL, threads=threads, max_rows=16)
    layers = program.layers
    assert layers > 1
    early, stream = step(program, end=1)
    logits, hidden = step(program, begin=1, inputs=stream)
    assert np.array_equal(logits, whole[0])
    assert np.array_equal(hidden, whole[1])
    assert not np.array_equal(early, logits)
    exits, same = step(program, begin=layers, inputs=hidden)  # the head alone
    assert np.array_equal(exits, logits)
    assert np.array_equal(same, hidden)
    again, _ = step(program, end=1)
    assert np.array_equal(again, early)


def test_an_early_step_leaves_no_trace(whole: tuple[np.ndarray, np.ndarray]) -> None:
    """Guesses of the first layers, some of them wrong, then the whole model over the same rows of the cache."""
    program = build(MODEL)
    out = np.empty((5, program.vocab), np.float32)
    logits = np.empty((70, program.vocab), np.float32)
    for begin, end in ((0, 40), (40, 70)):
        part = slice(begin, end)
        guesses = (TOKENS[begin : begin + 5] + 1) % MODEL.shape.vocab
        five = np.arange(5, dtype=np.int32)
        program.step(guesses, ROWS[begin : begin + 5], ALONE[:5], TABLE, five, out, end=1)
        count = ROWS[: end - begin]
        program.step(TOKENS[part], ROWS[part], ALONE[part], TABLE, count, logits[part])
    assert np.array_equal(logits, whole[0])


@pytest.mark.parametrize("kind", ["bf16", "int8", "int4"])
def test_a_program_may_begin_with_numbers(kind: str) -> None:
    rng = np.random.default_rng(3)
    mix, head = random_matrix(rng, kind, 64, 128), random_matrix(rng, "bf16", 50, 64)
    norm = np.ones(64, np.float32)
    inputs = rng.standard_normal((70, 128)).astype(np.float32)
    found = []
    for threads, max_rows in ((1, 64), (3, 9)):
        program = native.Program(64, threads, "", max_rows)
        program.mix(pack(mix))
        program.head(norm, 1e-6, pack(head))
        program.make_kv(WIDTH, 8)
        logits, hidden = np.empty((70, 50), np.float32), np.empty((70, 64), np.float32)
        program.step(TOKENS, ROWS, ALONE, TABLE, ROWS, logits, inputs=inputs, hidden=hidden)
        found.append((logits, hidden))
    assert all(np.array_equal(a, b) for a, b in zip(*found, strict=True))
    meant = inputs.astype(np.float64) @ mix.values.T
    error = np.abs(found[0][1] - meant).max() / np.abs(meant).max()
    assert error < (1e-5 if kind == "bf16" else 2e-2)


def test_what_does_not_fit_is_refused() -> None:
    program = build(MODEL)
    layers, good = program.layers, np.zeros((70, program.hidden), np.float32)
    for how, words in (
        ({"end": layers + 1}, f"but there are {layers}"),
        ({"begin": 2, "end": 1, "inputs": good}, "layers 2 to 1"),
        ({"begin": 1}, "inputs are missing"),
        ({"inputs": good}, "inputs, but this step begins with tokens"),
        ({"begin": 1, "inputs": good[:, :-1].copy()}, "inputs is 70 x"),
        ({"begin": 1, "inputs": good[:-1]}, "inputs is 69 x"),
    ):
        with pytest.raises(ValueError, match=words):
            step(program, **how)
    logits = np.empty((70, program.vocab), np.float32)
    with pytest.raises(ValueError, match="hidden is 3 x"):
        program.step(TOKENS, ROWS, ALONE, TABLE, ROWS, logits, hidden=good[:3])
    other = native.Program(64, 1)
    with pytest.raises(ValueError, match="mix"):
        other.mix(pack(random_matrix(np.random.default_rng(1), "bf16", 32, 64)))
