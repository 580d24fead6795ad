"""`list`: what is on this machine."""

from localinfer.cli import options as o
from localinfer.errors import size


def list_models(*, json: o.Json, quiet: o.Quiet) -> None:
    """Show the models on this machine, downloads and quantized ones alike."""
    from localinfer.cli.output import note, show_json, table
    from localinfer.cli.tables import SOURCES, as_row
    from localinfer.hub.cache import list_models as models_here

    models = models_here()
    if json:
        show_json([as_row(model) for model in models])
    elif models:
        rows = [
            (model.ref, model.variant, size(model.size_bytes), SOURCES[model.source], (model.revision or "")[:12])
            for model in models
        ]
        table(("MODEL", "FORM", "SIZE", "FROM", "REVISION"), rows)
    elif not quiet:
        note("no model here yet; `localinfer pull REF` gets one, `localinfer run starter` brings its own")
