"""`bench --ladder` from forms of a model to a report."""

import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from localinfer import __version__
from localinfer.bench.ablation import NATIVE, ToPrompts, Variant, measure_variants, variants_of
from localinfer.bench.ablation_report import AblationRow, replay, rows_of
from localinfer.bench.compare import read_report
from localinfer.bench.measure import Clock, random_tokens
from localinfer.bench.naive import open_naive
from localinfer.bench.system import describe_machine, share_stolen, stolen_ticks
from localinfer.config import EngineConfig, KvBits
from localinfer.cost.energy import source_of, start_meter
from localinfer.cost.fit import estimate
from localinfer.cost.machine import read_bandwidth
from localinfer.cost.prices import USUAL, Tariff
from localinfer.engine.protocol import Engine
from localinfer.errors import Corrupt, DoesNotFit, size
from localinfer.evaluate.measures import join, measure
from localinfer.evaluate.models import open_reader
from localinfer.evaluate.text import cut, held_out_text
from localinfer.events import OnProgress
from localinfer.graph.weights import Checkpoint

CTX, CHUNKS = 512, 4
"""Tokens of a chunk of the text that divergences are measured on, and how many."""

RANDOM_PROMPT, RANDOM_PROMPTS = 64, 2
"""Tokens of a prompt of random tokens, and how many prompts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AblationPlan:
    """What to measure."""

    name: str
    revision: str | None
    forms: Mapping[str, Path]
    """`BF16`, `INT8`, `INT4` and `INT3`."""
    base: str = "INT4"
    """The form that the upper variants stand on."""
    kv_bits: KvBits = 8
    streams: int = 8
    most: int = 96
    """Tokens of an answer at most."""
    rounds: int = 3
    to_prompts: ToPrompts | None = None
    """Real prompts, answered to their ends; None for random tokens, where nothing can be guessed."""
    recorded: Path | None = None
    """An earlier report on real text, whose steps are replayed where there are random tokens."""
    plain: bool = False


def run_ablation(
    plan: AblationPlan,
    config: EngineConfig,
    *,
    tariff: Tariff = USUAL,
    seed: int = 0,
    on_progress: OnProgress = lambda what, done, total: None,
    clock: Clock = time.perf_counter,
) -> dict[str, Any]:
    """Measure every variant, and say how it went: the object of `bench --ladder --json`.

    Raises what `measure_variants` raises, and `Corrupt` when the earlier report holds no steps to replay.
    """
    recorded = recorded_steps(plan.recorded) if plan.recorded else None
    require_room(plan, config)
    bandwidth = read_bandwidth(config.threads, refresh=True)
    real = plan.to_prompts is not None
    variants = variants_of(plan.forms, plan.base, plan.kv_bits, plan.streams, drafts=real)
    meter, before = start_meter(tariff.watts), stolen_ticks()
    context = _context(plan)
    results = measure_variants(
        variants,
        config,
        plan.to_prompts or (lambda engine: _random_prompts(engine, seed)),
        most=plan.most,
        context=context,
        rounds=plan.rounds,
        to_the_end=real,
        meter=meter,
        plain=plan.plain,
        on_progress=on_progress,
        clock=clock,
    )
    klds = divergences(variants, bandwidth.threads, real=real, plain=plan.plain, seed=seed, on_progress=on_progress)
    rows = rows_of(results, klds, tariff, source_of(meter))
    if recorded is not None and not real:
        index = next(i for i, row in enumerate(rows) if row.name == "INT3") + 1
        rows.insert(index, replay(rows, results, plan.base, recorded))
    isa = results[1].settings.partition(" ")[0]
    machine = describe_machine(isa, bandwidth.threads, bandwidth.bytes_per_s, share_stolen(before, stolen_ticks()))
    return {
        "machine": asdict(machine),
        "model": {"name": plan.name, "revision": plan.revision},
        "rows": [],
        "peers": [],
        "ladder": [asdict(row) for row in rows],
        "workload": {
            "prompts": len(results[0].turns[0].ids),
            "most": plan.most,
            "rounds": plan.rounds,
            "to_the_end": real,
            "streams": plan.streams,
            "naive": results[0].settings,
        },
        "tariff": asdict(tariff),
        "version": f"localinfer {__version__}",
        "at": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
    }


def require_room(plan: AblationPlan, config: EngineConfig) -> None:
    """Raise `DoesNotFit` when all variants together are larger than the free memory: they are open at once."""
    context = _context(plan)
    variants = variants_of(plan.forms, plan.base, plan.kv_bits, plan.streams, drafts=plan.to_prompts is not None)
    fits = [
        estimate(variant.path, context=context, parallel=variant.streams, kv_bits=variant.kv_bits)
        for variant in variants
    ]
    # The program itself is there once; the naive way holds its weights once more while it reads them.
    need = sum(fit.weights_bytes + fit.kv_bytes for fit in fits) + fits[0].weights_bytes + fits[0].other_bytes
    if need > fits[0].free_bytes:
        raise DoesNotFit(
            f"the {len(fits)} variants need {size(need)} together, but {size(fits[0].free_bytes)} is free",
            hint="close a program, or choose a smaller model",
        )


def recorded_steps(path: Path) -> AblationRow:
    """The speculation variant of an earlier report. Raises `Corrupt` when it has none."""
    found = [row for row in read_report(path).get("ladder", ()) if row.get("rows_of_steps")]
    try:
        return AblationRow(**found[0])
    except (IndexError, TypeError) as error:
        raise Corrupt(
            f"{path}: holds no steps of guesses to replay", hint="give the `--json` of a `--ladder` on real text"
        ) from error


def _context(plan: AblationPlan) -> int:
    longest = Checkpoint(plan.forms["BF16"]).spec.max_context
    return min(longest, 2048 if plan.to_prompts is not None else RANDOM_PROMPT + plan.most + 64)


def _random_prompts(engine: Engine, seed: int) -> list[tuple[int, ...]]:
    return [random_tokens(engine, RANDOM_PROMPT, f"{seed}/ladder/{i}") for i in range(RANDOM_PROMPTS)]


def divergences(
    variants: Sequence[Variant], threads: int, *, real: bool, plain: bool, seed: int, on_progress: OnProgress
) -> dict[tuple[Path, int], float]:
    """Mean divergence from the naive way, by path and bits of the cache, one model at a time. With random weights
    only of the one that has the same weights: each width has others."""
    wanted = {(variant.path, variant.kv_bits) for variant in variants if real or variant.name == NATIVE}
    first = next(variant for variant in variants if variant.name == NATIVE)
    chunks = _chunks(first.path, threads, real=real, seed=seed)
    half, end = chunks.shape[1] // 2, chunks.shape[1] - 1
    naive = open_naive(first.path, threads, plain=plain)
    scores = [naive.logits(chunk.tolist(), half, end) for chunk in chunks]
    del naive
    found: dict[tuple[Path, int], float] = {}
    for number, (path, bits) in enumerate(sorted(wanted)):
        on_progress("reading for divergences", number, len(wanted))
        with closing(open_reader(path, ctx=chunks.shape[1], kv_bits=bits, threads=threads)) as reader:
            parts = []
            for chunk, wanted_scores in zip(chunks, scores, strict=True):
                reader.start(chunk)
                parts.append(measure(reader.logits(half, end), wanted_scores, chunk[half + 1 :]))
        found[path, bits] = float(join(parts).kld.mean())
    return found


def _chunks(path: Path, threads: int, *, real: bool, seed: int) -> NDArray[np.int32]:
    """Text that nobody calibrates with, or random tokens."""
    with closing(open_reader(path, ctx=CTX if real else 128, kv_bits=16, threads=threads)) as reader:
        if real:
            return cut(held_out_text(), reader.words, ctx=CTX, chunks=CHUNKS)
        return np.random.default_rng(seed).integers(0, reader.vocab, (1, 128), dtype=np.int32)
