"""`import`: a GGUF file becomes a model of ours."""

from pathlib import Path
from typing import Annotated

import typer

from localinfer.cli import options as o
from localinfer.errors import NotFound, size

GgufFile = Annotated[str, typer.Argument(metavar="FILE.gguf", help="The file; it is read, not kept.")]


def import_(file: GgufFile, *, name: o.Name, json: o.Json, quiet: o.Quiet) -> None:
    """Turn a GGUF file into a model of ours: weights as bf16, tokenizer and chat template with it."""
    from localinfer.cli.output import line, show_json
    from localinfer.cli.progress import Progress
    from localinfer.cli.tables import as_row
    from localinfer.hub.importing import import_file

    path = Path(file).expanduser()
    if not path.is_file():
        raise NotFound(f"no such file: {file}", hint="give the path of a `.gguf` file")
    with Progress(long=True, quiet=quiet) as progress:
        model = import_file(path, name, lambda done, total: progress(f"importing {path.name}", done, total))
    if json:
        show_json(as_row(model))
    else:
        line(f"{model.ref}  {model.variant}  {size(model.size_bytes)}  {model.path}")
