"""How a flag is described once, for the help pages, the environment, the settings file and the completions."""

from dataclasses import MISSING, fields
from typing import Any

import typer

from localinfer.config import Kind, Setting

SETTINGS: dict[str, Setting] = {}
"""All flags by their long name."""

Count = int | None
Words = tuple[str, ...]


def default_of(config: type, field: str) -> Any:
    """The default that a frozen config gives `field`."""
    found = {f.name: f.default for f in fields(config)}[field]
    return None if found is MISSING else found


def flag(
    name: str,
    kind: Kind,
    help: str,  # noqa: A002 - Typer's own word for it
    *,
    short: str = "",
    choices: Words = (),
    low: float | None = None,
    high: float | None = None,
    default: object = None,
    shows: str = "",
    metavar: str = "",
    secret: bool = False,
) -> Any:
    """Register one flag; return what Typer wants as its annotation. `shows` is the default in words."""
    default = {"flag": False, "list": ()}.get(kind, default)
    SETTINGS[name] = Setting(
        name=name,
        kind=kind,
        help=help,
        short=short,
        choices=choices,
        low=low,
        high=high,
        default=default,
        secret=secret,
    )
    shown = shows or ("" if default in (None, False, ()) else str(default))
    return typer.Option(
        *([short] if short else []),
        f"--{name}",
        help=f"{help} [default: {shown}]" if shown else help,
        metavar="" if kind == "flag" else metavar or "|".join(choices) or {"int": "N", "float": "X"}.get(kind, "TEXT"),
        show_default=False,
    )
