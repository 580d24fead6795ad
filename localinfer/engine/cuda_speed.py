"""How fast a card reads weights: gigabytes a second of each kind of matrix, for one row and for several."""

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from localinfer import native
from localinfer.engine.cuda_proof import KINDS, Move, random_weight

ROWS = (1, 4, 16, 64)
GROUP = 128
REPEATS = 7


@dataclass(frozen=True, slots=True)
class Size:
    """Of the matrices that are timed: larger than a card's cache, together."""

    hidden: int = 4096
    ffn: int = 4096
    layers: int = 4


def read_speeds(
    move: Move, size: Size | None = None, clock: Callable[[], float] = time.perf_counter
) -> dict[str, dict[int, float]]:
    """Bytes a second by kind and rows: what more layers read, over the time that they take longer.

    Medians of `REPEATS` steps; what a step costs besides its layers falls out. Raises what `move` raises.
    """
    size = size or Size()
    speeds: dict[str, dict[int, float]] = {}
    for kind in KINDS:
        programs = [_program(kind, size, layers, move) for layers in (1, 1 + size.layers)]
        moved = programs[1].weight_bytes - programs[0].weight_bytes
        speeds[kind] = {}
        for rows in ROWS:
            few, many = (_seconds(program, rows, clock) for program in programs)
            if many > few:
                speeds[kind][rows] = moved / (many - few)
    return speeds


def _program(kind: str, size: Size, layers: int, move: Move) -> native.Program:
    rng = np.random.default_rng(3)
    group = min(GROUP, size.hidden)
    ones = np.ones(size.hidden, np.float32)
    program = native.Program(size.hidden, max_rows=max(ROWS))
    program.rope_table(np.ones(8), 64)
    program.embed(random_weight(rng, "int8", group, (64,), size.hidden, threads=0))
    for _ in range(layers):
        gate_up = random_weight(rng, kind, group, (size.ffn, size.ffn), size.hidden, True, 0)
        down = random_weight(rng, kind, group, (size.hidden,), size.ffn, threads=0)
        program.gated_mlp(ones, 1e-5, gate_up, "silu", down)
    program.head(ones, 1e-5, random_weight(rng, "int8", group, (64,), size.hidden, threads=0))
    move(program)
    program.make_kv(2, 8)
    return program


def _seconds(program: native.Program, rows: int, clock: Callable[[], float]) -> float:
    tokens, table = np.zeros(rows, np.int32), np.arange(2, dtype=np.int32)[None]
    positions, logits = np.arange(rows, dtype=np.int32), np.empty((1, program.vocab), np.float32)
    times = []
    for _ in range(REPEATS):
        started = clock()
        program.step(tokens, positions, np.zeros(rows, np.int32), table, positions[:1], logits)
        times.append(clock() - started)
    return float(np.median(times))
