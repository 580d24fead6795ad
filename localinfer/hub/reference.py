"""What a person types to mean a model, taken apart. No look at the disk beyond `exists`."""

import re
from dataclasses import dataclass
from pathlib import Path

from localinfer.errors import UsageError
from localinfer.hub import catalogue
from localinfer.hub.model import VARIANTS, Variant
from localinfer.hub.names import check_model_name, is_revision

_VARIANT = re.compile(r"(?P<rest>.+):(?P<variant>[A-Za-z0-9]+)")


@dataclass(frozen=True, slots=True)
class Reference:
    """Either a path, or a name (perhaps an alias) with what was asked of it."""

    name: str
    revision: str | None = None
    variant: Variant | None = None
    path: Path | None = None


def parse(ref: str, *, revision: str | None = None) -> Reference:
    """`org/name[@revision][:VARIANT]`, an alias, `hf://org/name`, a directory or a `.gguf` file.

    `revision` is the flag; it and `@revision` must not differ. A directory that holds a `config.json` wins over a
    name, but not over an alias. Raises `UsageError` for anything else.
    """
    text = ref.strip()
    if not text or "\0" in text or len(text) > 4096:
        raise UsageError(
            "the model reference is empty or not a name", hint="type `localinfer list` to see what is here"
        )
    if text.startswith("hf://"):
        text = text.removeprefix("hf://").removeprefix("models/")
    elif path := _as_path(text):
        if revision:
            raise UsageError(f"`{ref}` is a path and has no revision", hint="leave `--revision` out")
        return Reference(name=path.stem if path.suffix == ".gguf" else path.name, path=path)
    text, variant = _split_variant(text)
    name, at, written = text.partition("@")
    if at and revision and written != revision:
        raise UsageError(f"two revisions: `{written}` and `{revision}`", hint="give one of them")
    wanted = written if at else revision
    if wanted is not None and not is_revision(wanted):
        raise UsageError(f"{wanted!r} is not a revision", hint="use a commit, a branch or a tag")
    return Reference(name=check_model_name(name), revision=wanted, variant=variant)


def _as_path(text: str) -> Path | None:
    path = Path(text).expanduser() if text.startswith("~") else Path(text)
    if text.startswith(("/", "./", "../", "~")) or text in (".", "..") or text.lower().endswith(".gguf"):
        return path
    try:
        return path if (path / "config.json").is_file() and text not in catalogue.aliases() else None
    except OSError:
        return None


def _split_variant(text: str) -> tuple[str, Variant | None]:
    match = _VARIANT.fullmatch(text)
    if not match:
        return text, None
    for variant in VARIANTS:
        if match["variant"].upper() == variant and variant != "GGUF":
            return match["rest"], variant
    raise UsageError(
        f"`{match['variant']}` is not a form of a model",
        hint="write `:BF16`, `:INT8`, `:INT5`, `:INT4` or `:INT3` after the name",
    )
