"""`pull`: download a model from the Hub."""

from typing import Annotated

import typer

from localinfer.cli import options as o
from localinfer.errors import NetworkError, NotFound, size

Ref = Annotated[str, typer.Argument(metavar="REF", help="`org/name[@revision]` or an alias such as `starter`.")]


def pull(
    ref: Ref,
    *,
    revision: o.Revision,
    token: o.Token,
    offline: o.Offline,
    json: o.Json,
    quiet: o.Quiet,
) -> None:
    """Download a model from the Hub into the shared cache.

    Every file is of one commit and its hash is checked. Stopped half-way, the same command goes on where it was.
    """
    from localinfer.cli.output import line, note, show_json
    from localinfer.cli.progress import Progress
    from localinfer.cli.tables import as_row
    from localinfer.hub import catalogue
    from localinfer.hub.client import pull as download
    from localinfer.hub.resolve import suggest
    from localinfer.hub.starter import ensure_source

    entry = catalogue.find(ref)
    with Progress(long=True, quiet=quiet, in_bytes=True) as progress:

        def on_progress(done: int, total: int) -> None:
            progress(ref, done, total)

        def on_notice(text: str) -> None:
            progress.clear()
            note(text)

        try:
            if entry is not None and entry.package is not None and revision is None:
                model = ensure_source(ref, on_progress, on_notice=on_notice, offline=offline, token=token)
            else:
                model = download(
                    ref, revision=revision, token=token, offline=offline, on_progress=on_progress, on_notice=on_notice
                )
        except KeyboardInterrupt:
            on_notice("interrupted; the same command goes on where it stopped")
            raise
        except (NetworkError, NotFound) as error:
            suggest(error, ref)
            raise
    if json:
        show_json(as_row(model))
    else:
        line(f"{model.ref}  {model.variant}  {size(model.size_bytes)}  {model.path}")
