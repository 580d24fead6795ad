"""Programs that begin with rows of numbers instead of tokens."""

from typing import Any

import numpy as np
import pytest

from localinfer import native
from tests.native import meaning
from tests.native.matrices import Matrix, pack, random_matrix
from tests.native.meaning import Model, Shape, linear, random_model
from tests.native.running import Floats, Runner, build, some_tokens
from tests.native.test_bad_arguments import GOOD, ints

COLS = {"bf16": 71, "int8": 192, "int8a16": 64, "int4": 192, "int3": 64, "int4 of the same size": 96}
"""More columns than the residual stream has values, fewer, and as many."""
NOBODY = np.full(70, -7, np.int32)
"""Tokens that do not exist: nobody looks."""


def matrix(name: str, hidden: int = 96) -> Matrix:
    return random_matrix(np.random.default_rng(5), name.split()[0], hidden, COLS[name])


def some_inputs(rows: int, cols: int, seed: int = 0) -> Floats:
    return np.random.default_rng(seed).normal(size=(rows, cols)).astype(np.float32)


def mix_and_head(mix: Matrix, model: Model, *, threads: int = 1, isa: str = "", max_rows: int = 64) -> native.Program:
    """No layer between: an exit."""
    program = native.Program(model.shape.hidden, threads, isa, max_rows)
    program.mix(pack(mix))
    program.head(model.norm, model.shape.eps, pack(model.head), model.shape.softcap)
    program.make_kv(3, 8)
    assert program.kv_bytes == 0
    return program


def run(program: native.Program, inputs: Floats) -> tuple[Floats, Floats]:
    """The logits and hidden rows of all `inputs`, as rows of one sequence."""
    logits = np.full((len(inputs), program.vocab), np.nan, np.float32)
    hidden = np.full((len(inputs), program.hidden), np.nan, np.float32)
    every = np.arange(len(inputs), dtype=np.int32)
    table = np.arange(3, dtype=np.int32)[None]
    program.step(NOBODY[every], every, 0 * every, table, every, logits, inputs=inputs, hidden=hidden)
    return logits, hidden


@pytest.mark.parametrize("name", COLS)
@pytest.mark.parametrize("rows", [1, 4, 5, 70])
def test_the_meaning(name: str, rows: int) -> None:
    model = random_model(Shape(kind="bf16", table_kind="bf16", layers=0, softcap=3.0))
    mix = matrix(name)
    inputs = some_inputs(rows, COLS[name])
    logits, hidden = run(mix_and_head(mix, model), inputs)
    expected = linear(mix, inputs.astype(np.float64))
    errors = np.abs(hidden - expected).max(axis=1) / np.abs(expected).max()
    assert np.median(errors) < 16 * 192**0.5 * 2.0**-24  # of a row, float32's rounding
    assert errors.max() < 4 / 127  # now and then a value on the border of two integers goes the other way
    seen = meaning.headed(model, hidden.astype(np.float64))
    np.testing.assert_allclose(logits, seen, rtol=0, atol=64 * 96**0.5 * 2.0**-24 * np.abs(seen).max())


@pytest.mark.parametrize("name", COLS)
@pytest.mark.parametrize("isa", native.supported_isas())
def test_rows_threads_and_isa(name: str, isa: str) -> None:
    model, mix = random_model(Shape(layers=0)), matrix(name)
    inputs = some_inputs(40, COLS[name])
    scalar = mix_and_head(mix, model, isa="scalar")
    alone = [np.concatenate(rows) for rows in zip(*(run(scalar, inputs[i : i + 1]) for i in range(40)), strict=True)]
    for threads, max_rows in ((1, 64), (3, 64), (2, 3)):
        program = mix_and_head(mix, model, isa=isa, threads=threads, max_rows=max_rows)
        for n in (1, 4, 5, 16, 40):
            assert all(np.array_equal(a, b[:n]) for a, b in zip(run(program, inputs[:n]), alone, strict=True))


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("kind", ["bf16", "int4"])
def test_before_layers(kind: str, threads: int) -> None:
    """The identity hands embedded tokens on bit by bit: the program is then the one that begins with the tokens."""
    model = random_model(Shape(kind=kind, embed_scale=1.7))
    ones = np.where(np.eye(96), np.uint16(0x3F80), np.uint16(0))
    identity = Matrix("bf16", 0, np.eye(96), ones)
    tokens = some_tokens(70, model.shape.vocab)
    inputs = np.full((70, 96), np.nan, np.float32)
    plain = build(model)
    plain.embed_rows(tokens, inputs)
    expected = Runner(plain).feed(tokens, 70)
    for chunk in (1, 7, 70):
        runner = Runner(build(model, mix=identity, threads=threads, max_rows=32))
        for at in range(0, 70, chunk):
            seen = runner.step([(0, tokens[at : at + chunk])], inputs=inputs[at : at + chunk])[0]
            assert np.array_equal(seen, expected[at : at + chunk])


def test_wide_inputs_before_layers() -> None:
    """Twice as wide as the stream, as a head that sees the token and the stream of the row before."""
    model = random_model(Shape(kind="bf16", table_kind="bf16"))
    mix = random_matrix(np.random.default_rng(3), "bf16", 96, 192)
    inputs = some_inputs(40, 192)
    seen = Runner(build(model, mix=mix, kv_bits=16)).step([(0, NOBODY[:40])], inputs=inputs)[0]
    expected = meaning.headed(model, meaning.through(model, linear(mix, inputs.astype(np.float64)), 16, 2))
    np.testing.assert_allclose(seen, expected, rtol=0, atol=(2.0**-13 + 2.0**-14) * np.abs(expected).max())


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"inputs": None}, "inputs are missing"),
        ({"inputs": np.zeros((3, 96), np.float32)}, "inputs is 3 x 96, but must be 3 x 192"),
        ({"inputs": np.zeros((2, 192), np.float32)}, "inputs is 2 x 192, but must be 3 x 192"),
        ({"begin": 1}, "inputs is 3 x 192, but must be 3 x 96"),
        ({"begin": 1, "inputs": None}, "inputs are missing"),
    ],
)
def test_what_is_refused(change: dict[str, Any], says: str) -> None:
    program = build(random_model(Shape()), mix=matrix("int8"))
    good: dict[str, Any] = GOOD | {"logits": np.full((2, 77), np.nan, np.float32), "inputs": some_inputs(3, 192)}
    with pytest.raises(ValueError, match=says):
        program.step(**(good | change))
    assert np.isnan(good["logits"]).all()
    program.step(**good)
    assert np.isfinite(good["logits"]).all()


@pytest.mark.parametrize(
    "inputs",
    [np.zeros((3, 192)), np.zeros((3, 384), np.float32)[:, ::2], np.zeros(576, np.float32)],
    ids=["float64", "strided", "flat"],
)
def test_types_are_not_converted(inputs: Any) -> None:
    with pytest.raises(TypeError):
        build(random_model(Shape()), mix=matrix("int8")).step(**(GOOD | {"inputs": inputs}))


def test_building() -> None:
    mix = pack(matrix("int8"))
    table = pack(random_matrix(np.random.default_rng(0), "int8", 77, 96))
    program = native.Program(96, 1)
    with pytest.raises(ValueError, match="the weight of mix is 77 x 96, but must be 96 x 96"):
        program.mix(table)
    with pytest.raises(ValueError, match="the weight of mix must be one part"):
        program.mix(pack(*(random_matrix(np.random.default_rng(0), "int8", 48, 96) for _ in range(2))))
    program.mix(mix)
    with pytest.raises(ValueError, match="embed a second time"):
        program.embed(table)
    with pytest.raises(ValueError, match="mix where there is an embedding or a mix already"):
        program.mix(mix)
    program.head(np.ones(96, np.float32), 1e-5, table)
    assert program.weight_bytes == mix.nbytes + table.nbytes
    other = native.Program(96, 1)
    other.embed(table)
    with pytest.raises(ValueError, match="mix where there is an embedding or a mix already"):
        other.mix(mix)


def test_a_probe_has_only_tokens() -> None:
    with pytest.raises(ValueError, match="probe_kv of a program that begins with mix"):
        build(random_model(Shape()), mix=matrix("int8")).probe_kv(ints(1, 2))


def test_a_program_without_attention() -> None:
    """An MLP alone has no layer to begin with, and begins all the same."""
    model = random_model(Shape(layers=1))
    layer = model.layers[0]
    program = native.Program(96, 1)
    program.embed(pack(model.embed))
    program.gated_mlp(layer.mlp_norm, 1e-5, pack(layer.gate, layer.up, interleave=True), "silu", pack(layer.down))
    program.head(model.norm, model.shape.eps, pack(model.head))
    program.make_kv(1, 8)
    hidden, logits = np.full((3, 96), np.nan, np.float32), np.full((1, 77), np.nan, np.float32)
    count = ints(0, 1, 2)
    program.step(count, count, 0 * count, ints(0)[None], ints(2), logits, hidden=hidden)
    x = meaning.embedded(model, count)
    h = meaning.rms_norm(x, layer.mlp_norm, 1e-5)
    y = linear(layer.down, meaning.activate(linear(layer.gate, h), "silu") * linear(layer.up, h))
    np.testing.assert_allclose(hidden, x + y, rtol=0, atol=np.abs(y).max() * 4 / 127)


def test_embedded_rows_are_the_stream_before_the_layers() -> None:
    model = random_model(Shape(embed_scale=1.7))
    program = build(model)
    tokens = some_tokens(20, 77)
    rows = np.full((20, 96), np.nan, np.float32)
    program.embed_rows(tokens, rows)
    assert np.array_equal(rows, model.embed.values[tokens].astype(np.float32) * np.float32(1.7))
    for bad, says in ((ints(1, 77), "token 77 is not below 77"), (ints(-1, 1), "token -1 is not below 77")):
        with pytest.raises(ValueError, match=says):
            program.embed_rows(bad, rows[:2])
    with pytest.raises(ValueError, match="out is 20 x 96, but must be 2 x 96"):
        program.embed_rows(ints(1, 2), rows)
    with pytest.raises(ValueError, match="a program without an embedding"):
        build(model, mix=matrix("int8")).embed_rows(ints(1), rows[:1])


def test_what_borrows_has_no_cache_of_its_own() -> None:
    model = random_model(Shape(hidden=96, layers=1))
    lender = build(model)
    program = native.Program(96, 1)
    with pytest.raises(ValueError, match="must follow mix"):
        program.borrow_kv(lender)
    program.mix(pack(matrix("bf16")))
    with pytest.raises(ValueError, match="none of its own"):
        program.borrow_kv(program)
    program.borrow_kv(lender)
    program.head(model.norm, model.shape.eps, pack(model.head), model.shape.softcap)
    with pytest.raises(ValueError, match="another one's cache"):
        program.make_kv(3, 8)
    other = native.Program(96, 1)
    other.mix(pack(matrix("bf16")))
    with pytest.raises(ValueError, match="none of its own"):
        other.borrow_kv(program)
    _, hidden = run(program, some_inputs(5, COLS["bf16"]))
    assert np.isfinite(hidden).all()
    every, outs, logits = ints(0), ints(), np.empty((0, program.vocab), np.float32)
    with pytest.raises(ValueError, match="block 900"):
        program.step(every, every, every, ints(900)[None], outs, logits, inputs=some_inputs(1, COLS["bf16"]))
