"""What the target computes while it reads a text: the numbers that a drafter learns from."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from localinfer import native
from localinfer.errors import UsageError
from localinfer.graph.program import load_program
from localinfer.graph.weights import Checkpoint
from localinfer.kv.blocks import BLOCK_TOKENS, blocks_for

Floats = NDArray[np.float32]

LEAST = 4
"""Sequences that are read in any case: some to learn from, some to judge by."""

MOST_BYTES = 1 << 30
"""Of numbers kept; of a longer text the first part is taken."""


def reading_program(target: Checkpoint, length: int, threads: int) -> native.Program:
    """The target, ready to read one text of so many tokens at a time."""
    return load_program(target, threads=threads, context=length, kv_blocks=blocks_for(length))


def read_text(
    program: native.Program,
    tokens: NDArray[np.int32],
    layers: int = 0,
    on_progress: Callable[[int, int], None] | None = None,
    late: Callable[[], bool] = lambda: False,
) -> NDArray[np.float16]:
    """The residual stream after `layers` (0: all), [sequences, length, hidden], for tokens [sequences, length]. When it
    gets `late` no more sequences are read, but at least `LEAST`."""
    count, length = tokens.shape
    count = min(count, MOST_BYTES // (2 * length * program.hidden))
    if count < 2:
        raise UsageError(f"texts of {length} tokens are too long for {MOST_BYTES >> 20} MiB", hint="use shorter ones")
    out = np.empty((count, length, program.hidden), np.float16)
    rows, alone = np.arange(length, dtype=np.int32), np.zeros(length, np.int32)
    table = np.arange(-(-length // BLOCK_TOKENS), dtype=np.int32)[None]
    none, logits = np.empty(0, np.int32), np.empty((0, program.vocab), np.float32)
    hidden = np.empty((length, program.hidden), np.float32)
    for i in range(count):
        program.step(np.ascontiguousarray(tokens[i]), rows, alone, table, none, logits, end=layers, hidden=hidden)
        np.clip(hidden, -65504, 65504, out=hidden)
        out[i] = hidden
        if on_progress is not None:
            on_progress(i + 1, count)
        if i + 1 >= LEAST and late():
            return out[: i + 1]
    return out


def frequent_tokens(tokens: NDArray[np.int32], always: tuple[int, ...], most: int, vocab: int) -> NDArray[np.int32]:
    """The tokens that occur most often, and those of `always`, ascending; at most `most` of them."""
    counts = np.bincount(tokens.ravel(), minlength=vocab)[:vocab]
    counts[list(always)] = counts.max() + 1
    order = np.argsort(-counts, kind="stable")[:most]
    return np.sort(order).astype(np.int32)
