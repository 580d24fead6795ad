"""Requests of mixed lengths on one engine: joining at any step, in fixed groups, and one after the other.

Static batching is as Orca (Yu et al., OSDI 2022) describes what it replaces: a group is computed to the end of its
longest answer, all its rows in every step, and the next group begins after that.
"""

import random
import statistics
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from hashlib import blake2b
from math import ceil, exp, log
from pathlib import Path
from typing import Any

from localinfer.bench.llamacpp import best_llamacpp
from localinfer.bench.measure import Clock, random_tokens
from localinfer.config import EngineConfig, SamplingParams
from localinfer.engine.opening import open_engine
from localinfer.engine.protocol import Engine, Request
from localinfer.errors import LocalInferError
from localinfer.events import tokens_of

PER_STREAM = 6
"""Requests for each sequence that may run at once."""

PROMPT = (16, 256)
"""Tokens of a prompt: every doubling as likely as the next."""

ANSWER_MEAN, ANSWER = 96, (8, 512)
"""Tokens of an answer: falling off exponentially, within these bounds."""

CONTEXT = PROMPT[1] + ANSWER[1] + 2

CONTINUOUS, STATIC, GROUPED, ALONE = "continuous", "static", "static, done rows dropped", "one by one"
WAYS = (CONTINUOUS, STATIC, GROUPED, ALONE)


@dataclass(frozen=True, slots=True)
class Asked:
    """One request, by its lengths in tokens."""

    prompt: int
    answer: int


@dataclass(frozen=True, slots=True)
class WorkloadRow:
    """What one way gave, the medians over the repetitions."""

    engine: str
    way: str
    tok_s: float
    """Tokens of answers that were asked for, a second."""
    times_static: float | None
    ttft_mean_s: float
    """Time from the start of the whole to a request's first token."""
    done_mean_s: float
    output_hash: str


@dataclass(frozen=True, slots=True)
class _Run:
    seconds: float
    ttft_mean_s: float
    done_mean_s: float
    output_hash: str


def mixed(parallel: int, seed: int) -> list[Asked]:
    """The requests of the `mixed` workload."""
    return lengths(PER_STREAM * parallel, seed)


def lengths(count: int, seed: int) -> list[Asked]:
    """Prompts and answers of mixed lengths, the same for a seed."""
    rng = random.Random(f"{seed}/mixed")
    low, high = map(log, PROMPT)
    return [
        Asked(
            round(exp(rng.uniform(low, high))), min(max(ceil(rng.expovariate(1 / ANSWER_MEAN)), ANSWER[0]), ANSWER[1])
        )
        for _ in range(count)
    ]


def run_workload(
    path: Path,
    config: EngineConfig,
    *,
    name: str,
    parallel: int,
    repetitions: int,
    seed: int,
    against: Path | None,
    clock: Clock,
) -> list[WorkloadRow]:
    """The `mixed` workload in all ways, in turn, and by llama.cpp one by one. Raises `LocalInferError` if one of ours
    gives other tokens than another."""
    asked = mixed(parallel, seed)
    ours = EngineConfig(
        context=CONTEXT,
        parallel=parallel,
        kv_tokens=parallel * (CONTEXT + 64) * 21 // 20,
        threads=config.threads,
        kv_bits=config.kv_bits,
        prefill_chunk=config.prefill_chunk,
        latency_goal_ms=config.latency_goal_ms,
        draft="off",
        reuse=False,
    )
    with ExitStack() as stack:
        engine = stack.enter_context(open_engine(path, ours, name=name))
        turns: list[tuple[str, str, Engine]] = [("localinfer", way, engine) for way in WAYS]
        if against is not None:
            alone = EngineConfig(context=CONTEXT, threads=config.threads, draft="off")
            peer = stack.enter_context(best_llamacpp(against, alone, ["tg"], seed=seed, clock=clock))["tg"]
            turns.append(("llama.cpp", ALONE, peer.engine))
        runs: dict[tuple[str, str], list[_Run]] = {}
        for repetition in range(repetitions):
            prompts = [
                random_tokens(engine, one.prompt, f"{seed}/mixed/{repetition}/{i}") for i, one in enumerate(asked)
            ]
            for who, way, where in turns:
                runs.setdefault((who, way), []).append(_run(where, way, prompts, asked, parallel, clock))
    _require_same([run for (who, _), run in runs.items() if who == "localinfer"])
    return _rows(runs, sum(one.answer for one in asked))


def _require_same(ways: Sequence[Sequence[_Run]]) -> None:
    for hashes in zip(*([run.output_hash for run in runs] for runs in ways), strict=True):
        if len(set(hashes)) > 1:
            raise LocalInferError(
                "the same requests gave other tokens in other company",
                hint="this is a bug of ours; please report it with the model and this command",
            )


def _rows(runs: dict[tuple[str, str], list[_Run]], tokens: int) -> list[WorkloadRow]:
    seconds = {key: statistics.median(run.seconds for run in found) for key, found in runs.items()}
    pairs = {
        key: statistics.median(
            static.seconds / run.seconds for static, run in zip(runs["localinfer", STATIC], found, strict=True)
        )
        for key, found in runs.items()
    }
    return [
        WorkloadRow(
            engine=who,
            way=way,
            tok_s=tokens / seconds[who, way],
            times_static=pairs[who, way],
            ttft_mean_s=statistics.median(run.ttft_mean_s for run in found),
            done_mean_s=statistics.median(run.done_mean_s for run in found),
            output_hash=found[0].output_hash,
        )
        for (who, way), found in runs.items()
    ]


def _run(
    engine: Engine, way: str, prompts: Sequence[tuple[int, ...]], asked: Sequence[Asked], parallel: int, clock: Clock
) -> _Run:
    """All requests once, this way. A request is done when it has the tokens that were asked for."""
    size = {CONTINUOUS: len(asked), ALONE: 1}.get(way, parallel)
    said: list[list[int]] = [[] for _ in asked]
    first, done = [0.0] * len(asked), [0.0] * len(asked)
    started = clock()
    for begin in range(0, len(asked), size):
        group = range(begin, min(begin + size, len(asked)))
        longest = max(asked[i].answer for i in group)
        counts = [longest if way == STATIC else asked[i].answer for i in group]
        requests = [Request(prompts[i], _greedy(count)) for i, count in zip(group, counts, strict=True)]
        for step in engine.driver.steps(requests):
            now = clock() - started
            for i, events in zip(group, step, strict=True):
                if new := tokens_of(events):
                    first[i] = first[i] or now
                    said[i] += new
                    if len(said[i]) <= asked[i].answer:
                        done[i] = now
    seconds = clock() - started
    told = blake2b(digest_size=4)
    for one, tokens in zip(asked, said, strict=True):
        told.update(repr(tokens[: one.answer]).encode())
    return _Run(seconds, statistics.fmean(first), statistics.fmean(done), told.hexdigest())


def _greedy(count: int) -> SamplingParams:
    return SamplingParams(temperature=0.0, max_tokens=count, ignore_eos=True)


def as_json(rows: Sequence[WorkloadRow]) -> list[dict[str, Any]]:
    """For scripts."""
    return [asdict(row) for row in rows]


def workload_table(rows: Sequence[WorkloadRow], parallel: int) -> str:
    """For people."""
    lines = [
        f"{PER_STREAM * parallel} requests of mixed lengths, at most {parallel} at once; times are means over them",
        "",
        "| engine     | way                       |   t/s | times static | first token s | done s | output   |",
        "| ---------- | ------------------------- | ----: | -----------: | ------------: | -----: | -------- |",
    ]
    for row in rows:
        times = "" if row.times_static is None else f"{row.times_static:.2f}"
        lines.append(
            f"| {row.engine:<10} | {row.way:<25} | {row.tok_s:>5.1f} | {times:>12} | {row.ttft_mean_s:>13.2f} | "
            f"{row.done_mean_s:>6.2f} | {row.output_hash} |"
        )
    return "\n".join(lines) + "\n"
