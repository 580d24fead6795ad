"""`show`: all about one model."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from localinfer.cli import options as o
from localinfer.errors import NotFound, size
from localinfer.text import one_line

if TYPE_CHECKING:
    from localinfer.hub.model import LocalModel

Ref = Annotated[str, typer.Argument(metavar="REF", help="A model of `localinfer list`, an alias, a directory or file.")]


def show(ref: Ref, *, template: o.Template, revision: o.Revision, json: o.Json) -> None:
    """Show one model: what it is, where it lies, what it needs.

    Exit code 4 when there is no such model here.
    """
    from localinfer.cli.output import line, show_json, write
    from localinfer.cli.tables import as_row
    from localinfer.hub.details import details
    from localinfer.hub.resolve import resolve

    model = resolve(ref, revision=revision)
    about = details(model)
    if template:
        if about["template"] is None:
            raise NotFound(f"`{model.ref}` has no chat template", hint="use `run --raw` with it")
        write(about["template"].rstrip("\n") + "\n")
        return
    row: dict[str, Any] = {**as_row(model), **about, **_experts(model), **_in_file(model)}
    if json:
        show_json(row)
        return
    row["size_bytes"] = size(model.size_bytes)
    if "in_file_bytes" in row:
        row["in_file_bytes"] = f"{size(row['in_file_bytes'])}, which take no memory: rows of them are read as needed"
    row["template"] = "yes (`--template` prints it)" if row["template"] else None
    for key, value in row.items():
        if value not in (None, [], ""):
            line(f"{key.replace('_', ' '):<18}{_words(value)}")


def _experts(model: "LocalModel") -> dict[str, Any]:
    """Of a mixture of experts, how many numbers it holds, and how many of them one token is multiplied by."""
    from localinfer.cost.parts import experts_of

    found = None if model.kind == "gguf" else experts_of(model.path)
    if found is None:
        return {}
    bits = round(model.size_bytes * 8 / found[0], 2)
    return {"parameters": found[0], "active_parameters": found[1], "bits_per_weight": bits}


def _in_file(model: "LocalModel") -> dict[str, Any]:
    """Of a model with inputs by layer, the bytes of weights that stay in their file."""
    from localinfer.cost.parts import stays_in_file

    found = 0 if model.kind == "gguf" else stays_in_file(model.path)
    return {"in_file_bytes": found} if found else {}


def _words(value: Any) -> str:
    """One value on one line. Of records only what is short: no lists of files, no hashes."""
    if isinstance(value, dict):
        flat = {**value.pop("source", {}), **value.pop("recipe", {}), **value}
        short = {key: item for key, item in flat.items() if isinstance(item, (str, int)) and len(str(item)) < 60}
        return one_line("; ".join(f"{key} {item}" for key, item in short.items()), 300)
    return one_line(", ".join(map(str, value)) if isinstance(value, list) else str(value), 300)
