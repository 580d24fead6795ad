"""Every benchmark that was run here, a line of JSON each, and how figures moved since."""

import json
import math
import os
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime
from importlib import import_module
from typing import Any

from localinfer import __version__
from localinfer.bench.rows import row_name
from localinfer.cost.bill import usd
from localinfer.cost.energy import marked
from localinfer.errors import NotFound
from localinfer.paths import bench_file

Saved = Mapping[str, Any]

LIMIT = 64 << 20
"""Bytes of the file that are read, from its end."""

_FIGURES = ("tok_s", "tok_s_median", "joules_per_token", "usd_per_mtok")


def keep(report: Mapping[str, Any], *, command: str) -> str:
    """Append one report; gives why it could not be written, or nothing. A result is never lost for that."""
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    text = json.dumps({"at": now, "version": __version__, "command": command, **report}, ensure_ascii=False)
    line, path = text.encode() + b"\n", bench_file()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # One write of a whole line in append mode: two processes at once leave two lines.
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            if os.pread(handle, 1, max(0, os.fstat(handle).st_size - 1)) not in (b"", b"\n"):
                line = b"\n" + line  # one before was cut short
            if os.write(handle, line) < len(line):
                return f"{path}: no space left on device"
        finally:
            os.close(handle)
    except OSError as error:
        return f"{path}: {(error.strerror or str(error)).lower()}"
    return ""


def reports(model: str | None = None) -> tuple[list[Saved], int]:
    """The reports that are kept, oldest first, of one model or of all; and how many lines made no sense.

    The ablations of all forms of a model belong to each of them.
    """
    path = bench_file()
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - LIMIT))
            lines = file.read(LIMIT).splitlines()
    except OSError:
        return [], 0
    found, damaged = list[Saved](), 0
    for line in lines:
        try:
            report = json.loads(line)
            name = _checked(report)
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
            damaged += 1
            continue
        if model is None or name == (model.partition(":")[0] if report.get("ladder") else model):
            found.append(report)
    return found, damaged


def _checked(report: Any) -> str:
    """The model's name in a report whose figures can be shown; raises anything for another."""
    figures = [row.get(key) for row in _all_rows(report) for key in _FIGURES]
    numbers = [figure for figure in figures if figure is not None]
    name, machine = report["model"]["name"], report.get("machine", {})
    fine = all(type(number) in (int, float) and math.isfinite(number) for number in numbers)
    if not (fine and isinstance(name, str) and isinstance(report["at"], str) and isinstance(machine, dict)):
        raise TypeError
    return name


def last(model: str, names: Collection[str]) -> Saved:
    """The last report of this model with one of the tests `names`. Raises `NotFound` when there is none."""
    found = [report for report in reports(model)[0] if any(row_name(row) in names for row in report.get("rows", ()))]
    if not found:
        raise NotFound(
            f"no benchmark of `{model}` with these tests is kept", hint="leave out `--compare last` this time"
        )
    return found[-1]


def history_table(reports: Sequence[Saved]) -> str:
    """A line a test of each run; every line ends with a newline."""
    lines = [
        "| when | version | model | test | tok/s | J a token | $ a million | output |",
        "|---|---|---|---|---:|---:|---:|---|",
    ]
    for report in reports:
        for row in _rows(report):
            joules, price, source = (
                row.get("joules_per_token"),
                row.get("usd_per_mtok"),
                row.get("energy_source", "none"),
            )
            cells = [
                str(report["at"])[:16].replace("T", " "),
                str(report.get("version", "")),
                str(report["model"]["name"]),
                row_name(row),
                f"{_speed(row):.1f}",
                "–" if joules is None else marked(f"{joules:.3g}", source),
                "–" if price is None else marked(usd(price), source),
                str(row.get("output_hash", ""))[:8],
            ]
            lines.append("| " + " | ".join(cells) + " |")
    return "".join(line + "\n" for line in lines)


def history_plot(reports: Sequence[Saved], *, width: int, height: int = 15, colour: bool = False) -> str:
    """Tokens a second of each test by the number of the run, drawn with letters; empty for a single run."""
    plotext: Any = import_module("plotext")
    curves: dict[str, list[tuple[int, float]]] = {}
    several = len({report["model"]["name"] for report in reports}) > 1
    for number, report in enumerate(reports, 1):
        for row in _rows(report):
            name = f"{report['model']['name']} {row_name(row)}" if several else row_name(row)
            curves.setdefault(name, []).append((number, _speed(row)))
    if not any(len(points) > 1 for points in curves.values()):
        return ""
    plotext.clear_figure()
    plotext.plotsize(width, height)
    plotext.title("tokens/s, run by run")
    for name, points in curves.items():
        plotext.plot([x for x, _ in points], [y for _, y in points], label=name[-40:], marker="braille")
    plotext.ylim(0, max(y for points in curves.values() for _, y in points) * 1.1)
    plotext.xticks(list(range(1, len(reports) + 1)))
    drawn = str(plotext.build())
    return drawn if colour else str(plotext.uncolorize(drawn))


def _rows(report: Saved) -> list[Mapping[str, Any]]:
    """What has a speed: tests, answers, variants and workloads; not the times of single steps."""
    return [row for row in _all_rows(report) if row.get("tok_s") is not None and "n_rows" not in row]


def _all_rows(report: Saved) -> list[Mapping[str, Any]]:
    return [row for part in ("rows", "answers", "ladder", "serving") for row in report.get(part, ())]


def _speed(row: Mapping[str, Any]) -> float:
    return float(row.get("tok_s_median") or row["tok_s"])
