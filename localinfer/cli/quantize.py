"""`quantize`: make a model small."""

from dataclasses import asdict
from typing import Annotated

import typer

from localinfer.cli import options as o
from localinfer.errors import UsageError, size
from localinfer.hub.model import LocalModel

Ref = Annotated[str, typer.Argument(metavar="REF", help="The original: a model of `localinfer list`, or `starter`.")]


def quantize(
    ref: Ref,
    *,
    bits: o.Bits,
    group: o.Group,
    name: o.Name,
    threads: o.Threads,
    revision: o.Revision,
    offline: o.Offline,
    json: o.Json,
    quiet: o.Quiet,
) -> None:
    """Make a model smaller and faster; it is kept as `REF:INT4` and the like.

    The embedding and the head get 8 bits. Stopped half-way, the same command goes on where it was.
    """
    from localinfer.cli.making import make_small
    from localinfer.cli.output import line, note, show_json
    from localinfer.hub.cache import own_model, variant_dir
    from localinfer.hub.model import variant_of_bits

    if bits is None:
        raise UsageError("`--bits` is missing", hint=f"say how small: `localinfer quantize {ref} --bits 4`")
    width = int(bits)
    source = original(ref, revision=revision, offline=offline, quiet=quiet)
    made = f"{name or source.name}:{variant_of_bits(width)}"
    if own_model(name or source.name, variant_of_bits(width)) is not None:
        raise UsageError(f"`{made}` is here already", hint=f"use it, or make place first: `localinfer rm {made}`")
    dest = variant_dir(name or source.name, variant_of_bits(width))
    report = make_small(
        source, width, group=int(group) if group else None, name=name, threads=threads or 0, quiet=quiet
    )
    if json:
        show_json({"ref": made, "path": str(dest), "source": source.ref, **asdict(report)})
        return
    for remark in report.notes if not quiet else ():
        note(remark)
    figures = f"{report.bits_per_weight:.2f} bits a weight  {size(report.size_bytes)}  {report.seconds:.1f} s"
    line(f"{made}  {figures}  {dest}")


def original(ref: str, *, revision: str | None, offline: bool, quiet: bool) -> LocalModel:
    """The unquantized form that `ref` means, fetched with a note if the catalogue can supply it."""
    from localinfer.cli.opening import find
    from localinfer.hub import catalogue

    entry = catalogue.find(ref)
    source = find(entry.repo if entry else ref, revision=revision, offline=offline, quiet=quiet)
    if source.kind == "gguf":
        raise UsageError(f"`{ref}` is a GGUF file", hint=f"make a model of it first: `localinfer import {ref}`")
    if source.variant != "BF16":
        raise UsageError(
            f"`{source.ref}` is quantized already", hint=f"quantize the original: `localinfer pull {source.name}`"
        )
    return source
