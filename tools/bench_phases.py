"""Where the time of a step goes: `python -m tools.bench_phases MODEL_FOLDER [--rows 1 8] [--depth 0 2048]`.

Each phase of a step by operation, summed over the layers: the share of the step, what the calling thread computed and
how long it waited for the others, and for phases that read weights GB/s of those weights. Medians of several steps.
"""

import argparse
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from localinfer.config import BLOCK_TOKENS
from localinfer.cost.roofline import weights_read
from localinfer.graph.program import load_program
from localinfer.graph.weights import Checkpoint

Phase = tuple[str, str, float, float]
"""Operation, what it did, seconds that the calling thread was busy, seconds that it waited for the others."""


def step_times(path: Path, rows: int, depth: int, threads: int, steps: int) -> list[list[Phase]]:
    """The phases of `steps` steps of `rows` rows of one sequence, `depth` tokens before them."""
    program = load_program(
        Checkpoint(path),
        threads=threads,
        context=depth + rows,
        kv_blocks=(depth + rows) // BLOCK_TOKENS + 1,
        kv_bits=8,
    )
    tokens = (np.arange(rows, dtype=np.int32) * 7919 + 1) % np.int32(program.vocab)
    count = np.arange(rows, dtype=np.int32)
    table = np.arange((depth + rows) // BLOCK_TOKENS + 1, dtype=np.int32)[None]
    logits = np.empty((rows, program.vocab), np.float32)
    found = []
    program.time_phases(True)
    for _ in range(steps + 2):  # the first two warm up
        if program.states:
            program.clear_state(0, depth)
        program.step(tokens, count + depth, np.zeros(rows, np.int32), table, count, logits)
        found.append(program.phase_times())
    return found[2:]


def table(steps: Sequence[Sequence[Phase]]) -> list[Phase]:
    """As phases, in milliseconds, each the median of the steps' sums over layers."""
    sums: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for step in steps:
        one: dict[tuple[str, str], tuple[float, float]] = {}
        for operation, phase, busy, wait in step:
            before = one.get((operation, phase), (0.0, 0.0))
            one[operation, phase] = (before[0] + busy, before[1] + wait)
        for key, value in one.items():
            sums.setdefault(key, []).append(value)
    return [
        (*key, 1e3 * statistics.median(b for b, _ in all_), 1e3 * statistics.median(w for _, w in all_))
        for key, all_ in sums.items()
    ]


def main(argv: Sequence[str] | None = None) -> None:
    """Print one table for each number of rows and depth."""
    parser = argparse.ArgumentParser(prog="tools.bench_phases", description=__doc__)
    parser.add_argument("model", type=Path, help="a model folder")
    parser.add_argument("--rows", type=int, nargs="+", default=[1], help="rows of a step")
    parser.add_argument("--depth", type=int, nargs="+", default=[0], help="tokens before them")
    parser.add_argument("--threads", type=int, default=0, help="0: one a physical core")
    parser.add_argument("--steps", type=int, default=20)
    args = parser.parse_args(argv)
    nbytes = sum(weights_read(Checkpoint(args.model)).values())
    for rows in args.rows:
        for depth in args.depth:
            found = table(step_times(args.model, rows, depth, args.threads, args.steps))
            total = sum(busy + wait for _, _, busy, wait in found)
            sys.stdout.write(
                f"{rows} rows, {depth} tokens before them: {total:.2f} ms, {nbytes / total / 1e6:.1f} GB/s of weights\n"
            )
            for operation, phase, busy, wait in found:
                sys.stdout.write(
                    f"  {operation:<7} {phase:<16} {busy + wait:8.3f} ms {(busy + wait) / total:5.1%}"
                    f"  busy {busy:8.3f}  wait {wait:7.3f}\n"
                )


if __name__ == "__main__":
    main()
