"""Layers that look back equally far have blocks and block tables of their own; what is behind a window may be gone."""

from typing import Any

import numpy as np
import pytest

from localinfer import native
from localinfer.config import window_blocks
from tests.native.meaning import Shape, random_model
from tests.native.running import WIDTH, Rings, Runner, build, some_tokens

WINDOWS = (40, 0, 70)
SHAPE = Shape(layers=4, windows=(40, 0, 70, 0))
CHUNK = 45


def pools(chunk: int) -> list[int]:
    return [window_blocks(window, chunk) if window else WIDTH for window in WINDOWS]


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("kv_bits", [4, 8, 16, [8, 4, 16, 8]], ids=str)
@pytest.mark.parametrize("chunk", [1, 7, CHUNK])
def test_the_same_bits_as_with_all_blocks(chunk: int, kv_bits: int | list[int], threads: int) -> None:
    model = random_model(SHAPE)
    tokens = some_tokens(330, model.shape.vocab)
    expected = Runner(build(model, kv_bits=kv_bits)).feed(tokens, len(tokens))
    for isa in native.supported_isas() if chunk == 7 else [""]:
        program = build(model, kv_bits=kv_bits, threads=threads, isa=isa)
        program.make_kv(pools(chunk), kv_bits)
        rings = Rings(program)
        found = [rings.step(tokens[i : i + chunk]) for i in range(0, len(tokens), chunk)]
        assert np.array_equal(np.concatenate(found), expected)


def test_groups_are_the_windows_in_the_order_of_layers() -> None:
    program = build(random_model(SHAPE))
    assert program.kv_windows == list(WINDOWS)
    program.make_kv([3, 12, 5], 8)
    assert program.kv_blocks == [3, 12, 5]
    one = native.kv_block_bytes(SHAPE.kv_heads, SHAPE.head_dim, 8)
    assert program.kv_group_bytes == [one, 2 * one, one]
    assert program.kv_bytes == (3 + 2 * 12 + 5) * one
    assert program.kv_block_bytes == 4 * one
    program.make_kv(6, 8)
    assert program.kv_blocks == [6, 6, 6]


def test_blocks_of_one_group_go_elsewhere_and_come_back() -> None:
    program = build(random_model(SHAPE))
    program.make_kv([3, 12, 5], 8)
    sizes, rng = program.kv_group_bytes, np.random.default_rng(1)
    wanted = [rng.integers(0, 256, size).astype(np.uint8) for size in sizes]
    for group, values in enumerate(wanted):
        program.write_kv(2, values, group)
    for group, values in enumerate(wanted):
        out = np.zeros(sizes[group], np.uint8)
        program.read_kv(2, out, group)
        assert np.array_equal(out, values)
        for other in (1, 0):
            program.read_kv(other, out, group)
            assert not out.any()
    whole = np.zeros(program.kv_block_bytes, np.uint8)
    program.read_kv(2, whole)
    layers = [wanted[0], wanted[1][: sizes[0]], wanted[2], wanted[1][sizes[0] :]]
    assert np.array_equal(whole, np.concatenate(layers))
    for block, group, says in ((3, 0, "has 3"), (5, 2, "has 5"), (12, 1, "has 12"), (0, 3, "KV group 3")):
        with pytest.raises(ValueError, match=says):
            program.read_kv(block, np.zeros(sizes[min(group, 2)], np.uint8), group)
    with pytest.raises(ValueError, match="has 3"):
        program.read_kv(3, whole)


def ready() -> tuple[native.Program, dict[str, Any]]:
    """A program, and a step of two rows at position 100 of its only sequence."""
    program = build(random_model(SHAPE))
    program.make_kv([8, 12, 8], 8)
    rings = Rings(program)
    rings.step(some_tokens(100, program.vocab))
    n = np.arange(2, dtype=np.int32)
    tables = np.full((3, 1, 4), -1, np.int32)
    tables[0, 0, 1:] = [1, 2, 3]  # position 100 sees tokens from 61 on
    tables[1, 0] = [0, 1, 2, 3]
    tables[2, 0, 0:] = [0, 1, 2, 3]  # from 31 on
    rows = {"tokens": n, "positions": n + 100, "sequences": 0 * n, "block_tables": tables, "out_rows": n}
    return program, rows | {"logits": np.zeros((2, program.vocab), np.float32)}


def test_what_no_row_sees_may_be_anything() -> None:
    program, step = ready()
    program.step(**step)
    before = step["logits"].copy()
    step["block_tables"][0, 0, 0] = 1 << 30
    program.step(**step)
    assert np.array_equal(step["logits"], before)


@pytest.mark.parametrize(
    ("group", "at", "block", "says"),
    [
        (0, 1, -1, "sequence 0: block -1"),
        (0, 3, -1, "sequence 0: block -1"),
        (1, 0, -1, "sequence 0: block -1"),
        (2, 0, -1, "sequence 0: block -1"),
        (0, 2, 8, "block 8 is not below 8"),
        (1, 2, 12, "block 12 is not below 12"),
        (0, 2, 3, "writes in another place too"),
        (2, 0, 3, "writes in another place too"),
    ],
)
def test_what_a_row_sees_must_be_there(group: int, at: int, block: int, says: str) -> None:
    program, step = ready()
    step["block_tables"][group, 0, at] = block
    with pytest.raises(ValueError, match=says):
        program.step(**step)
    assert not step["logits"].any()


def test_as_many_tables_and_pools_as_groups() -> None:
    program, step = ready()
    with pytest.raises(ValueError, match="block tables of 2 KV groups, but there are 3"):
        program.step(**step | {"block_tables": step["block_tables"][:2]})
    with pytest.raises(ValueError, match="blocks of 2 KV groups, but there are 3"):
        program.make_kv([8, 8], 8)
    with pytest.raises(ValueError, match="cannot have 0 blocks"):
        program.make_kv([8, 0, 8], 8)
