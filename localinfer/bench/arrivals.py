"""Requests that arrive by chance, as at a server, and the times that their senders see.

The figures are defined as vLLM's serving benchmark defines them. TTFT: from a request's arrival to its first token.
ITL: each gap between the moments at which tokens of a request came; with drafts several come in one moment, and then
the gap counts once. TPOT: (end - first token) / (tokens - 1), of answers of more than one token. E2EL: from arrival to
the end. A percentile that falls between two values lies on the line between them.
"""

import random
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from localinfer.bench.measure import Clock, random_tokens, run_out
from localinfer.bench.run import pool_for
from localinfer.bench.workload import CONTEXT, Asked, lengths
from localinfer.config import EngineConfig, SamplingParams, in_range
from localinfer.cost.energy import Meter, Source, source_of, start_meter, with_card
from localinfer.cost.prices import USUAL, Tariff, per_million_at
from localinfer.engine.opening import open_engine
from localinfer.engine.protocol import Engine, Request
from localinfer.events import Event, Finished, output_hash, tokens_of

Sleep = Callable[[float], None]

MOST_REQUESTS = 100_000


@dataclass(slots=True)
class Served:
    """One request as its sender saw it. Seconds since the start."""

    arrived: float
    prompt: int
    times: list[float] = field(default_factory=list)
    """When tokens came; one entry a moment, however many came in it."""
    landed: list[int] = field(default_factory=list)
    """How many came in each of these moments."""
    ids: tuple[int, ...] = ()

    def hear(self, events: Sequence[Event], now: float) -> None:
        """What a step said of it, `now`."""
        if new := tokens_of(events):
            self.times.append(now)
            self.landed.append(len(new))
            self.ids += tuple(new)

    @property
    def tokens(self) -> int:
        return sum(self.landed)

    @property
    def ttft_s(self) -> float:
        return self.times[0] - self.arrived

    @property
    def e2el_s(self) -> float:
        return self.times[-1] - self.arrived

    @property
    def gaps_s(self) -> list[float]:
        """Of each token after the first moment, its share of its step."""
        steps = zip(pairwise(self.times), self.landed[1:], strict=True)
        return [(now - then) / count for (then, now), count in steps for _ in range(count)]

    @property
    def tpot_s(self) -> float | None:
        """None for an answer of one token."""
        return (self.times[-1] - self.times[0]) / (self.tokens - 1) if self.tokens > 1 else None


@dataclass(frozen=True, slots=True, kw_only=True)
class ServingRow:
    """One run. Milliseconds; each of the four has mean, median, p90 and p99."""

    test: str
    requests: int
    rate: float
    """Requests a second that were asked for."""
    duration_s: float
    req_s: float
    tok_s: float
    """Tokens of answers a second."""
    total_tok_s: float
    """Of prompts and answers."""
    most_at_once: int
    ttft_ms: dict[str, float]
    tpot_ms: dict[str, float]
    itl_ms: dict[str, float]
    e2el_ms: dict[str, float]
    joules_per_token: float | None
    energy_source: Source
    usd_per_mtok: float | None
    output_hash: str


def arrivals(count: int, rate: float, seed: int) -> list[float]:
    """Seconds at which `count` requests arrive: gaps fall off exponentially, with a mean of 1 / `rate`."""
    rng, now, found = random.Random(f"{seed}/arrivals"), 0.0, list[float]()
    for _ in range(count):
        now += rng.expovariate(rate)
        found.append(now)
    return found


def run_poisson(
    path: Path,
    config: EngineConfig,
    *,
    name: str,
    parallel: int,
    rate: float,
    requests: int,
    seed: int,
    tariff: Tariff = USUAL,
    clock: Clock = time.perf_counter,
    sleep: Sleep = time.sleep,
) -> ServingRow:
    """Serve `requests` of mixed lengths that arrive at `rate` a second, at most `parallel` at once."""
    in_range("rate", rate, 1e-3, 1e4)
    in_range("requests", requests, 1, MOST_REQUESTS)
    asked = lengths(requests, seed)
    ours = EngineConfig(
        context=CONTEXT,
        parallel=parallel,
        kv_tokens=pool_for(CONTEXT, parallel),
        threads=config.threads,
        kv_bits=config.kv_bits,
        prefill_chunk=config.prefill_chunk,
        latency_goal_ms=config.latency_goal_ms,
        draft=config.draft,
        draft_model=config.draft_model,
        reuse=False,
    )
    with open_engine(path, ours, name=name) as engine:
        run_out(engine, random_tokens(engine, 16, f"{seed}/warm"), 4)
        meter = with_card(start_meter(tariff.watts), engine.info.card)
        found, most = serve(engine, asked, arrivals(requests, rate, seed), seed, clock, sleep)
        joules = meter.joules() if meter else None
    return row_of(found, rate, most, joules, meter, tariff)


def serve(
    engine: Engine, asked: Sequence[Asked], at: Sequence[float], seed: int, clock: Clock, sleep: Sleep
) -> tuple[list[Served], int]:
    """Give the engine each request when it arrives; their times, and how many were there at once at most."""
    prompts = [random_tokens(engine, one.prompt, f"{seed}/poisson/{i}") for i, one in enumerate(asked)]
    found = [Served(when, one.prompt) for when, one in zip(at, asked, strict=True)]
    begun, ended, most, started = 0, 0, 0, clock()

    def hear(one: Served, events: list[Event]) -> None:
        nonlocal ended
        one.hear(events, clock() - started)
        ended += isinstance(events[-1], Finished)

    with engine.driver.here() as driver:
        while ended < len(asked):
            now = clock() - started
            while begun < len(asked) and at[begun] <= now:
                sampling = SamplingParams(temperature=0.0, max_tokens=asked[begun].answer, ignore_eos=True)
                driver.submit(Request(prompts[begun], sampling), partial(hear, found[begun]))
                begun += 1
            most = max(most, begun - ended)
            if not driver.turn():
                sleep(max(0.0, at[begun] - now))
    return found, most


def row_of(
    found: Sequence[Served], rate: float, most: int, joules: float | None, meter: Meter | None, tariff: Tariff
) -> ServingRow:
    """The figures of one run."""
    duration = max(one.times[-1] for one in found)
    tokens = sum(one.tokens for one in found)
    each = None if joules is None or not tokens else joules / tokens
    tok_s = tokens / duration
    return ServingRow(
        test=f"poisson {rate:g}/s",
        requests=len(found),
        rate=rate,
        duration_s=duration,
        req_s=len(found) / duration,
        tok_s=tok_s,
        total_tok_s=(tokens + sum(one.prompt for one in found)) / duration,
        most_at_once=most,
        ttft_ms=spread([one.ttft_s for one in found]),
        tpot_ms=spread([one.tpot_s for one in found if one.tpot_s is not None]),
        itl_ms=spread([gap for one in found for gap in one.gaps_s]),
        e2el_ms=spread([one.e2el_s for one in found]),
        joules_per_token=each,
        energy_source=source_of(meter) if each is not None else "none",
        usd_per_mtok=per_million_at(tok_s, None if each is None else each * tok_s, tariff),
        output_hash=output_hash([token for one in found for token in one.ids]),
    )


def spread(seconds: Sequence[float]) -> dict[str, float]:
    """Mean, median, p90 and p99 in milliseconds; empty for nothing."""
    if not seconds:
        return {}
    p90, p99 = np.percentile(seconds, (90, 99))
    return {
        "mean": 1e3 * statistics.fmean(seconds),
        "median": 1e3 * statistics.median(seconds),
        "p90": 1e3 * float(p90),
        "p99": 1e3 * float(p99),
    }


def serving_table(row: ServingRow) -> str:
    """For people; every line ends with a newline."""
    lines = [
        f"{row.requests} requests, {row.rate:g} a second by chance, {row.most_at_once} at once at most; "
        f"{row.duration_s:.1f} s: {row.req_s:.2f} requests/s, {row.tok_s:.1f} tokens/s, {row.total_tok_s:.1f} with "
        f"prompts; output {row.output_hash}",
        "",
        "| ms | mean | median | p90 | p99 |",
        "|---|---:|---:|---:|---:|",
    ]
    for words, values in (
        ("TTFT, to the first token", row.ttft_ms),
        ("TPOT, a token after it", row.tpot_ms),
        ("ITL, between tokens", row.itl_ms),
        ("E2EL, to the end", row.e2el_ms),
    ):
        cells = [f"{values[name]:.1f}" if values else "–" for name in ("mean", "median", "p90", "p99")]
        lines.append(f"| {words} | " + " | ".join(cells) + " |")
    return "".join(line + "\n" for line in lines)


def as_json(row: ServingRow) -> dict[str, Any]:
    """For scripts."""
    return asdict(row)
