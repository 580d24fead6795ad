"""`export`: a model for other programs."""

from pathlib import Path
from typing import Annotated, cast

import typer

from localinfer.cli import options as o
from localinfer.cli.telling import Terminal
from localinfer.errors import UsageError, size

Ref = Annotated[str, typer.Argument(metavar="REF", help="A model of `localinfer list`, or a folder.")]


def export(
    ref: Ref,
    *,
    format: o.Format,  # noqa: A002 - the flag's name
    type: o.Type,  # noqa: A002 - the flag's name
    head: o.Head,
    output: o.Output,
    revision: o.Revision,
    offline: o.Offline,
    json: o.Json,
    quiet: o.Quiet,
) -> None:
    """Write a model in the form of other programs: a GGUF file, or a folder for servers on GPUs.

    Integers are carried over as they are, so that every weight of the layers keeps its value. It is written here, named
    after the model, unless `--output` says otherwise.
    """
    from localinfer.cli.output import line, note, show_json
    from localinfer.cli.progress import Progress
    from localinfer.loading.opening import find
    from localinfer.quantize.export import export_gguf, left_out
    from localinfer.quantize.export_folders import Head, export_compressed, export_gptq

    if format is None:
        raise UsageError("`--format` is missing", hint=f"say which: `localinfer export {ref} --format gguf`")
    _refuse(format, type, head)
    model = find(ref, revision=revision, offline=offline, tell=Terminal(quiet))
    if model.kind == "gguf":
        raise UsageError(f"`{ref}` is a GGUF file", hint=f"make a model of it first: `localinfer import {ref}`")
    stem = f"{model.name.rpartition('/')[2]}-{model.variant}"
    ending = {"gguf": ".gguf", "gptq": "-GPTQ", "compressed-tensors": "-CT"}[format]
    dest = Path(output).expanduser() if output else Path(f"{stem}{'-' + type if type else ''}{ending}")
    with Progress(long=True, quiet=quiet) as progress:

        def on_progress(done: int, total: int) -> None:
            progress(f"writing {dest.name}", done, total)

        if format == "gguf":
            what = export_gguf(model.path, dest, type, on_progress)
        elif format == "compressed-tensors":
            head = head or "bf16"
            what = export_compressed(model.path, dest, on_progress, cast(Head, head))
        else:
            head = head or "f16"
            bits, group = export_gptq(model.path, dest, on_progress, cast(Head, head))
            what = f"{bits} bits by {group}"
    lacks = left_out(model.path, gguf=format == "gguf")
    for one in lacks if not quiet else ():
        note(one)
    nbytes = sum(file.stat().st_size for file in (dest.iterdir() if dest.is_dir() else (dest,)))
    if json:
        told = {"ref": model.ref, "format": format, "type": what, "path": str(dest), "size_bytes": nbytes}
        told |= {"head": head} if head else {}
        show_json({**told, "notes": lacks})
    else:
        line(f"{dest}  {what}{f', embedding and head {head}' if head else ''}  {size(nbytes)}")


def _refuse(form: str, kind: str | None, head: str | None) -> None:
    """Raise `UsageError` for flags that do not go together."""
    if head in ("8", "4"):
        raise UsageError("no other program reads a packed head", hint="`--head bf16` or `--head f16`")
    if form == "gguf" and head is not None:
        raise UsageError("`--head` is for compressed-tensors and gptq", hint="leave it out: `--type` goes with gguf")
    if form != "gguf" and kind is not None:
        raise UsageError("`--type` is for gguf only", hint="leave it out")
