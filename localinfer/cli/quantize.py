"""`quantize`: make a model small."""

import time
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, TypedDict

import typer

from localinfer.cli import options as o
from localinfer.cli import output
from localinfer.cli.bundles import WidthFlags
from localinfer.cli.telling import Terminal
from localinfer.errors import DoesNotFit, UsageError, bytes_of, seconds_of, size
from localinfer.hub.model import LocalModel

if TYPE_CHECKING:
    from localinfer.evaluate import Quality
    from localinfer.loading.making import Limit, Making
    from localinfer.quantize import Earlier, Method
    from localinfer.quantize.plan import HeadBits
    from localinfer.quantize.recipe import Asked, Effort

HEADS: "dict[str, HeadBits]" = {"bf16": 16, "8": 8, "5": 5, "4": 4}

Ref = Annotated[str, typer.Argument(metavar="REF", help="The original: a model of `localinfer list`, or `starter`.")]


def quantize(
    ref: Ref,
    *,
    bits: o.Bits,
    group: o.Group,
    head: o.Head,
    effort: o.Effort,
    method: o.Method,
    calib: o.Calib,
    tokens: o.Tokens,
    seed: o.Seed,
    widths: WidthFlags,
    refine: o.Refine,
    time_budget: o.TimeBudget,
    resume: o.Resume,
    fresh: o.Fresh,
    name: o.Name,
    adapter: o.Adapter,
    threads: o.Threads,
    no_report: o.NoReport,
    revision: o.Revision,
    offline: o.Offline,
    json: o.Json,
    quiet: o.Quiet,
) -> None:
    """Make a model smaller and faster; it is kept as `REF:INT4` and the like.

    The embedding gets 8 bits. Stopped half-way, the same command goes on, unless the original has changed (exit
    code 9). At the end it is measured against the original on a text that is used for nothing else.
    """
    from localinfer.loading.making import Limit

    limit = Limit(_seconds(time_budget), report=not no_report, started=output.begun)
    widths.require_one()
    _require_one("`--resume` and `--fresh`", resume, fresh)
    target = widths.target_kld
    if target:
        _refuse_with_target({"group": group, "time-budget": time_budget, "no-report": no_report})
    width, threads = _width(bits or ("3" if target else None), ref), threads or 0
    asked = _asked(effort, method, tokens, refine)
    source = original(ref, revision=revision, offline=offline, quiet=quiet)
    source, name = _adapted(source, adapter, name, quiet=quiet), name or source.name
    (made, dest), tell = _location(name, width), Terminal(quiet, json=json)
    common: Common = {"head": _head(head), "asked": asked, "calib": calib, "seed": seed or 0, "name": name}
    common |= {"threads": threads, "earlier": "resume" if resume else "fresh" if fresh else "auto", "tell": tell}
    making, quality = _made(source, width, widths, int(group) if group else None, limit, common)
    if not target and not no_report:
        quality = measured(source, made, dest, making, threads=threads, tell=tell)
    show(making, quality, {"ref": made, "path": str(dest), "source": source.ref}, json=json, quiet=quiet)
    _tell_late(limit, quiet=quiet)


def _made(
    source: LocalModel, width: int, widths: WidthFlags, group: int | None, limit: "Limit", common: "Common"
) -> "tuple[Making, Quality | None]":
    """The model, and what it lost where that had to be measured to make it."""
    from localinfer.loading.making import make_small
    from localinfer.loading.targeting import make_within

    if widths.target_kld:
        return make_within(source, width, widths.target_kld, **common)
    making = make_small(
        source,
        width,
        group=group,
        bits_per_weight=widths.bpw,
        target_bytes=bytes_of(widths.target_size, "--target-size") if widths.target_size else None,
        uniform=widths.uniform,
        limit=limit,
        **common,
    )
    return making, None


class Common(TypedDict, total=False):
    """What all ways of making are told."""

    head: "HeadBits"
    asked: "Asked"
    calib: list[str]
    seed: int
    name: str
    threads: int
    earlier: "Earlier"
    tell: Terminal


def _refuse_with_target(given: dict[str, object]) -> None:
    """Raise `UsageError` for a flag that goes against making and measuring several models."""
    if odd := [name for name, value in given.items() if value]:
        raise UsageError(f"`--{odd[0]}` does not go with `--target-kld`", hint="leave one of them out")


def _width(bits: str | None, ref: str) -> int:
    if bits in (None, "16"):
        what = "`--bits` is missing" if bits is None else "16 bits are the original's"
        raise UsageError(what, hint=f"say how small: `localinfer quantize {ref} --bits 4`")
    return int(bits)


def _seconds(time_budget: str | None) -> float:
    return seconds_of(time_budget, "--time-budget") if time_budget else 0.0


def _asked(
    effort: "Effort | None", method: "Method | None", tokens: int | None, refine: Literal["none", "kl", "qat"] | None
) -> "Asked":
    """What flags ask for, together."""
    from localinfer.quantize.recipe import Asked

    return Asked(effort, method, tokens, refine)


def _tell_late(limit: "Limit", *, quiet: bool) -> None:
    """Say so if it took longer than allowed."""
    if not limit.seconds or quiet:
        return
    from localinfer.cli.output import note
    from localinfer.quantize.schedule import too_long
    from localinfer.quantize.time_plan import FLAG

    if late := too_long(limit.clock() - limit.started, limit.seconds, FLAG):
        note(late)


def _require_one(flags: str, *given: object) -> None:
    if all(given):
        raise UsageError(f"{flags} were both given", hint="leave one of them out")


def _location(name: str, bits: int) -> tuple[str, Path]:
    """How the model to be made is called, and its folder. Raises `UsageError` when it is here already."""
    from localinfer.hub.cache import made_model, variant_dir
    from localinfer.hub.model import variant_of_bits

    variant = variant_of_bits(bits)
    made = f"{name}:{variant}"
    if made_model(name, variant) is not None:
        raise UsageError(f"`{made}` is here already", hint=f"use it, or make place first: `localinfer rm {made}`")
    return made, variant_dir(name, variant)


def show(making: "Making", quality: "Quality | None", made: dict[str, str], *, json: bool, quiet: bool) -> None:
    """Print what was made and what it lost."""
    from localinfer.cli.output import line, note, show_json

    report = making.report
    if json:
        figures = quality.figures() if quality else {}
        how = {**asdict(making.recipe), "expected_s": making.expected_s or None}
        show_json({**made, **how, **asdict(report), **figures})
        return
    for remark in report.notes if not quiet else ():
        note(remark)
    sizes = f"{report.bits_per_weight:.2f} bits a weight  {size(report.size_bytes)}"
    took = f"{report.seconds:.1f} s  {size(report.peak_bytes)} of memory"
    line(f"{made['ref']}  {sizes}  {took}  {made['path']}")
    if quality is not None:
        from localinfer.evaluate.report import in_a_line

        line(in_a_line(quality))
    line("worst tensors: " + ", ".join(f"{name} {error:.1%}" for name, error in report.worst_tensors[:3]))


def measured(
    source: LocalModel, made: str, dest: Path, making: "Making", *, threads: int, tell: Terminal
) -> "Quality | None":
    """What `made` lost, on as much text as its plan or its effort has time for, kept beside it; None where that is no
    time, or, with a note, where both models do not fit into memory together."""
    from localinfer.evaluate import report_on
    from localinfer.quantize.report import keep_quality

    plan, until = making.plan, time.monotonic() + making.report_s
    if plan is not None and not plan.schedule.has("report"):
        return None
    left = partial(plan.left, "report") if plan is not None else lambda: until - time.monotonic()
    later = f"`localinfer eval {made} --against {source.ref}` measures it"
    with tell.progress(long=True) as progress:
        try:
            quality = report_on(
                dest,
                source.path,
                names=(made, source.ref),
                threads=threads,
                seconds_left=left,
                on_progress=progress,
            )
        except DoesNotFit as error:
            tell.warn(f"not measured: {error.message}; {later}")
            return None
        except KeyboardInterrupt:
            tell.warn(f"interrupted; `{made}` is made, but was not measured; {later}")
            raise
    keep_quality(dest, quality.figures())
    return quality


def _head(word: str | None) -> "HeadBits":
    """Bits of the head. Raises `UsageError`."""
    if word == "f16":
        raise UsageError("a head is bf16, or has 8, 5 or 4 bits", hint="`--head f16` is for `localinfer export`")
    return HEADS[word or "8"]


def _adapted(source: LocalModel, adapters: list[str], name: str | None, *, quiet: bool) -> LocalModel:
    """The original with the adapters in it. Raises `UsageError` where the result would bear the original's name."""
    from localinfer.loading.adapting import adapted

    if adapters and (name is None or name == source.name):
        raise UsageError("with adapters it is another model", hint="give it a name: `--name me/mine`")
    return adapted(source, adapters, tell=Terminal(quiet))


def original(ref: str, *, revision: str | None, offline: bool, quiet: bool) -> LocalModel:
    """The unquantized form that `ref` means, fetched with a note if the catalogue can supply it."""
    from localinfer.hub import catalogue
    from localinfer.hub.checkpoint import is_imported
    from localinfer.loading.opening import find

    entry = catalogue.find(ref)
    source = find(entry.repo if entry else ref, revision=revision, offline=offline, tell=Terminal(quiet))
    if source.kind == "gguf":
        raise UsageError(f"`{ref}` is a GGUF file", hint=f"make a model of it first: `localinfer import {ref}`")
    if source.variant != "BF16":
        again = (
            "import its file again with `--bits 16`" if is_imported(source.path) else f"`localinfer pull {source.name}`"
        )
        raise UsageError(f"`{source.ref}` is quantized already", hint=f"quantize the original: {again}")
    return source
