"""`list`: what is on this machine."""

from localinfer.cli import options as o
from localinfer.errors import size


def list_models(*, json: o.Json, quiet: o.Quiet) -> None:
    """Show the models on this machine, downloads and quantized ones alike, and those that were never finished."""
    from localinfer.cli.output import note, show_json, table
    from localinfer.cli.tables import SOURCES, as_row, unfinished_row
    from localinfer.hub.cache import list_models as models_here
    from localinfer.hub.unfinished import unfinished_models

    models, begun = models_here(), unfinished_models()
    if json:
        show_json([*map(as_row, models), *map(unfinished_row, begun)])
        return
    rows = [
        (model.ref, model.variant, size(model.size_bytes), SOURCES[model.source], (model.revision or "")[:12])
        for model in models
    ]
    rows += [
        (one.ref, one.variant, size(one.size_bytes), SOURCES[one.source], "being made" if one.busy else "unfinished")
        for one in begun
    ]
    if rows:
        table(("MODEL", "FORM", "SIZE", "FROM", "REVISION"), rows)
    if quiet:
        return
    if not rows:
        note("no model here yet; `localinfer pull REF` gets one, `localinfer run starter` brings its own")
    if any(not one.busy for one in begun):
        note("unfinished: the command that began it goes on with it; `localinfer rm MODEL` deletes what is there")
