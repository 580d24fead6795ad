"""`rm`: delete models."""

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from localinfer.cli import options as o
from localinfer.errors import NotFound, UsageError, size

if TYPE_CHECKING:
    from localinfer.hub.model import LocalModel
    from localinfer.hub.unfinished import Unfinished

Refs = Annotated[list[str], typer.Argument(metavar="REF...", help="Models as `localinfer list` names them.")]


def rm(refs: Refs, *, dry_run: o.DryRun, yes: o.Yes, json: o.Json, quiet: o.Quiet) -> None:
    """Delete models from this machine.

    `name` is the download, `name:INT4` that form. One that was never finished is deleted by the name it would have.
    Asks first; without a terminal it wants `--yes`.
    """
    from localinfer.cli.output import is_terminal, line, show_json

    models = list({_location(found): found for found in map(_found, refs)}.values())
    for model in models:
        _remove(model, dry_run=True)  # refuses what is not ours before anything is deleted
    if not dry_run and not yes:
        if not is_terminal(sys.stdin):
            raise UsageError("nobody is there to ask", hint="add `--yes` to delete, or `--dry-run` to look")
        if not _agreed(", ".join(f"{model.ref} ({size(model.size_bytes)})" for model in models)):
            line("nothing deleted")
            return
    gone = [(model, _remove(model, dry_run=dry_run)) for model in models]
    if json:
        show_json([{**_row(model), "freed_bytes": freed, "deleted": not dry_run} for model, freed in gone])
    elif not quiet:
        for model, freed in gone:
            line(f"{'would delete' if dry_run else 'deleted'} {model.ref}, {size(freed)}")


def _found(ref: str) -> "LocalModel | Unfinished":
    """The model that `ref` means, or else what there is of one that was never finished."""
    from localinfer.hub.resolve import resolve
    from localinfer.hub.unfinished import find_unfinished

    try:
        return resolve(ref)
    except NotFound:
        if (begun := find_unfinished(ref)) is not None:
            return begun
        raise


def _remove(model: "LocalModel | Unfinished", *, dry_run: bool) -> int:
    """Bytes that become free, or would."""
    from localinfer.hub.model import LocalModel
    from localinfer.hub.removal import remove
    from localinfer.hub.unfinished import remove_unfinished

    if isinstance(model, LocalModel):
        return remove(model, dry_run=dry_run).freed_bytes
    return remove_unfinished(model, dry_run=dry_run)


def _location(model: "LocalModel | Unfinished") -> Any:
    from localinfer.hub.model import LocalModel

    return model.path if isinstance(model, LocalModel) else model.paths


def _row(model: "LocalModel | Unfinished") -> dict[str, Any]:
    from localinfer.cli.tables import as_row, unfinished_row
    from localinfer.hub.model import LocalModel

    return as_row(model) if isinstance(model, LocalModel) else unfinished_row(model)


def _agreed(what: str) -> bool:
    from localinfer.text import one_line

    sys.stderr.write(f"delete {one_line(what, 2000)}? [y/N] ")
    sys.stderr.flush()
    return sys.stdin.readline().strip().lower() in ("y", "yes")
