"""`list`: what is on this machine."""

from collections.abc import Container

from localinfer.cli import options as o
from localinfer.errors import size
from localinfer.hub.model import LocalModel


def list_models(*, json: o.Json, quiet: o.Quiet) -> None:
    """Show the models on this machine, downloads and quantized ones alike, and those that were never finished."""
    from localinfer.cli.output import note, show_json, table
    from localinfer.cli.tables import SOURCES, as_row, unfinished_row
    from localinfer.hub.cache import list_models as installed_models
    from localinfer.hub.damage import damage_of
    from localinfer.hub.unfinished import unfinished_models

    models, begun = installed_models(), unfinished_models()
    damaged = {model.ref: error for model in models if (error := damage_of(model.path))}
    if json:
        found = [as_row(one) | ({"problem": damaged[one.ref].message} if one.ref in damaged else {}) for one in models]
        show_json([*found, *map(unfinished_row, begun)])
        return
    rows = [
        (model.ref, model.variant, size(model.size_bytes), SOURCES[model.source], _state(model, damaged))
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
    for ref, error in damaged.items():
        note(f"{ref} is damaged: {error.message}; `localinfer rm {ref}` deletes it")
    if any(not one.busy for one in begun):
        note("unfinished: the command that began it goes on with it; `localinfer rm MODEL` deletes what is there")


def _state(model: LocalModel, damaged: Container[str]) -> str:
    return "damaged" if model.ref in damaged else (model.revision or "")[:12]
