"""`fit`: what a model needs, before it is downloaded or loaded."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated

import typer

from localinfer.cli import options as o
from localinfer.cli.bundles import EngineFlags
from localinfer.cli.command import refuse_typed
from localinfer.config import EngineConfig
from localinfer.errors import NetworkError, NotFound, NotSupported

if TYPE_CHECKING:
    from localinfer.cost.fitting import Asked, FitReport
    from localinfer.hub.catalogue import Entry
    from localinfer.hub.model import LocalModel

Ref = Annotated[str, typer.Argument(metavar="REF", help="A model here, or `org/name` on the Hub.")]


def fit(
    ctx: typer.Context,
    ref: Ref,
    *,
    engine: EngineFlags,
    parallel: o.Parallel,
    revision: o.Revision,
    token: o.Token,
    offline: o.Offline,
    json: o.Json,
) -> None:
    """Show what a model needs in each width, what is free, and how fast it will be.

    Of a model on the Hub only the headers are read. The memory is counted by the code that will allocate it; speeds
    come from this machine's bandwidth and from models measured on it; of a mixture that does not fit, with experts on
    disk. Exit code 3 when no form fits.
    """
    from localinfer.cli.counts import counts
    from localinfer.cli.output import line, show_json
    from localinfer.cost.fitting import fit_table
    from localinfer.errors import DoesNotFit, UsageError, size

    refuse_typed(ctx, "backend", "draft-tokens", "prefill-chunk", "latency-goal", "experts")
    streams = counts("parallel", parallel) or [1]
    if len(streams) > 1:
        raise UsageError("`fit` judges one number of sequences", hint="write it like `-np 8`")
    config = engine.config(parallel=streams[0])
    with TemporaryDirectory(prefix="localinfer-fit-") as folder:
        report = judged(_asked(ref, Path(folder), revision, token, offline=offline), config)
    show_json(report.to_json()) if json else line(fit_table(report).rstrip("\n"))
    if not any(one.fits or one.mapped_fits for one in report.forms):
        least = min(report.forms, key=lambda one: one.total_bytes)
        raise DoesNotFit(
            f"`{report.model}` needs {size(least.total_bytes)} as {least.form}, but {size(least.free_bytes)} is free",
            hint="lower `--ctx-size` or `--parallel`, or choose a smaller model",
        )


def judged(asked: "Asked", config: EngineConfig) -> "FitReport":
    """The report, with the drafter that the settings name."""
    from localinfer.bench.measured import fit_report
    from localinfer.paths import hub_cache_dir, models_dir

    disk = hub_cache_dir() if asked.download_bytes else models_dir()
    return fit_report(asked, config, disk=disk, drafter=config.draft_model)


def _asked(ref: str, folder: Path, revision: str | None, token: str | None, *, offline: bool) -> "Asked":
    """The model here, or what its form would be made of; else its headers from the Hub in `folder`."""
    from localinfer.cost.fitting import Asked
    from localinfer.hub.connection import told_offline
    from localinfer.hub.reference import parse
    from localinfer.hub.resolve import resolve

    offline = offline or told_offline()
    reference = parse(ref, revision=revision)
    wanted, known = reference.variant or "", resolve_or_none(ref, revision, offline=offline)
    if known is not None and known.source == "ours" and not wanted and known.variant != "BF16":
        # an alias means its best small form; the original tells of every width, that one first
        original = resolve_or_none(known.name, reference.revision, offline=offline)
        known, wanted = original or known, known.variant
    if known is None and wanted:
        known = resolve_or_none(f"{reference.name}:BF16", reference.revision, offline=offline)
    if known is None:
        entry = None if reference.revision or reference.path else _shipped(reference.name)
        if entry is None and (offline or reference.path):
            resolve(ref, revision=revision, offline=offline)  # says why not
        return _by_headers(ref, folder, revision, token, wanted, entry, offline=offline)
    if known.kind == "gguf":
        raise NotSupported(
            f"{known.path.name} is a GGUF file, which another engine allocates for",
            hint=f"`localinfer import {known.path.name}` makes a model of ours of it, which can be judged",
        )
    return Asked(known.path, known.name, known.variant, known.revision, wanted=wanted)


def _shipped(name: str) -> "Entry | None":
    """The entry of the catalogue of that name if a package that is installed holds its weights."""
    from localinfer.hub import catalogue
    from localinfer.hub.starter import package_file

    entry = catalogue.find(name)
    if entry is None or entry.package is None:
        return None
    try:
        package_file(entry.package)
    except NotFound:
        return None
    return entry


def _by_headers(
    ref: str,
    folder: Path,
    revision: str | None,
    token: str | None,
    wanted: str,
    shipped: "Entry | None",
    *,
    offline: bool,
) -> "Asked":
    """The headers from the Hub; where it cannot be reached, or must not be, those of the package."""
    from localinfer.cli.output import note
    from localinfer.cost.fitting import Asked
    from localinfer.hub.patience import HASTY, PATIENT
    from localinfer.hub.peek import peek
    from localinfer.hub.resolve import suggest
    from localinfer.hub.starter import look_into_package

    if not offline:
        (headers := folder / "hub").mkdir()
        try:
            found = peek(ref, headers, revision=revision, token=token, patience=HASTY if shipped else PATIENT)
            return Asked(headers, found.repo, "BF16", found.commit, found.download_bytes, wanted)
        except (NetworkError, NotFound) as error:
            if shipped is None:
                suggest(error, ref)
                raise
            note(f"{error.message}; the sizes are those of the weights in an installed package")
    assert shipped is not None
    assert shipped.package is not None
    (headers := folder / "package").mkdir()
    size = look_into_package(shipped.package, headers)
    package = shipped.package.package
    return Asked(headers, shipped.repo, "BF16", wanted=wanted, package=package, import_bytes=size)


def resolve_or_none(ref: str, revision: str | None, *, offline: bool) -> "LocalModel | None":
    """The model here; None when it is not."""
    from localinfer.hub.resolve import resolve

    try:
        return resolve(ref, revision=revision, offline=offline)
    except NotFound:
        return None
