"""Gemma 4 on a card: shared and normed keys and values, inputs by layer, and numbers on the stream, bit for bit."""

from collections.abc import Callable
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from numpy.typing import NDArray

from localinfer import native
from localinfer.graph.program import load_program
from localinfer.graph.weights import Checkpoint
from tests.cuda.cards import Move
from tests.graph.oracle import oracle
from tests.graph.packed import quantized

pytestmark = pytest.mark.xdist_group("cuda")

VARIANTS = ["gemma4_text", "gemma4-biases", "gemma4-no-inputs", "gemma4_unified"]


def program(path: Path, move: Move | None, kv_bits: Literal[4, 8, 16] = 8) -> native.Program:
    return load_program(Checkpoint(path), threads=1, context=96, kv_blocks=3, kv_bits=kv_bits, move=move)


def feed(model: native.Program, tokens: list[int], chunk: int) -> NDArray[np.float32]:
    """The logits of all tokens, read so many at once."""
    logits = np.full((len(tokens), model.vocab), np.nan, np.float32)
    for first in range(0, len(tokens), chunk):
        part = np.array(tokens[first : first + chunk], np.int32)
        rows = np.arange(len(part), dtype=np.int32)
        table = np.array([[2, 0, 1]], np.int32)
        model.step(part, rows + np.int32(first), 0 * rows, table, rows, logits[first : first + len(part)])
    return logits


@pytest.mark.parametrize("graphs", [True, False])
@pytest.mark.parametrize("bits", [16, 8, 4, 3])
@pytest.mark.parametrize("variant", VARIANTS)
def test_the_bits_of_the_processor(
    tmp_path: Path, variant: str, bits: int, graphs: bool, card_move: Callable[[bool], Move]
) -> None:
    said = oracle(variant)
    path = said.path if bits == 16 else quantized(said.path, tmp_path / "packed", bits, 32)
    here, there = (program(path, move) for move in (None, card_move(graphs)))
    for chunk in (1, 5, 40):
        tokens = said.tokens[:12] if chunk == 1 else said.tokens
        assert np.array_equal(feed(there, tokens, chunk), feed(here, tokens, chunk)), chunk


@pytest.mark.parametrize("kv_bits", [4, 16])
@pytest.mark.parametrize("variant", ["gemma4-biases", "gemma4_unified"])
def test_of_other_caches(variant: str, kv_bits: Literal[4, 16], move: Move) -> None:
    said = oracle(variant)
    here, there = (program(said.path, one, kv_bits) for one in (None, move))
    assert np.array_equal(feed(there, said.tokens, 16), feed(here, said.tokens, 16))


def test_from_a_stream_on(move: Move) -> None:
    """Some layers alone, and the others from their stream: the tokens still say what they bring to each layer."""
    said = oracle("gemma4_text")
    tokens, rows = np.array(said.tokens[:20], np.int32), np.arange(20, dtype=np.int32)
    table, seen = np.array([[2, 0, 1]], np.int32), []
    for one in (None, move):
        model = program(said.path, one)
        stream = np.zeros((20, model.hidden), np.float32)
        logits = np.zeros((2, 20, model.vocab), np.float32)
        model.step(tokens, rows, 0 * rows, table, rows, logits[0], end=3, hidden=stream)
        model.step(tokens, rows, 0 * rows, table, rows, logits[1], begin=3, inputs=stream)
        seen.append((stream, logits))
    for ours, theirs in zip(*seen, strict=True):
        assert np.array_equal(ours, theirs)
