"""Running native programs on one sequence, or on many at once."""

from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from localinfer import native
from localinfer.graph.program import load_program
from localinfer.graph.weights import Checkpoint
from tests.graph.oracle import PROMPT, STEPS

CONTEXT = 96


def load(path: Path, kv_bits: Literal[8, 16] = 16, isa: str = "") -> native.Program:
    return load_program(Checkpoint(path), threads=1, isa=isa, context=CONTEXT, kv_blocks=3, kv_bits=kv_bits)


def run(program: native.Program, tokens: list[int], first: int = 0) -> NDArray[np.float32]:
    """Logits after each of `tokens`, which stand at positions `first`, `first` + 1, …"""
    n = len(tokens)
    rows = np.arange(n, dtype=np.int32)
    logits = np.full((n, program.vocab), np.nan, np.float32)
    blocks = np.array([[2, 0, 1]], np.int32)
    program.step(np.array(tokens, np.int32), rows + np.int32(first), np.zeros(n, np.int32), blocks, rows, logits)
    return logits


def run_apart(program: native.Program, tokens: NDArray[np.int32]) -> NDArray[np.float32]:
    """Logits [sequences, n, vocab] of the rows of `tokens` [sequences, n], each a sequence of its own, in one step."""
    sequences, n = tokens.shape
    program.make_kv(sequences, 8)
    logits = np.full((tokens.size, program.vocab), np.nan, np.float32)
    program.step(
        tokens.reshape(-1),
        np.tile(np.arange(n, dtype=np.int32), sequences),
        np.repeat(np.arange(sequences, dtype=np.int32), n),
        np.arange(sequences, dtype=np.int32)[:, None],
        np.arange(tokens.size, dtype=np.int32),
        logits,
    )
    return logits.reshape(sequences, n, -1)


def greedy(program: native.Program) -> list[int]:
    """64 tokens after the prompt, one at a time."""
    tokens = [int(run(program, PROMPT)[-1].argmax())]
    while len(tokens) < STEPS:
        tokens.append(int(run(program, tokens[-1:], len(PROMPT) + len(tokens) - 1)[0].argmax()))
    return tokens
