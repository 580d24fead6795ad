"""How fast this machine's kernels multiply, and what bounds them: `python -m tools.bench_kernels [--json FILE]`.

For each kernel set, width and number of rows: GB/s of weights from memory and from the first caches, on one thread and
on all, beside a plain read of the same bytes, and the share of the int8 peak. A cell is bounded by the smaller of the
two: what memory gives, and what the multipliers do. Rows take turns, so that a disturbance meets all alike.
"""

import argparse
import json
import statistics
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from localinfer import native

FROM_MEMORY, FROM_CACHE = 64 << 20, 96 << 10
"""Bytes of weights, the second of each thread."""

KINDS = (
    ("INT4", 4, 8, 0),
    ("INT4 affine", 4, 8, 1),
    ("INT4 wide", 4, 8, 256),
    ("INT5", 5, 8, 0),
    ("INT5 affine", 5, 8, 1),
    ("INT5 wide", 5, 8, 256),
    ("MXFP4", 4, 8, -1),
    ("INT3", 3, 8, 0),
    ("INT8", 8, 8, 0),
    ("INT8 x 16", 8, 16, 0),
    ("BF16", 16, 0, 0),
)
"""Name, bits of a weight, bits of an activation (0: float32), columns that share a minimum (1: a group; 0:
there is none; -1: MXFP4, by 32)."""
Kind = tuple[str, int, int, int]


@dataclass(frozen=True)
class Cell:
    """One kernel at one number of rows; `rows` 0 reads the weights only."""

    isa: str
    kind: str
    rows: int
    threads: int
    where: str
    gb_s: float
    """Of weights, median of the passes."""
    of_read: float
    """Share of a plain read from the same place by as many threads."""
    of_peak: float
    """Share of the multipliers' peak; 0 where nothing is known of it."""


def speed_of(isa: str, kind: Kind, rows: int, threads: int, where: str, args: argparse.Namespace) -> float:
    """Gigabytes a second of one pass."""
    _, bits, activation_bits, wide = kind
    small = where == "cache"
    size = FROM_CACHE * threads if small else FROM_MEMORY
    nbytes, (*_, taken) = native.linear_seconds(
        isa,
        bits,
        activation_bits,
        args.columns,
        0 if bits == 16 else 32 if wide < 0 else args.group,
        rows,
        size,
        threads,
        repeats=64 if small else 1,
        passes=2,  # the first one warms up
        wide=max(wide, args.group) if wide > 0 else 0,
        mxfp4=wide < 0,
    )
    return nbytes / taken / 1e9


def cells(args: argparse.Namespace) -> Iterator[Cell]:
    """All of them, one width and place after the other."""
    threads = sorted({1, native.physical_cores()})
    for isa in args.isa or native.supported_isas()[-1:]:
        peak = {count: native.int8_peak(isa, count) / 1e9 for count in threads}
        for kind in (one for one in KINDS if not args.kind or one[0] in args.kind):
            for where in ("memory", "cache"):
                for count in threads:
                    yield from _cells_of(isa, kind, where, count, peak[count], args)


def _cells_of(isa: str, kind: Kind, where: str, threads: int, peak: float, args: argparse.Namespace) -> Iterator[Cell]:
    rows = (0, *args.rows)
    found: dict[int, list[float]] = {row: [] for row in rows}
    for _ in range(args.passes):
        for row in rows:
            found[row].append(speed_of(isa, kind, row, threads, where, args))
    read = statistics.median(found[0])
    for row in rows:
        speed = statistics.median(found[row])
        operations = 2 * row * speed * 8 / kind[1]
        share = operations / peak if kind[2] and peak else 0.0
        yield Cell(isa, kind[0], row, threads, where, speed, speed / read, share)


def main(argv: Sequence[str] | None = None) -> None:
    """Print the table, and write it as JSON where that is asked for."""
    parser = argparse.ArgumentParser(prog="tools.bench_kernels", description=__doc__)
    parser.add_argument("--isa", action="append", help="a kernel set (repeat); default: the best here")
    parser.add_argument(
        "--kind",
        action="append",
        choices=[kind[0] for kind in KINDS],
        help="a kind of weights by name (repeat); default: all",
    )
    parser.add_argument("--rows", type=int, nargs="+", default=[1, 2, 4, 8, 16], help="rows of activations")
    parser.add_argument("--columns", type=int, default=1536, help="columns of the weights (default 1536)")
    parser.add_argument("--group", type=int, default=64, choices=(32, 64, 128), help="columns that share a scale")
    parser.add_argument("--passes", type=int, default=7, help="of each cell; the median is shown")
    parser.add_argument("--json", type=Path, help="write all of it to this file")
    args = parser.parse_args(argv)
    cpu = native.cpu()
    sys.stdout.write(f"{cpu['vendor']} {cpu['model']}, {native.physical_cores()} cores\n")
    sys.stdout.write("kernels  weights       rows threads from        GB/s  of a read  of the int8 peak\n")
    found: list[Cell] = []
    for cell in cells(args):
        found.append(cell)
        what = "read" if cell.rows == 0 else str(cell.rows)
        peak = f"{cell.of_peak:17.0%}" if cell.of_peak else ""
        sys.stdout.write(
            f"{cell.isa:<8} {cell.kind:<13} {what:>4} {cell.threads:>7} {cell.where:<8} {cell.gb_s:>8.1f} "
            f"{cell.of_read:>10.0%} {peak}\n"
        )
        sys.stdout.flush()
    if args.json:
        told = {"cpu": cpu, "columns": args.columns, "group": args.group, "cells": [asdict(one) for one in found]}
        args.json.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
