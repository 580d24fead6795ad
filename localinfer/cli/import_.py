"""`import`: a GGUF file becomes a model of ours."""

from pathlib import Path
from typing import Annotated

import typer

from localinfer.cli import options as o
from localinfer.errors import NotFound, UsageError, size

GgufFile = Annotated[str, typer.Argument(metavar="FILE.gguf", help="The file; it is read, not kept.")]


def import_(file: GgufFile, *, name: o.Name, bits: o.Bits, json: o.Json, quiet: o.Quiet) -> None:
    """Turn a GGUF file into a model of ours, tokenizer and chat template with it.

    Q8_0, Q4_0, Q4_1, Q4_K, Q5_0, Q5_1, Q5_K, Q3_K and IQ4_NL keep every weight; other quantizations become INT8 and say
    what that loses. Matrices that are loaded as one (q, k and v; gate and up) get one form: beside floats they become
    bf16, and say what that loses.
    """
    from localinfer.cli.output import line, note, show_json
    from localinfer.cli.progress import Progress
    from localinfer.cli.tables import as_row
    from localinfer.cost.machine import available_bytes
    from localinfer.hub.importing import import_file
    from localinfer.quantize.from_gguf import GgufImporter

    path = Path(file).expanduser()
    if not path.is_file():
        raise NotFound(f"no such file: {file}", hint="give the path of a `.gguf` file")
    if bits not in (None, "16"):
        raise UsageError(
            f"`import` keeps the bits of the file, or makes 16 of them, not {bits}",
            hint="import it with `--bits 16`, then `localinfer quantize` it",
        )
    notes: list[str] = []
    importer = GgufImporter(16 if bits == "16" else None, free=available_bytes(), say=notes.append)
    with Progress(long=True, quiet=quiet) as progress:
        model = import_file(
            path, name, lambda done, total: progress(f"importing {path.name}", done, total), importer=importer
        )
    if not quiet:
        for one in notes:
            note(one)
    if json:
        show_json(as_row(model))
    else:
        line(f"{model.ref}  {model.variant}  {size(model.size_bytes)}  {model.path}")
