"""From a path to an engine that runs."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from localinfer.config import EngineConfig, kv_blocks, one_of
from localinfer.errors import Corrupt, DoesNotFit, NotFound, NotSupported
from localinfer.events import OnProgress

if TYPE_CHECKING:
    from localinfer import native
    from localinfer.engine.aside import Aside
    from localinfer.engine.backends import Placement
    from localinfer.engine.disk_cache import Blocks, DiskCache
    from localinfer.engine.drafting import Target
    from localinfer.engine.protocol import Engine, EngineInfo
    from localinfer.engine.step_timing import Key, StepTiming
    from localinfer.formats.tokenizer import Tokenizer
    from localinfer.graph.weights import Checkpoint
    from localinfer.kv.blocks import Group
    from localinfer.kv.cache import PagedCache
    from localinfer.scheduler.scheduler import Scheduler

PADDING_ROWS = 1024
"""Rows past the tokenizer's last token that a model may have: makers round tables up, by 905 at the most we know of."""


def open_engine(
    path: Path,
    config: EngineConfig | None = None,
    *,
    backend: str = "auto",
    name: str | None = None,
    on_progress: OnProgress | None = None,
    checkpoint: "Checkpoint | None" = None,
) -> "Engine":
    """Load the model at `path`: a checkpoint directory, or with backend `llamacpp` a GGUF file.

    `auto` is an NVIDIA card that has passed its test, else the processor; the text is the same, and the engine's `info`
    says why. `llamacpp` is never chosen for you. `name` is how the model is called in messages; its path's last part
    otherwise. `checkpoint` is the directory, if it is open already. Raises `NotFound`, `NotSupported`, `Corrupt`,
    `DoesNotFit`, and `UsageError` for settings that do not fit the model.
    """
    path, config = Path(path), config or EngineConfig()
    one_of("backend", backend, ("auto", "cpu", "cuda", "llamacpp"))
    if not path.exists():
        raise NotFound(f"{path}: no such file or directory", hint="check the path; see `localinfer list`")
    name = name or path.name
    if backend == "llamacpp":
        if path.is_dir():
            raise NotSupported(
                f"the llamacpp backend runs GGUF files, and `{name}` is a directory",
                hint="leave out --backend, or name a .gguf file",
            )
        from localinfer.engine.llamacpp import open_llamacpp

        return open_llamacpp(path, config, name=name, on_progress=on_progress)
    if not path.is_dir():
        raise NotSupported(
            f"`{name}` is a file, not a model directory",
            hint=f"run `localinfer import {path}` first, or add `--backend llamacpp` if it is a GGUF file",
        )
    from localinfer.graph.weights import Checkpoint

    return _open_native(checkpoint or Checkpoint(path), config, backend, name, on_progress)


def _open_native(
    checkpoint: "Checkpoint", config: EngineConfig, backend: str, name: str, on_progress: OnProgress | None
) -> "Engine":
    from localinfer.engine import step_timing
    from localinfer.engine.aside import Aside
    from localinfer.engine.drafting import Target, make_speculator, wants_hidden
    from localinfer.engine.engine import StepEngine
    from localinfer.engine.generation_config import default_sampling, not_followed, token_rules
    from localinfer.engine.ngram_store import open_ngram_store
    from localinfer.engine.runner import NativeRunner
    from localinfer.formats.tokenizer import Tokenizer
    from localinfer.graph.last_norm import last_norm

    path = checkpoint.path
    sampling, rules = default_sampling(path), token_rules(path)
    context = config.choose_context(checkpoint.spec.max_context)
    cache = _cache(config, context, checkpoint.graph.kv_windows())
    with Aside(lambda: Tokenizer(path)) as reading:
        look = _looking(reading, on_progress)
        placement, key, cached, program = _placed(checkpoint, config, backend, name, context, cache, look)
        tokenizer = reading.result()
    _check_vocabulary(checkpoint, tokenizer, name)
    measured = step_timing.cached_or_measured(program, key, cached, context, on_card=placement.card is not None)
    runner = NativeRunner(
        program,
        parallel=config.parallel,
        chunk=config.prefill_chunk,
        width=cache.width,
        groups=len(cache.groups),
        wants_hidden=wants_hidden(config),
    )
    scheduler = _scheduler(config, cache, measured)
    disk_caches = _disk_caches(config, program, key, context, cache.groups)
    disk_states = _make_states(config, checkpoint, program, key, context, cache)
    target = Target(checkpoint, program, runner, scheduler, context, placement, tokenizer.added_ids)
    past = open_ngram_store(path, program.vocab) if config.remember and config.draft != "off" else None
    speculator, notes = make_speculator(config, target, measured, past)
    notes = (*checkpoint.notes, *tokenizer.notes, *not_followed(path), *notes)
    return StepEngine(
        info=_info(name, config, target, placement, key, measured, notes),
        tokenizer=tokenizer,
        chat_template=tokenizer.chat_template,
        tools_template=tokenizer.tools_template,
        default_sampling=sampling,
        rules=rules,
        normed=last_norm(checkpoint),
        context=context,
        longest=checkpoint.spec.max_context,
        vocab=program.vocab,
        scheduler=scheduler,
        runner=runner,
        speculator=speculator,
        draft_mode=config.draft,
        remember=None if past is None else past.remember,
        draft_tokens=config.draft_tokens,
        disk_caches=disk_caches,
        disk_states=disk_states,
        experts=program.experts,
    )


def _looking(reading: "Aside[Tokenizer]", on_progress: OnProgress | None) -> OnProgress:
    """`on_progress`, and no more weights are loaded once the tokenizer turns out to be broken."""

    def told(phase: str, done: int, total: int) -> None:
        reading.check()
        if on_progress is not None:
            on_progress(phase, done, total)

    return told


def _placed(
    checkpoint: "Checkpoint",
    config: EngineConfig,
    backend: str,
    name: str,
    context: int,
    cache: "PagedCache",
    on_progress: OnProgress | None,
) -> "tuple[Placement, Key, StepTiming | None, native.Program]":
    """Where the model runs, what is kept of its speed there, and the model, loaded. With `auto`, the processor also
    where the card fails while it takes the model: no compiler any more, no memory that others left."""
    from localinfer.engine import backends, step_timing

    blocks = [group.allocator.count for group in cache.groups]
    placement = backends.choose(backend, config, lambda: _needed_bytes(checkpoint, config, context))
    while True:
        key = step_timing.key_for(
            checkpoint,
            f"{name}, mapped" if _maps(checkpoint, config, placement) else name,
            isa=config.isa,
            threads=config.threads or 0,
            kv_bits=config.kv_bits,
            card=placement.card,
        )
        cached = step_timing.known(key)
        threads = cached.threads if cached else key.threads
        try:
            return placement, key, cached, _load(checkpoint, config, placement, threads, context, blocks, on_progress)
        except (DoesNotFit, NotSupported) as error:
            if placement.card is None or backend != "auto":
                raise
            why = f"{placement.card} cannot be used: {error.message}"
        placement = backends.Placement(None, why)  # here, so that what was loaded has gone with the error


def _load(
    checkpoint: "Checkpoint",
    config: EngineConfig,
    placement: "Placement",
    threads: int,
    context: int,
    blocks: Sequence[int],
    on_progress: OnProgress | None,
) -> "native.Program":
    from localinfer.config import MOST_DRAFTS
    from localinfer.graph.experts import Slots
    from localinfer.graph.memory import snapshots
    from localinfer.graph.program import load_program
    from localinfer.paths import experts_dir

    missing = checkpoint.not_on_cards
    if placement.card is not None and missing:
        raise NotSupported(f"{missing} have no kernels for cards yet", hint="use `--backend cpu`")
    told = on_progress or (lambda phase, done, total: None)
    slots = Slots(
        experts_dir(), config.experts_bytes, lambda done, total: told("experts, packed once for this disk", done, total)
    )
    return load_program(
        checkpoint,
        threads=threads,
        isa=config.isa,
        context=context,
        kv_blocks=blocks,
        kv_bits=config.kv_bits,
        states=(config.parallel, snapshots(checkpoint.graph, config.parallel), MOST_DRAFTS),
        move=placement.move,
        on_progress=lambda done, total: told("weights", done, total),
        experts=slots if _maps(checkpoint, config, placement) else None,
    )


def _maps(checkpoint: "Checkpoint", config: EngineConfig, placement: "Placement") -> bool:
    return config.experts == "mapped" and placement.card is None and checkpoint.spec.mixture is not None


def _needed_bytes(checkpoint: "Checkpoint", config: EngineConfig, context: int) -> int:
    """What a card has to hold; it says itself, with the numbers, when that was too little."""
    from localinfer.graph.memory import held

    blocks = _kv_blocks(config, context, checkpoint.graph.kv_windows())
    return held(checkpoint, context=context, kv_blocks=blocks, kv_bits=config.kv_bits, parallel=config.parallel).total


def _kv_blocks(config: EngineConfig, context: int, windows: Sequence[int]) -> tuple[int, ...]:
    tokens = config.pool_tokens(context)
    return kv_blocks(windows, kv_tokens=tokens, parallel=config.parallel, rows=config.most_rows)


def _cache(config: EngineConfig, context: int, windows: Sequence[int]) -> "PagedCache":
    from localinfer.kv.cache import PagedCache

    blocks = _kv_blocks(config, context, windows)
    return PagedCache(
        slots=config.parallel,
        context=context,
        blocks=blocks,
        windows=windows,
        rows=config.most_rows,
        reuse=config.reuse,
    )


def _disk_caches(
    config: EngineConfig, program: "native.Program", key: "Key", context: int, groups: "Sequence[Group]"
) -> "list[DiskCache]":
    """The blocks of each group on disk, if they are wanted."""
    from localinfer.engine.disk_cache import GroupBlocks

    made = list["DiskCache"]()
    for number, group in enumerate(groups):
        one = _disk_cache(config, program, key, context, GroupBlocks(program, number), f"window {group.window}")
        if one is not None:
            group.disk = one
            made.append(one)
    return made


def _make_states(
    config: EngineConfig,
    checkpoint: "Checkpoint",
    program: "native.Program",
    key: "Key",
    context: int,
    cache: "PagedCache",
) -> "DiskCache | None":
    """Let `cache` keep recurrent states, if the program has such; those on disk, if they are wanted."""
    from localinfer.engine.disk_cache import StateBlocks
    from localinfer.graph.memory import snapshots
    from localinfer.kv.states import States

    if not program.states:
        return None
    disk = _disk_cache(config, program, key, context, StateBlocks(program), "states")
    cache.states = States(program, config.parallel, snapshots(checkpoint.graph, config.parallel), disk)
    return disk


def _disk_cache(
    config: EngineConfig, program: "native.Program", key: "Key", context: int, blocks: "Blocks", what: str
) -> "DiskCache | None":
    """`blocks` on disk, if that is wanted. Another instruction set or build computes its own, so that a test that
    compares them compares what they compute."""
    from localinfer.engine.disk_cache import DiskCache
    from localinfer.graph import key_powers
    from localinfer.paths import kv_dir

    if not config.kv_disk_gb:
        return None
    identity = repr((what, key.files, key.isa, key.build, tuple(program.kv_bits), context, key_powers.CHOICE))
    return DiskCache(kv_dir(), blocks, identity=identity, limit_bytes=int(config.kv_disk_gb * 1e9))


def _scheduler(config: EngineConfig, cache: "PagedCache", measured: "StepTiming") -> "Scheduler":
    from localinfer.engine.pace import Pace
    from localinfer.scheduler.chunk import ChunkRule
    from localinfer.scheduler.scheduler import Scheduler

    rule = ChunkRule(config.prefill_chunk, config.latency_goal_ms / 1000, Pace(measured))
    return Scheduler(cache, parallel=config.parallel, chunk=rule)


def _info(
    name: str,
    config: EngineConfig,
    target: "Target",
    placement: "Placement",
    key: "Key",
    measured: "StepTiming",
    notes: tuple[str, ...],
) -> "EngineInfo":
    from localinfer.engine.protocol import EngineInfo
    from localinfer.graph.memory import in_file_bytes

    program = target.program
    return EngineInfo(
        model=name,
        backend="cuda" if placement.card else "cpu",
        backend_why=placement.why,
        card=placement.card.uuid if placement.card else "",
        card_bytes_per_s=placement.card.peak_gb_s * 1e9 if placement.card else 0.0,
        isa=program.isa,
        threads=program.threads,
        kv_bits=config.kv_bits,
        bits=_bits(target.checkpoint),
        weight_bytes=program.weight_bytes,
        in_file_bytes=in_file_bytes(target.checkpoint),
        kv_bytes=program.kv_bytes + program.state_cache_bytes,
        state_bytes=program.state_bytes,
        why=str(placement.card) if placement.card else _why(config),
        kv_layers=tuple(program.kv_bits),
        threads_why=_threads_why(key.threads, key.cores, program.threads),
        step_timing=measured,
        notes=(*((placement.note,) if placement.note else ()), *notes),
    )


def _check_vocabulary(checkpoint: "Checkpoint", tokenizer: "Tokenizer", name: str) -> None:
    """A token without a row would read past the embedding, a row without a token loses text: refuse both at once."""
    rows = checkpoint.spec.vocab_size
    highest = max(tokenizer.vocab_size - 1, *tokenizer.eos_ids, -1)
    if highest >= rows:
        raise Corrupt(
            f"`{name}`: the tokenizer has token {highest}, but the weights have {rows} rows (0 to {rows - 1})",
            hint="the tokenizer belongs to another model; download the model again",
        )
    if rows - tokenizer.vocab_size > PADDING_ROWS:
        raise Corrupt(
            f"`{name}`: the weights have {rows} rows, but the tokenizer knows {tokenizer.vocab_size} tokens only; "
            f"at most {PADDING_ROWS} rows are taken for padding",
            hint="the tokenizer belongs to another model, or is cut short; download the model again",
        )


def _bits(checkpoint: "Checkpoint") -> str:
    """As variants are named, after the smallest matrices: embedding and head may have more bits than the body."""
    bits = min(checkpoint.form(linear.name)[0] for linear in checkpoint.graph.linears())
    return "BF16" if bits == 16 else f"INT{bits}"


def _threads_why(asked: int, cores: int, threads: int) -> str:
    if asked:
        return "as asked"
    return "one per physical core" if threads == cores else f"faster than {cores}, as measured"


def _why(config: EngineConfig) -> str:
    if config.isa:
        return "asked for"
    if os.environ.get("LOCALINFER_ISA"):
        return "asked for by LOCALINFER_ISA"
    return "the best this CPU has"
