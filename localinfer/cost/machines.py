"""Machines that tokens could come from: a table of ours, and one of the user's that adds to it."""

import math
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from localinfer.errors import Corrupt, NotFound
from localinfer.formats.json_files import shown
from localinfer.paths import machines_file

LIMIT = 1 << 20
_WORDS = ("name", "kind", "backend", "source", "date")
_NUMBERS = ("gb_s", "int8_tops", "memory_gb")
_OPTIONAL = "needs"
_BY_KIND = {"own": ("watts", "usd"), "rent": ("usd_per_hour",)}
_HINT = "correct it; the form is that of cost/machines.toml in the program, see `localinfer cost --help`"


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """What a machine can do and costs, as specified. GB are 10^9 bytes, dollars are US."""

    key: str
    name: str
    kind: Literal["own", "rent"]
    backend: Literal["cpu", "cuda"]
    gb_s: float
    """Read bandwidth, GB a second."""
    int8_tops: float
    """10^12 integer operations a second."""
    memory_gb: float
    watts: float = 0.0
    """Of the whole machine at work; 0 of a rented one."""
    usd: float = 0.0
    usd_per_hour: float = 0.0
    source: str
    date: str
    """When the price held, `2026-06`."""
    needs: str = ""
    """What is missing to run on it; empty where nothing is."""


def machines(user_file: Path | None = None) -> list[Machine]:
    """Our table, and over it the user's (`machines_file()`), where there is one.

    Raises `Corrupt` naming file, machine and key for anything that is not as it should be.
    """
    found = _read(Path(__file__).with_suffix(".toml"))
    path = user_file or machines_file()
    return list((found | (_read(path) if path.exists() else {})).values())


def _read(path: Path) -> dict[str, Machine]:
    try:
        if path.stat().st_size > LIMIT:
            raise Corrupt(f"{path}: has more than {LIMIT >> 20} MiB", hint=_HINT)
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise NotFound(f"{path}: {(error.strerror or str(error)).lower()}", hint="check the file's rights") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Corrupt(f"{path}: is not TOML: {shown(error)}", hint=_HINT) from error
    return {key: _machine(f"{path}: [{shown(key)}]", key, table) for key, table in tables.items()}


def _machine(where: str, key: str, table: Any) -> Machine:
    kind = table.get("kind") if isinstance(table, dict) else None
    if kind not in ("own", "rent"):
        raise Corrupt(f"{where}: `kind` must be `own` or `rent`", hint=_HINT)
    numbers = (*_NUMBERS, *_BY_KIND[kind])
    wanted = {*_WORDS, *numbers}
    if missing := sorted(wanted - table.keys()):
        raise Corrupt(f"{where}: `{missing[0]}` is missing", hint=_HINT)
    if extra := sorted(table.keys() - wanted - {_OPTIONAL}):
        raise Corrupt(f"{where}: `{shown(extra[0])}` is no key of a machine to {kind}", hint=_HINT)
    for name in (*_WORDS, *({_OPTIONAL} & table.keys())):
        if not isinstance(table[name], str) or not table[name].isprintable() or len(table[name]) > 120:
            raise Corrupt(f"{where}: `{name}` must be a line of text", hint=_HINT)
    if table["backend"] not in ("cpu", "cuda"):
        raise Corrupt(f"{where}: `backend` must be `cpu` or `cuda`", hint=_HINT)
    for name in numbers:
        value = table[name]
        least = 0 if name in ("watts", "usd", "usd_per_hour") else 1e-9
        if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value < math.inf:
            raise Corrupt(f"{where}: `{name}` is {shown(value)}, but must be a number above 0", hint=_HINT)
    return Machine(key=key, **table)
