"""A program on the card gives the processor's bits: whatever its matrices, cache, rows, schedule, graphs or not."""

import os
from collections.abc import Callable

import numpy as np
import pytest

from localinfer import native
from tests.cuda.cards import Move, reads_of
from tests.native.meaning import Model, Shape, random_model
from tests.native.running import Rings, Runner, build, some_tokens
from tests.native.test_equality import SHAPES

pytestmark = pytest.mark.xdist_group("cuda")

WIDE = {
    "int4 by 128": Shape(kind="int4", table_kind="int4", group=128, hidden=256, ffn=384, head_dim=64),
    "int3 by 64": Shape(kind="int3", group=64, hidden=192, ffn=320, head_dim=96, heads=2, kv_heads=1),
    "int4 with a window": Shape(kind="int4", windows=(0, 40)),
}


PROCESSORS_ONLY = ("affine4", "mxfp4", "int5", "affine5")
"""Kinds of weights that have no kernels for cards."""


def feed(model: Model, tokens: np.ndarray, chunk: int, kv_bits: int, move: Move | None = None) -> np.ndarray:
    return Runner(build(model, kv_bits=kv_bits, move=move)).feed(tokens, chunk)


@pytest.mark.parametrize("kv_bits", [4, 8, 16])
@pytest.mark.parametrize("name", [name for name in SHAPES if name not in PROCESSORS_ONLY])
def test_every_kind_and_every_number_of_rows(name: str, kv_bits: int, move: Move) -> None:
    model = random_model(SHAPES[name])
    for chunk in (1, 2, 3, 4, 7, 16, 32, 70):
        tokens = some_tokens(70 if chunk > 4 else 9, model.shape.vocab)
        assert np.array_equal(feed(model, tokens, chunk, kv_bits, move), feed(model, tokens, chunk, kv_bits)), chunk


@pytest.mark.parametrize("name", PROCESSORS_ONLY)
def test_a_kind_without_kernels_is_refused_by_name(name: str, move: Move) -> None:
    model = random_model(SHAPES[name])
    with pytest.raises(ValueError, match=f"cards have no kernels for {name} weights"):
        feed(model, some_tokens(9, model.shape.vocab), 1, 8, move)


@pytest.mark.parametrize("schedule", [0, 1, 2, 7])
def test_whatever_order_the_threads_run_in(schedule: int, move: Move, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LI_EMU_SCHEDULE", str(schedule))
    for name in ("int4", "int3", "int8a16", "bf16", "gemma"):
        model = random_model(SHAPES[name])
        tokens = some_tokens(42, model.shape.vocab)
        for chunk in (1, 4, 7, 16, 42):
            assert np.array_equal(feed(model, tokens, chunk, 8, move), feed(model, tokens, chunk, 8)), (name, chunk)


@pytest.mark.parametrize("graphs", [True, False])
@pytest.mark.parametrize("kv_bits", [4, 8, 16, [8, 4]], ids=str)
@pytest.mark.parametrize("name", WIDE)
def test_past_a_kv_split(name: str, kv_bits: int | list[int], graphs: bool, card_move: Callable[[bool], Move]) -> None:
    """Prefill folds KV splits, decode and verify rows do not; cache and stream are the same."""
    model, move = random_model(WIDE[name]), card_move(graphs)
    tokens = some_tokens(342, model.shape.vocab)
    here, there = (Runner(build(model, kv_bits=kv_bits, blocks=12, move=m)) for m in (None, move))
    at = 0
    for rows in (300, 1, 1, 5, 16, 17, 1, 1):
        streams = [np.zeros((rows, model.shape.hidden), np.float32) for _ in range(2)]
        pieces = [(0, tokens[at : at + rows])]
        ours, theirs = (r.step(pieces, hidden=s)[0] for r, s in zip((here, there), streams, strict=True))
        assert np.array_equal(ours, theirs), rows
        assert np.array_equal(streams[0], streams[1]), rows
        at += rows
    for block in range(11):
        kept = [np.zeros(here.program.kv_block_bytes, np.uint8) for _ in range(2)]
        here.program.read_kv(block, kept[0])
        there.program.read_kv(block, kept[1])
        assert np.array_equal(kept[0], kept[1]), block
    facts = native.cuda_facts(there.program)
    assert (facts["graphs"] > 0) == graphs


@pytest.mark.parametrize("graphs", [True, False])
@pytest.mark.parametrize("kv_bits", [4, 8, 16])
def test_blocks_behind_a_window_are_used_again(kv_bits: int, graphs: bool, card_move: Callable[[bool], Move]) -> None:
    model, blocks = random_model(Shape(layers=3, windows=(40, 0, 70))), [4, 12, 5]
    programs = [build(model, kv_bits=kv_bits, move=m) for m in (None, card_move(graphs))]
    for program in programs:
        program.make_kv(blocks, kv_bits)
    here, there = (Rings(program) for program in programs)
    tokens, at = some_tokens(340, model.shape.vocab), 0
    for rows in (40, 1, 5, 16, *[40] * 6, 1, 1, 17, 1):
        assert np.array_equal(here.step(tokens[at : at + rows]), there.step(tokens[at : at + rows])), at
        at += rows
    for group, (count, size) in enumerate(zip(blocks, programs[0].kv_group_bytes, strict=True)):
        for block in range(count):
            kept = [np.zeros(size, np.uint8) for _ in programs]
            for program, out in zip(programs, kept, strict=True):
                program.read_kv(block, out, group)
            assert np.array_equal(kept[0], kept[1]), (group, block)
            programs[1].write_kv(block, ~kept[0], group)
            programs[1].read_kv(block, kept[1], group)
            assert np.array_equal(~kept[0], kept[1]), (group, block)


def test_many_sequences_in_one_step(move: Move) -> None:
    """One decodes, one verifies a draft, one reads its prompt; blocks are scattered."""
    model = random_model(SHAPES["int4"])
    runners = [Runner(build(model, move=m), 4) for m in (None, move)]
    prompts = [some_tokens(n, 77, seed=n) for n in (40, 9, 3, 60)]
    for pieces in (
        list(enumerate(prompts[:3])),
        [(0, prompts[0][:1]), (1, prompts[1][:5]), (3, prompts[3])],
        [(i, prompts[i][:1]) for i in range(4)],
        [(i, prompts[i][1:4]) for i in range(4)],
    ):
        for ours, theirs in zip(*(runner.step(pieces) for runner in runners), strict=True):
            assert np.array_equal(ours, theirs)


def test_parts_of_a_step(move: Move) -> None:
    """Some layers only, their stream, and on from a stream: what drafters ask for."""
    model = random_model(SHAPES["int8"])
    tokens = some_tokens(20, 77)
    logits, streams = zip(*(Runner(build(model, move=m)).feed_part(tokens, 5, 1) for m in (None, move)), strict=True)
    assert np.array_equal(logits[0], logits[1])
    assert np.array_equal(streams[0], streams[1])
    again = [Runner(build(model, move=m)).step([(0, tokens)], begin=2, inputs=streams[0])[0] for m in (None, move)]
    assert np.array_equal(again[0], again[1])


def test_a_program_that_begins_with_a_mix(move: Move) -> None:
    from tests.native.matrices import random_matrix

    rng = np.random.default_rng(5)
    for kind in ("int8", "bf16"):
        model, mix = random_model(SHAPES["int4"]), random_matrix(rng, kind, 96, 192)
        inputs = rng.normal(0, 1, (20, 192)).astype(np.float32)
        seen = [
            Runner(build(model, mix=mix, move=m)).step([(0, some_tokens(20, 77))], inputs=inputs)[0]
            for m in (None, move)
        ]
        assert np.array_equal(seen[0], seen[1])


@pytest.mark.skipif("LOCALINFER_TEST_CARD" in os.environ, reason="only the emulator counts reads")
@pytest.mark.parametrize("rows", [1, 2, 3, 4, 5, 8, 9, 16])
@pytest.mark.parametrize("kind", ["int4", "int3", "int8", "int8a16", "bf16"])
def test_each_weight_is_read_once(kind: str, rows: int, move: Move) -> None:
    """The floor of what a step must move: decode and verify rows share one pass over the weights."""
    model = random_model(Shape(kind=kind, table_kind=kind, group=32 if kind != "bf16" else 0))
    program = build(model, move=move)
    runner = Runner(program)
    ranges = native.cuda_facts(program)["weights"]
    with reads_of(ranges) as reads:
        runner.step([(0, some_tokens(rows, 77))])
        counted = reads()
    assert len(counted) == len(ranges)
    embedding, rest = counted[0], counted[1:]
    assert [(fewest, most) for _, fewest, most in rest] == [(1, 1)] * len(rest)
    assert embedding == (0, 0, 0)  # rows of it are looked up, byte by byte
