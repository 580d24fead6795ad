"""Blocks of the cache as bytes: what comes out can go in elsewhere, and nothing wrong is taken."""

import contextlib
import threading
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from localinfer import native
from tests.native.meaning import Shape, random_model
from tests.native.running import WIDTH, build, some_tokens

KV_BITS: list[int | list[int]] = [16, 8, 4, [4, 8], [8, 16]]
BLOCKS = 2 * WIDTH
HALF = WIDTH * 16


def logits_of(program: native.Program, tokens: NDArray[np.int32], start: int, table: list[int]) -> bytes:
    """Of the last of `tokens` from position `start` on, in a sequence whose blocks are `table`."""
    n = len(tokens)
    out = np.empty((1, program.vocab), np.float32)
    positions = np.arange(start, start + n, dtype=np.int32)
    last = np.array([n - 1], np.int32)
    program.step(tokens, positions, np.zeros(n, np.int32), np.array([table], np.int32), last, out)
    return out.tobytes()


def read(program: native.Program, block: int) -> NDArray[np.uint8]:
    out = np.full(program.kv_block_bytes, 0xAA, np.uint8)
    program.read_kv(block, out)
    return out


@pytest.mark.parametrize("bits", KV_BITS, ids=str)
def test_a_text_goes_on_from_blocks_of_another_program(bits: int | list[int]) -> None:
    model = random_model(Shape(kv_heads=1))
    first, second = (build(model, kv_bits=bits, blocks=BLOCKS) for _ in range(2))
    text = some_tokens(HALF + 1, 5)
    there, here = list(range(WIDTH)), list(range(BLOCKS - 1, BLOCKS - 1 - WIDTH, -1))
    logits_of(first, text[:-1], 0, there)
    assert first.kv_block_bytes * BLOCKS == first.kv_bytes
    for at in range(HALF // 32):
        block = read(first, there[at])
        second.write_kv(here[at], block)
        assert (read(second, here[at]) == block).all()
    assert logits_of(second, text[-1:], HALF, here) == logits_of(first, text[-1:], HALF, there)


def test_writing_one_block_leaves_the_others() -> None:
    program = build(random_model(Shape()), blocks=4)
    logits_of(program, some_tokens(128, 2), 0, [0, 1, 2, 3])
    before = [read(program, block) for block in range(4)]
    program.write_kv(2, ~before[2])
    same = [bool((read(program, block) == before[block]).all()) for block in range(4)]
    assert same == [True, True, False, True]


@pytest.mark.parametrize("block", [4, 5, 1 << 31, (1 << 64) - 1])
def test_a_block_that_does_not_exist(block: int) -> None:
    program = build(random_model(Shape()), blocks=4)
    buffer = np.zeros(program.kv_block_bytes, np.uint8)
    for call in (program.read_kv, program.write_kv):
        with pytest.raises(ValueError, match=f"block {block}, but the KV cache has 4"):
            call(block, buffer)


def test_a_negative_block_and_another_type() -> None:
    program: Any = build(random_model(Shape()), blocks=4)
    size = program.kv_block_bytes
    for call in (program.read_kv, program.write_kv):
        for wrong in (-1, 1.5, None, 1 << 64):
            with pytest.raises(TypeError):
                call(wrong, np.zeros(size, np.uint8))
        for data in (bytes(size).decode(), None, np.zeros(size, np.int8), np.zeros((1, size), np.uint8)):
            with pytest.raises(TypeError):
                call(0, data)
        with pytest.raises(TypeError):
            call(0, np.zeros(2 * size, np.uint8)[::2])


@pytest.mark.parametrize("more", [-1, 1, 1000])
def test_another_size(more: int) -> None:
    program = build(random_model(Shape()), blocks=4)
    size = program.kv_block_bytes
    for call in (program.read_kv, program.write_kv):
        with pytest.raises(ValueError, match=f"{size + more} bytes, but a block has {size}"):
            call(0, np.zeros(size + more, np.uint8))
        with pytest.raises(ValueError, match="0 bytes"):
            call(0, np.zeros(0, np.uint8))
    assert not read(program, 0).any()


def test_before_there_is_a_cache() -> None:
    program = native.Program(64)
    assert program.kv_block_bytes == 0
    for call in (program.read_kv, program.write_kv):
        with pytest.raises(ValueError, match="block 0, but the KV cache has 0"):
            call(0, np.zeros(0, np.uint8))


def test_a_cache_that_is_replaced_meanwhile() -> None:
    """Bytes of a cache that is there, or a refusal; never more than there is room for."""
    program = build(random_model(Shape()), blocks=64)
    narrow, stop, seen = np.zeros(program.kv_block_bytes, np.uint8), threading.Event(), 0

    def replace() -> None:
        while not stop.is_set():
            for bits in (8, 16):
                with contextlib.suppress(RuntimeError):
                    program.make_kv(64, bits)

    other = threading.Thread(target=replace)
    other.start()
    for _ in range(20_000):
        with contextlib.suppress(ValueError, RuntimeError):
            program.read_kv(63, narrow)
            seen += 1
    stop.set()
    other.join()
    assert seen > 0
