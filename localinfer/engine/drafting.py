"""Who guesses for an engine: the drafters that were asked for, and the controller that chooses among them."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from localinfer import native
from localinfer.config import MOST_DRAFTS, EngineConfig
from localinfer.engine.backends import Placement
from localinfer.engine.draft_ahead import open_ahead
from localinfer.engine.draft_assistant import AssistantDraftRunner, is_assistant
from localinfer.engine.draft_early import EarlyDraftRunner, TextsOf
from localinfer.engine.draft_model import open_model
from localinfer.engine.drafters import load_adapter, load_head
from localinfer.engine.runner import NativeRunner
from localinfer.engine.step_timing import StepTiming
from localinfer.errors import LocalInferError, NotFound, NotSupported
from localinfer.graph.weights import Checkpoint
from localinfer.scheduler.scheduler import Scheduler
from localinfer.speculation.chain import ChainDrafter
from localinfer.speculation.controller import Controller
from localinfer.speculation.cost import Measured, StepCost
from localinfer.speculation.drafter import Drafter
from localinfer.speculation.lookup import LookupDrafter
from localinfer.speculation.suffix import Earlier, SuffixDrafter


@dataclass(frozen=True, slots=True)
class Target:
    """The model that checks, as far as those who guess need it."""

    checkpoint: Checkpoint
    program: native.Program
    runner: NativeRunner
    scheduler: Scheduler
    context: int
    placement: Placement
    """Where the target runs: programs are taken there before their caches are made."""
    added: tuple[int, ...] = ()
    """The tokens that the tokenizer has beside the pieces of text."""


def make_speculator(
    config: EngineConfig,
    target: Target,
    measured: StepTiming,
    earlier: Earlier | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> tuple[Controller | None, tuple[str, ...]]:
    """The controller for what `config` asks for, None where drafts are off; and what there is to say of it.

    `auto` takes what is free, the head that the model brings and the trained one, if there are such: whether they help
    is found out step by step. Raises `NotFound` for a head that is not there, and what opening a model raises.
    """
    drafters: list[Drafter] = []
    notes: list[str] = []
    mode = config.draft
    if mode in ("auto", "suffix"):
        drafters.append(SuffixDrafter(earlier))
    if mode in ("auto", "lookup"):
        drafters.append(LookupDrafter())
    for way, make, called in (("mtp", _ahead, "model's own"), ("head", _head, "trained")):
        if mode not in ("auto", way):
            continue
        try:
            drafters += make(config, target, required=mode == way)
        except LocalInferError as error:
            if mode == way:
                raise
            notes.append(f"guessing without the {called} head: {error.message}")
    if mode == "early":
        texts = TextsOf(target.scheduler.running, target.scheduler.reserve)
        drafters.append(
            ChainDrafter(
                "early", EarlyDraftRunner(target.program, target.runner, texts, load_adapter(target.checkpoint))
            )
        )
    if mode == "model":
        drafters.append(_model(config, target))
    if not drafters:
        return None, ()
    cost = StepCost(Measured(measured.step_s, measured.deep_s, measured.depth))
    return Controller(drafters, cost, most_rows=MOST_DRAFTS, clock=clock), tuple(notes)


def wants_hidden(config: EngineConfig) -> Literal["", "sampled", "all"]:
    """Of which steps somebody may go on from what the target computes."""
    if config.draft_model is not None:
        return "sampled" if is_assistant(config.draft_model) else ""
    return "all" if config.draft in ("auto", "head", "mtp") else ""


def _ahead(config: EngineConfig, target: Target, *, required: bool) -> list[Drafter]:
    if not target.checkpoint.has_ahead:
        if required:
            raise NotFound(
                f"`{target.checkpoint.path.name}` brings no head that guesses tokens ahead, or none that is known here",
                hint="leave `--draft` out, or make one: `localinfer draft train`",
            )
        return []
    found = open_ahead(
        target.checkpoint,
        target.program,
        parallel=config.parallel,
        threads=target.program.threads,
        isa=config.isa,
        always=target.added,
        move=target.placement.move,
    )
    return [ChainDrafter("mtp", found)]


def _head(config: EngineConfig, target: Target, *, required: bool) -> list[Drafter]:
    found = load_head(
        target.checkpoint,
        target.program,
        parallel=config.parallel,
        threads=target.program.threads,
        isa=config.isa,
        move=target.placement.move,
    )
    if found is None and required:
        raise NotFound(
            f"no head was trained for `{target.checkpoint.path.name}`",
            hint="`localinfer draft train` makes one, or leave `--draft` out",
        )
    return [] if found is None else [ChainDrafter("head", found)]


def _model(config: EngineConfig, target: Target) -> Drafter:
    assert config.draft_model is not None
    if is_assistant(config.draft_model):
        return ChainDrafter("model", _assistant(config, target))
    draft_runner = open_model(
        config.draft_model,
        target.checkpoint,
        threads=target.program.threads,
        isa=config.isa,
        parallel=config.parallel,
        context=target.context,
        chunk=config.prefill_chunk,
        kv_bits=config.kv_bits,
        move=target.placement.move,
    )
    return ChainDrafter("model", draft_runner)


def _assistant(config: EngineConfig, target: Target) -> AssistantDraftRunner:
    assert config.draft_model is not None
    if target.placement.card is not None:
        raise NotSupported(
            f"`{config.draft_model.name}` reads keys and values, and cannot read those on a card yet",
            hint="add `--backend cpu`, or leave `--draft` out",
        )
    return AssistantDraftRunner(
        config.draft_model,
        target.checkpoint,
        target.program,
        target.runner,
        TextsOf(target.scheduler.running, target.scheduler.reserve),
        isa=config.isa,
        context=target.context,
    )
