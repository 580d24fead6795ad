"""What `bench` keeps of its runs, and how it shows them."""

import shlex
import sys
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from localinfer.errors import NotFound, UsageError

if TYPE_CHECKING:
    from localinfer.bench.compare import Report


Keep = Callable[[Mapping[str, Any]], None]
"""Keeps a report. Called before it is shown: who reads it may be gone by now."""


def keep_result(report: Mapping[str, Any], *, no_history: bool) -> None:
    """Append it to the history; a file that cannot be written is told, and nothing else."""
    from localinfer.bench.history import keep
    from localinfer.cli.output import note

    if no_history:
        return
    if problem := keep(report, command=shlex.join(["localinfer", *sys.argv[1:]])):
        note(f"the result is not kept: {problem}; `--no-history` does not try")


def show_history(model: str | None, *, json: bool) -> None:
    """The runs that were kept, of one model or of all: a table and a plot, or JSON. Raises `NotFound` without any."""
    import shutil

    from localinfer.bench.history import history_plot, history_table, reports
    from localinfer.cli.output import is_terminal, line, note, show_json

    found, damaged = reports(name_of(model) if model else None)
    if damaged:
        note(f"lines of the history that make no sense, left out: {damaged}")
    if not found:
        raise NotFound(
            f"no benchmark of `{model}` is kept" if model else "no benchmark is kept",
            hint="run `localinfer bench MODEL`",
        )
    if json:
        show_json(list(found))
        return
    line(history_table(found).rstrip("\n"))
    width = min(120, shutil.get_terminal_size().columns)
    if drawn := history_plot(found, width=width, colour=is_terminal(sys.stdout)):
        line()
        line(drawn.rstrip("\n"))


def name_of(model: str) -> str:
    """The name under which a model's runs are kept; a model that is gone may still have some."""
    from localinfer.errors import LocalInferError
    from localinfer.hub.resolve import resolve

    try:
        return resolve(model, offline=True).ref
    except LocalInferError:
        return model


def earlier_report(file: str | None, max_drop: float | None, model: str, names: Collection[str]) -> "Report | None":
    """The report to compare tests of these `names` with, read before anything is measured: of a file, or the `last` one
    of this model."""
    from localinfer.bench.compare import read_report, require_common
    from localinfer.bench.history import last
    from localinfer.bench.system import machine_kind

    if file is None:
        if max_drop is not None:
            raise UsageError("`--max-drop` without `--compare`", hint="add `--compare FILE`")
        return None
    if file == "last" and not Path(file).exists():
        return dict(last(model, names))
    report = read_report(Path(file).expanduser(), like=machine_kind())
    require_common(report, names, file)
    return report
