"""A program against its meaning in float64: tiny random models of every kind of layer that there is."""

import numpy as np
import pytest

from localinfer import native
from tests.native import meaning
from tests.native.meaning import Shape, random_model
from tests.native.running import Runner, build, some_tokens

EPS = 2.0**-24

LAYERS = {
    "plain": Shape(kind="bf16", table_kind="bf16"),
    "bias": Shape(kind="bf16", table_kind="bf16", bias=True),
    "qk_norm": Shape(kind="bf16", table_kind="bf16", qk_norm=True),
    "gemma": Shape(
        kind="bf16", table_kind="bf16", post_norm=True, qk_norm=True, activation="gelu_tanh", kv_heads=1,
        windows=(5, 0), embed_scale=9.75, softcap=3.0,
    ),
    "norms after": Shape(
        kind="bf16", table_kind="bf16", pre_norm=False, post_norm=True, qk_norm=True, norm_all_heads=True, bias=True,
        rotary=16, growth=0.3, score_cap=4.0,
    ),
    "norm after rope": Shape(
        kind="bf16", table_kind="bf16", qk_norm=True, norm_after_rope=True, mlp_bias=True, windows=(0, 20)
    ),
    "side by side": Shape(
        kind="bf16", table_kind="bf16", layer_norm=True, beside=True, gated=False, mlp_bias=True, bias=True,
        kv_heads=1, activation="gelu_tanh", rotary=24,
    ),
    "odd": Shape(kind="bf16", table_kind="bf16", hidden=70, heads=3, kv_heads=3, head_dim=16, ffn=45, vocab=33),
}  # fmt: skip
QUANTIZED = {
    "int8": Shape(kind="int8"),
    "int8a16": Shape(kind="int8a16", table_kind="int8a16"),
    "int8a16_g128": Shape(kind="int8a16", table_kind="int8a16", group=128, hidden=128, ffn=256),
    "int4": Shape(kind="int4"),
    "int3": Shape(kind="int3"),
    "int4_g64": Shape(kind="int4", group=64, hidden=128, ffn=192),
    "int4_g128": Shape(kind="int4", group=128, hidden=128, ffn=256),
    "affine4": Shape(kind="affine4", table_kind="affine4", hidden=128, ffn=96),
    "int5": Shape(kind="int5", table_kind="int5"),
    "affine5": Shape(kind="affine5", table_kind="affine5", hidden=128, ffn=96),
    "int4_bias": Shape(kind="int4", bias=True, qk_norm=True),
    "int3_post": Shape(kind="int3", post_norm=True, table_kind="int4"),
    "int8_on_bf16": Shape(kind="int8", table_kind="bf16"),
    "int4_after": Shape(
        pre_norm=False, post_norm=True, qk_norm=True, norm_all_heads=True, bias=True, growth=0.3, score_cap=4.0,
        windows=(3,),
    ),
    "int8a16_side_by_side": Shape(
        kind="int8a16", table_kind="int8a16", layer_norm=True, beside=True, gated=False, mlp_bias=True
    ),
}  # fmt: skip
N = 70


@pytest.mark.parametrize("name", LAYERS)
def test_float_layers(name: str) -> None:
    """No rounding but float32's and the 16-bit cache's: the structure of every op, to five digits.

    A value of the cache on the border of two float16 rounds the other way: 2^-11 of it, averaged by attention.
    """
    model = random_model(LAYERS[name])
    tokens = some_tokens(N, model.shape.vocab)
    seen = Runner(build(model, kv_bits=16)).feed(tokens, N)
    expected = meaning.logits(model, tokens, 16)
    tolerance = 64 * model.shape.ffn**0.5 * EPS + 2.0**-11 / 4
    np.testing.assert_allclose(seen, expected, rtol=0, atol=tolerance * np.abs(expected).max())


@pytest.mark.parametrize("kv_bits", [4, 8])
@pytest.mark.parametrize("name", [*QUANTIZED, "plain"])
def test_quantized_layers(name: str, kv_bits: int) -> None:
    """The rounding to int8 is emulated. Float32 puts a value on the border of two integers on the other side now and
    then; from there on a row, and the rows that see it, differ by steps of 1/127. Until then they agree to float32.
    In 16 bits hardly a row has no value on a border, but its step is 1/32512; with 8 bits half would be off by 0.07."""
    model = random_model((QUANTIZED | LAYERS)[name])
    tokens = some_tokens(N, model.shape.vocab)
    seen = Runner(build(model, kv_bits=kv_bits)).feed(tokens, N)
    expected = meaning.logits(model, tokens, kv_bits)
    errors = np.sort(np.abs(seen - expected).max(axis=1)) / expected.std()
    near = 64 * model.shape.ffn**0.5 * (EPS if model.shape.kind != "int8a16" else 2.0**-19)
    assert errors[N // 2] < near, f"half of the rows are exact, but not: {errors}"
    assert errors[-1] < 32 / 127, f"worst {errors[-1]:.4f} of the spread"


@pytest.mark.parametrize("kv_bits", [4, 8, 16])
def test_windows_and_long_contexts(kv_bits: int) -> None:
    """Beyond one KV split of 256 tokens, with a window that begins in the middle of a block."""
    model = random_model(Shape(kind="bf16", table_kind="bf16", windows=(70, 0)))
    tokens = some_tokens(330, model.shape.vocab)
    seen = Runner(build(model, kv_bits=kv_bits)).feed(tokens, 64)
    expected = meaning.logits(model, tokens, kv_bits)
    np.testing.assert_allclose(seen, expected, rtol=0, atol={4: 0.3, 8: 0.03, 16: 2e-3}[kv_bits] * expected.std())


def test_only_wanted_rows_are_written() -> None:
    model = random_model(Shape())
    program = build(model)
    tokens = some_tokens(9, model.shape.vocab)
    whole = Runner(build(model)).feed(tokens, 9)
    out = np.full((2, model.shape.vocab), np.nan, np.float32)
    positions = np.arange(9, dtype=np.int32)
    table = np.zeros((1, 1), np.int32)
    wanted = np.array([3, 8], np.int32)
    program.step(tokens, positions, np.zeros(9, np.int32), table, wanted, out)
    assert np.array_equal(out, whole[[3, 8]])
    program.step(tokens, positions, np.zeros(9, np.int32), table, np.zeros(0, np.int32), out[:0])


def test_logits_have_guards() -> None:
    """77 tokens are three panels and a bit: what lies behind a row belongs to someone else."""
    model = random_model(Shape())
    room = np.full((4, model.shape.vocab), np.nan, np.float32)
    args = np.arange(2, dtype=np.int32)
    program = build(model)
    program.step(args, args, np.zeros(2, np.int32), np.zeros((1, 1), np.int32), args, room[1:3])
    assert np.isnan(room[0]).all()
    assert np.isnan(room[3]).all()
    assert np.isfinite(room[1:3]).all()


def test_what_a_program_says_of_itself() -> None:
    model = random_model(Shape())
    program = build(model, threads=2, isa="scalar", kv_bits=8, blocks=10)
    assert (program.vocab, program.threads, program.isa, program.max_rows) == (77, 2, "scalar", 64)
    block = 2 * 32 * 32 + 2 * 32 * 4
    assert program.kv_bytes == 10 * block * model.shape.kv_heads * model.shape.layers
    program.make_kv(10, 16)
    assert program.kv_bytes == 10 * 4 * 32 * 32 * model.shape.kv_heads * model.shape.layers
    assert program.kv_bits == [16, 16]
    program.make_kv(10, [4, 8])
    assert program.kv_bits == [4, 8]
    assert program.kv_bytes == 10 * (36 * 32 + block) * model.shape.kv_heads
    assert program.weight_bytes > 0


def test_a_tied_head_counts_once() -> None:
    model = random_model(Shape(layers=0))
    table = native.pack_bf16([np.zeros((77, 96), np.uint16)])
    program = native.Program(96, 1)
    program.embed(table)
    program.head(model.norm, 1e-5, table)
    assert program.weight_bytes == table.nbytes


def test_a_fresh_cache_after_make_kv() -> None:
    model = random_model(Shape())
    tokens = some_tokens(20, model.shape.vocab)
    program = build(model)
    first = Runner(program).feed(tokens, 20)
    program.make_kv(64, 8)
    assert np.array_equal(Runner(program).feed(tokens, 20), first)


@pytest.mark.parametrize(("rows", "layer"), [(1, 5), (4, 6), (20, 8)])
def test_phases_of_a_layer(rows: int, layer: int) -> None:
    """Threads wait for each other after qkv, attention, o, gate and up, and down; when rows see each other, after keys
    and values too; when there are many, after each of the two norms. Quantizing what attention and the MLP give costs
    no phase."""

    def phases(layers: int) -> int:
        program = build(random_model(Shape(layers=layers)), threads=2)
        Runner(program).feed(some_tokens(rows, 77), rows)
        return program.phases

    assert phases(3) - phases(2) == layer
