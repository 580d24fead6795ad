"""Every benchmark that was run here, a line of JSON each, and how figures moved since."""

import json
import os
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib import import_module
from typing import Any

from localinfer import __version__
from localinfer.cost.bill import usd
from localinfer.cost.energy import marked
from localinfer.errors import NotFound
from localinfer.paths import bench_file

Kept = Mapping[str, Any]

LIMIT = 64 << 20
"""Bytes of the file that are read, from its end."""


def keep(report: Mapping[str, Any], *, command: str) -> str:
    """Append one report; gives why it could not be written, or nothing. A result is never lost for that."""
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    line = json.dumps({"at": now, "version": __version__, "command": command, **report}, ensure_ascii=False) + "\n"
    path = bench_file()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # One write of a whole line in append mode: two processes at once leave two lines.
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        with os.fdopen(handle, "ab", buffering=0) as out:
            out.write(line.encode())
    except OSError as error:
        return f"{path}: {(error.strerror or str(error)).lower()}"
    return ""


def kept(model: str | None = None) -> tuple[list[Kept], int]:
    """The reports that are kept, oldest first, of one model or of all; and how many lines made no sense."""
    path = bench_file()
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - LIMIT))
            lines = file.read(LIMIT).splitlines()
    except OSError:
        return [], 0
    found, damaged = list[Kept](), 0
    for line in lines:
        try:
            report = json.loads(line)
            name = report["model"]["name"]
            rows = [*report.get("rows", ()), *report.get("ladder", ()), *report.get("serving", ())]
            if not (isinstance(report["at"], str) and all(isinstance(row, dict) for row in rows)):
                raise TypeError
        except (ValueError, KeyError, TypeError, RecursionError):
            damaged += 1
            continue
        if model is None or name == model:
            found.append(report)
    return found, damaged


def last(model: str) -> Kept:
    """The last report with tests of this model. Raises `NotFound` when there is none."""
    found = [report for report in kept(model)[0] if report.get("rows")]
    if not found:
        raise NotFound(f"no benchmark of `{model}` is kept", hint="leave out `--compare last` this time")
    return found[-1]


def history_table(reports: Sequence[Kept]) -> str:
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
                _name(row),
                f"{_speed(row):.1f}",
                "–" if joules is None else marked(f"{joules:.3g}", source),
                "–" if price is None else marked(usd(price), source),
                str(row.get("output_hash", ""))[:8],
            ]
            lines.append("| " + " | ".join(cells) + " |")
    return "".join(line + "\n" for line in lines)


def history_plot(reports: Sequence[Kept], *, width: int, height: int = 15, colour: bool = False) -> str:
    """Tokens a second of each test by the number of the run, drawn with letters; empty for a single run."""
    plotext: Any = import_module("plotext")
    curves: dict[str, list[tuple[int, float]]] = {}
    several = len({report["model"]["name"] for report in reports}) > 1
    for number, report in enumerate(reports, 1):
        for row in _rows(report):
            name = f"{report['model']['name']} {_name(row)}" if several else _name(row)
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


def _rows(report: Kept) -> list[Mapping[str, Any]]:
    """What has a speed: tests, rungs and workloads; not the times of single steps."""
    rows = [*report.get("rows", ()), *report.get("ladder", ()), *report.get("serving", ())]
    return [row for row in rows if isinstance(row.get("tok_s"), int | float) and "n_rows" not in row]


def _name(row: Mapping[str, Any]) -> str:
    draft = row.get("draft", "off")
    return str(row.get("test") or row.get("name", "?")) + (f" {draft}" if draft != "off" and "test" in row else "")


def _speed(row: Mapping[str, Any]) -> float:
    return float(row.get("tok_s_median") or row["tok_s"])
