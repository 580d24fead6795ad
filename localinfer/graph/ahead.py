"""The head that a checkpoint brings to guess tokens ahead, loaded: a program that begins with a mix."""

from collections.abc import Sequence
from contextlib import ExitStack

import numpy as np
from numpy.typing import NDArray

from localinfer import native
from localinfer.graph import memory
from localinfer.graph.program import Loader, Move
from localinfer.graph.weights import Checkpoint

MOST_ROWS = 128
"""Of a step; more are taken in turn."""


def tokens_ahead(vocab: int, always: Sequence[int]) -> NDArray[np.int32]:
    """The tokens that are worth a guess, ascending: the first ones, and those of `always`."""
    most = memory.AHEAD_TOKENS
    if vocab <= 2 * most:
        return np.arange(vocab, dtype=np.int32)
    some = [token for token in always if most <= token < vocab]
    return np.concatenate([np.arange(most), np.unique(np.array(some, np.int64))]).astype(np.int32)


def load_ahead(
    checkpoint: Checkpoint,
    ids: NDArray[np.int32],
    *,
    threads: int,
    isa: str,
    window: int,
    parallel: int,
    move: Move | None = None,
) -> native.Program:
    """The program of `checkpoint`, which is opened with `ahead`: it scores the tokens `ids`, and has room for `window`
    positions of each of `parallel` texts. Raises what `load_program` raises."""
    graph = checkpoint.graph
    program = native.Program(checkpoint.spec.hidden_size, threads=threads, isa=isa, max_rows=MOST_ROWS)
    rows = None if len(ids) == graph.head.table.rows else ids.astype(np.intp)
    with ExitStack() as files:
        loader = Loader(
            checkpoint, program, threads, window, files, lambda done, total: None, even_keys=True, head_rows=rows
        )
        for op in graph.ops:
            loader.add(op)
        loader.build({})
    if move is not None:
        move(program)
    program.make_kv(parallel * window // 32, 8)
    return program
