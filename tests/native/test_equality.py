"""The arithmetic contract: the bits of a row depend on the row alone. Compared with `==`, never with a tolerance."""

import numpy as np
import pytest

from localinfer import native
from tests.native.meaning import Model, Shape, random_model
from tests.native.running import Floats, Runner, build, some_tokens

SHAPES = {
    "int4": Shape(kind="int4"),
    "int3": Shape(kind="int3", qk_norm=True),
    "int8": Shape(kind="int8", bias=True),
    "mxfp4": Shape(kind="mxfp4", table_kind="mxfp4", ffn=96),
    "affine4": Shape(kind="affine4", table_kind="affine4", hidden=128, ffn=96),
    "int5": Shape(kind="int5", table_kind="int5", qk_norm=True),
    "affine5": Shape(kind="affine5", table_kind="affine5", hidden=128, ffn=96),
    "int8a16": Shape(kind="int8a16", table_kind="int8a16", group=64, hidden=128, ffn=192),
    "int8a16_on_int8": Shape(kind="int8a16", bias=True),
    "bf16": Shape(kind="bf16", table_kind="bf16"),
    "gemma": Shape(
        kind="int4", post_norm=True, qk_norm=True, activation="gelu_tanh", kv_heads=1, windows=(20, 0), softcap=5.0
    ),
    "exact gelu": Shape(kind="int4", activation="gelu"),
    "norms after": Shape(
        pre_norm=False,
        post_norm=True,
        qk_norm=True,
        norm_all_heads=True,
        bias=True,
        rotary=16,
        growth=0.3,
        score_cap=4.0,
    ),
    "norm after rope": Shape(
        kind="int8", qk_norm=True, norm_after_rope=True, mlp_bias=True, score_cap=9.0, windows=(0, 20)
    ),
    "side by side": Shape(
        layer_norm=True, beside=True, gated=False, mlp_bias=True, bias=True, kv_heads=1, activation="gelu_tanh"
    ),
    "bf16 side by side": Shape(kind="bf16", table_kind="bf16", layer_norm=True, beside=True, rotary=24),
}
N = 70


@pytest.fixture(params=SHAPES)
def model(request: pytest.FixtureRequest) -> Model:
    return random_model(SHAPES[request.param])


@pytest.fixture(params=[4, 8, 16])
def kv_bits(request: pytest.FixtureRequest) -> int:
    return int(request.param)


def reference(model: Model, kv_bits: int | list[int], n: int = N) -> Floats:
    """One row a step, one thread, the scalar kernels."""
    program = build(model, isa="scalar", kv_bits=kv_bits)
    return Runner(program).feed(some_tokens(n, model.shape.vocab), 1)


@pytest.mark.parametrize("isa", native.supported_isas())
@pytest.mark.parametrize("chunk", [1, 7, 32, N])
def test_isa_and_chunks(model: Model, kv_bits: int, isa: str, chunk: int) -> None:
    seen = Runner(build(model, isa=isa, kv_bits=kv_bits)).feed(some_tokens(N, model.shape.vocab), chunk)
    assert np.array_equal(seen, reference(model, kv_bits))


@pytest.mark.parametrize("threads", [2, 3])
@pytest.mark.parametrize("chunk", [1, 4, 5, N])
def test_threads(model: Model, kv_bits: int, threads: int, chunk: int) -> None:
    seen = Runner(build(model, threads=threads, kv_bits=kv_bits)).feed(some_tokens(N, model.shape.vocab), chunk)
    assert np.array_equal(seen, reference(model, kv_bits))


@pytest.mark.parametrize("max_rows", [1, 3, 16])
def test_pieces_of_a_step(model: Model, kv_bits: int, max_rows: int) -> None:
    seen = Runner(build(model, max_rows=max_rows, threads=2, kv_bits=kv_bits)).feed(some_tokens(N, 77), N)
    assert np.array_equal(seen, reference(model, kv_bits))


@pytest.mark.parametrize("isa", native.supported_isas())
@pytest.mark.parametrize("rows", [*range(2, 17)])
def test_alone_and_in_a_batch(rows: int, isa: str) -> None:
    """`rows` sequences of different lengths decode together; each as if it were alone."""
    model = random_model(SHAPES["int4"])
    prompts = [some_tokens(3 + 5 * i, 77, seed=i) for i in range(rows)]
    together = Runner(build(model, isa=isa, threads=2, blocks=rows * 12), rows)
    first = together.step(list(enumerate(prompts)))
    next_tokens = [some_tokens(3, 77, seed=100 + i) for i in range(rows)]
    for j in range(3):
        seen = together.step([(i, next_tokens[i][j : j + 1]) for i in range(rows)])
        for i in (0, rows // 2, rows - 1):
            alone = Runner(build(model, isa="scalar")).feed(np.concatenate([prompts[i], next_tokens[i]]), 1)
            assert np.array_equal(first[i], alone[: len(prompts[i])])
            assert np.array_equal(seen[i][0], alone[len(prompts[i]) + j])


def test_decode_and_prefill_in_one_step(model: Model, kv_bits: int) -> None:
    """What a server does all day: one sequence decodes, one verifies a draft, one reads its prompt."""
    tokens = some_tokens(N, 77)
    runner = Runner(build(model, threads=2, kv_bits=kv_bits), 3)
    seen: list[list[Floats]] = [[], [], []]
    ends = (N // 4, N // 2, N)
    while runner.lengths[2] < N:
        pieces = [(s, tokens[at : min(at + 1 + 4 * s, ends[s])]) for s, at in enumerate(runner.lengths) if at < ends[s]]
        for (s, _), rows in zip(pieces, runner.step(pieces), strict=True):
            seen[s].append(rows)
    alone = reference(model, kv_bits)
    for s in range(3):
        rows = np.concatenate(seen[s])
        assert np.array_equal(rows, alone[: len(rows)])


@pytest.mark.parametrize("threads", [2, 3, 4, 5])
def test_long_contexts_of_few_heads(threads: int, kv_bits: int) -> None:
    """One row, one KV head: its query heads are cut among the threads."""
    model = random_model(Shape(heads=5, kv_heads=1, head_dim=32, hidden=96))
    tokens = some_tokens(300, 77)
    seen = Runner(build(model, threads=threads, kv_bits=kv_bits))
    seen.feed(tokens[:250], 250)
    assert np.array_equal(seen.feed(tokens[250:], 1), reference(model, kv_bits, 300)[250:])


@pytest.mark.parametrize("isa", native.supported_isas())
@pytest.mark.parametrize("kv_bits", [[4, 8, 16], [16, 4, 8]], ids=str)
def test_layers_of_different_bits(kv_bits: list[int], isa: str) -> None:
    model = random_model(Shape(layers=3, windows=(20, 0, 0)))
    tokens = some_tokens(N, 77)
    runner = Runner(build(model, isa=isa, threads=2, kv_bits=kv_bits), 2)
    assert runner.program.kv_bits == kv_bits
    alone = reference(model, kv_bits)
    assert np.array_equal(runner.feed(tokens, 32), alone)
    assert np.array_equal(runner.feed(tokens, 1, sequence=1), alone)


def test_rolling_back_leaves_no_trace(model: Model, kv_bits: int) -> None:
    """A rejected draft: the same positions are written again with other tokens."""
    tokens = some_tokens(40, 77)
    runner = Runner(build(model, kv_bits=kv_bits))
    runner.feed(tokens[:30], 30)
    runner.feed(some_tokens(8, 77, seed=9), 8)
    runner.lengths[0] = 30
    assert np.array_equal(runner.feed(tokens[30:], 10), reference(model, kv_bits, 40)[30:])


def test_shared_prefix_blocks(model: Model, kv_bits: int) -> None:
    """Two sequences read the same first block, each goes on in blocks of its own."""
    tokens = some_tokens(N, 77)
    runner = Runner(build(model, kv_bits=kv_bits), 2)
    runner.feed(tokens[:32], 32)
    runner.tables[1, 0] = runner.tables[0, 0]
    runner.lengths[1] = 32
    seen = runner.step([(0, tokens[32:40]), (1, tokens[32:])])
    assert np.array_equal(seen[1], reference(model, kv_bits)[32:])
    assert np.array_equal(seen[0], seen[1][:8])


def test_the_comparison_sees_one_bit() -> None:
    """The control: an executor that adds its rows up in halves when there are two of them, and in one go when there is
    one. Rounding makes it differ, and the comparison used above must see that."""
    rng = np.random.default_rng(0)
    w, x = rng.normal(size=(64, 96)).astype(np.float32), rng.normal(size=(2, 96)).astype(np.float32)

    def broken(rows: Floats) -> Floats:
        cut = 96 // len(rows)
        parts = [
            np.cumsum(rows[:, None, i : i + cut] * w[None, :, i : i + cut], -1)[..., -1] for i in range(0, 96, cut)
        ]
        total: Floats = np.sum(parts, axis=0, dtype=np.float32)
        return total

    assert np.allclose(broken(x)[0], broken(x[:1])[0], atol=1e-4)
    assert not np.array_equal(broken(x)[0], broken(x[:1])[0])
