"""The pages that list commands, made without importing any: their lines lie in a file that `generate` writes."""

import os
import sys
import textwrap
from collections.abc import Iterable
from pathlib import Path

from localinfer.cli.commands import COMMANDS, GROUPS

SUMMARIES = Path(__file__).with_name("summaries.txt")
"""`command: its one line`, a line each."""

OPTIONS = {"--version": "Print the version and leave.", "-h, --help": "Show this message and exit."}

CODES = (
    "Exit codes: 0 done, 1 a bug of ours, 2 usage, 3 does not fit, 4 not found or not allowed, 5 not supported, "
    "6 network, 7 corrupt, 8 context overflow, 9 changed since, 130 interrupted, 141 nobody reads on."
)

WIDEST, NARROWEST = 78, 50
"""Columns of a page."""


def page(group: str) -> str:
    """The page of the program (`""`), or of the commands of two words that begin with `group`."""
    width = max(NARROWEST, min(WIDEST, _columns() - 2))
    said = GROUPS.get(group, "Run language models on your own machine.")
    options = {name: text for name, text in OPTIONS.items() if not group or "help" in name}
    parts = [
        f"Usage: {f'localinfer {group}'.strip()} [OPTIONS] COMMAND [ARGS]...",
        _indented(said, width),
        "Options:\n" + _listed(options, width),
        "Commands:\n" + _listed(summaries(group), width),
        *([] if group else [_indented(CODES, width)]),
    ]
    return "\n\n".join(parts) + "\n"


def summaries(group: str) -> dict[str, str]:
    """The words that may come next, and the one line for each."""
    lines = dict(line.split(": ", 1) for line in SUMMARIES.read_text(encoding="utf-8").splitlines())
    found: dict[str, str] = {}
    for name in COMMANDS:
        first, _, second = name.partition(" ")
        if not group:
            found[first] = GROUPS.get(first) or lines[name]
        elif first == group:
            found[second] = lines[name]
    return found


def summaries_text(commands: Iterable[tuple[str, str]]) -> str:
    """What `SUMMARIES` is to hold of these names and lines."""
    return "".join(f"{name}: {summary}\n" for name, summary in commands)


def _columns() -> int:
    """Those of the terminal; 80 where there is none."""
    told = os.environ.get("COLUMNS", "")
    if told.isdecimal() and int(told):
        return int(told)
    try:
        return os.get_terminal_size(sys.__stdout__.fileno()).columns or WIDEST + 2  # type: ignore[union-attr]
    except (AttributeError, ValueError, OSError):
        return WIDEST + 2


def _indented(text: str, width: int) -> str:
    return textwrap.fill(text, width, initial_indent="  ", subsequent_indent="  ")


def _listed(rows: dict[str, str], width: int) -> str:
    """Names in a column, and beside it what they do."""
    column = max(map(len, rows)) + 4
    return "\n".join(
        textwrap.fill(text, width, initial_indent=f"  {name}".ljust(column), subsequent_indent=" " * column)
        for name, text in rows.items()
    )
