"""`rm`: delete models."""

import sys
from typing import Annotated

import typer

from localinfer.cli import options as o
from localinfer.errors import UsageError, size

Refs = Annotated[list[str], typer.Argument(metavar="REF...", help="Models as `localinfer list` names them.")]


def rm(refs: Refs, *, dry_run: o.DryRun, yes: o.Yes, json: o.Json, quiet: o.Quiet) -> None:
    """Delete models from this machine.

    `name` is the download, `name:INT4` that form. Asks first; without a terminal it wants `--yes`.
    """
    from localinfer.cli.output import is_terminal, line, show_json
    from localinfer.cli.tables import as_row
    from localinfer.hub.removal import remove
    from localinfer.hub.resolve import resolve

    models = list({model.path: model for model in map(resolve, refs)}.values())
    for model in models:
        remove(model, dry_run=True)  # refuses what is not ours before anything is deleted
    if not dry_run and not yes:
        if not is_terminal(sys.stdin):
            raise UsageError("nobody is there to ask", hint="add `--yes` to delete, or `--dry-run` to look")
        if not _agreed(", ".join(f"{model.ref} ({size(model.size_bytes)})" for model in models)):
            line("nothing deleted")
            return
    gone = [remove(model, dry_run=dry_run) for model in models]
    if json:
        show_json([{**as_row(r.model), "freed_bytes": r.freed_bytes, "deleted": not dry_run} for r in gone])
    elif not quiet:
        for removal in gone:
            verb = "would delete" if dry_run else "deleted"
            line(f"{verb} {removal.model.ref}, {size(removal.freed_bytes)}")


def _agreed(what: str) -> bool:
    from localinfer.text import one_line

    sys.stderr.write(f"delete {one_line(what, 2000)}? [y/N] ")
    sys.stderr.flush()
    return sys.stdin.readline().strip().lower() in ("y", "yes")
