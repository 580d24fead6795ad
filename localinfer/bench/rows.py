"""From repetitions to the row of a table."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from localinfer.bench.measure import Sample
from localinfer.bench.plan import BenchTest
from localinfer.cost.energy import Source
from localinfer.cost.prices import Tariff, per_million_at
from localinfer.cost.roofline import Traffic, share
from localinfer.engine.protocol import EngineInfo
from localinfer.events import output_hash


@dataclass(frozen=True, slots=True)
class Contender:
    """Who is measured: an engine's description, and what is known of its traffic."""

    info: EngineInfo
    draft: str
    traffic: Traffic | None
    settings: str = ""
    """What was chosen for it, in words."""
    bits_per_weight: float = 0.0
    """Of all weights, embedding and head counted."""
    load_s: float = 0.0
    """Seconds from opening to ready."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchRow:
    """One line of the table; also one object of the JSON, with these names. Speeds in tokens a second, GB is 10^9."""

    test: str
    backend: str
    batch: int
    bits: str
    bits_per_weight: float
    """Of all weights as stored, embedding and head counted once."""
    kv_bits: int
    draft: str
    threads: int
    isa: str
    tok_s: float
    """Mean of the repetitions."""
    tok_s_sd: float
    tok_s_median: float
    gb_s: float | None
    """Bytes that generation must read, a second; None for prompts, which are bound by arithmetic."""
    bandwidth_share: float | None
    """`gb_s` of what this machine's memory gives."""
    ttft_ms: float
    itl_p50_ms: float | None
    """Milliseconds a token, its step's time over the tokens that landed in it; half of the tokens are faster."""
    itl_p99_ms: float | None
    acceptance: float | None
    """Part of the drafted tokens that were right; None without drafts."""
    joules_per_token: float | None
    energy_source: Source
    """Who says the joules; an `estimate` is no measurement."""
    usd_per_mtok: float | None
    """Electricity, and the machine where its price was given."""
    output_hash: str
    """Of the ids generated in the first repetition: another value is another answer."""
    load_s: float = 0.0
    """Seconds from opening this engine to ready."""
    peak_share: float | None = None
    """Part of the machine's `int8_tops` that a prompt's integer products use; None where it was not measured."""
    settings: str = ""


def make_row(
    test: BenchTest,
    who: Contender,
    samples: Sequence[Sample],
    bandwidth: float | None,
    tariff: Tariff,
    source: Source = "none",
) -> BenchRow:
    """The row of `samples`, at least one. `bandwidth` in bytes a second."""
    speeds = [sample.tok_s for sample in samples]
    gaps = sorted(gap for sample in samples for gap in sample.gaps_s)
    moved = None
    if test.generate and who.traffic is not None and who.draft == "off":
        one = who.traffic.bytes_per_token(test.depth + test.generate // 2) - who.traffic.weights
        step = who.traffic.weights + test.streams * one  # weights are read once for all streams
        moved = step * statistics.fmean(speeds) / test.streams
    limit = who.info.card_bytes_per_s if who.info.card else bandwidth
    joules = _joules_per_token(samples)
    drafted = sum(sample.drafted for sample in samples)
    return BenchRow(
        test=test.name,
        backend=who.info.backend,
        batch=test.streams,
        bits=who.info.bits,
        bits_per_weight=who.bits_per_weight,
        kv_bits=who.info.kv_bits,
        draft=who.draft,
        threads=who.info.threads,
        isa=who.info.isa,
        tok_s=statistics.fmean(speeds),
        tok_s_sd=statistics.stdev(speeds) if len(speeds) > 1 else 0.0,
        tok_s_median=statistics.median(speeds),
        gb_s=None if moved is None else moved / 1e9,
        bandwidth_share=None if moved is None or not limit else share(1, moved, limit),
        ttft_ms=1e3 * statistics.median(sample.ttft_s for sample in samples),
        itl_p50_ms=1e3 * percentile(gaps, 0.50) if gaps else None,
        itl_p99_ms=1e3 * percentile(gaps, 0.99) if gaps else None,
        acceptance=sum(sample.accepted for sample in samples) / drafted if drafted else None,
        joules_per_token=joules,
        energy_source="none" if joules is None else source,
        usd_per_mtok=_usd_per_million(joules, statistics.fmean(speeds), tariff),
        output_hash=output_hash(samples[0].token_ids),
        load_s=who.load_s,
        settings=who.settings,
    )


def _usd_per_million(joules: float | None, tok_s: float, tariff: Tariff) -> float | None:
    return per_million_at(tok_s, None if joules is None else joules * tok_s, tariff)


def row_name(row: Mapping[str, Any]) -> str:
    """What a row of a kept report is called: its test, and who guessed, where somebody did."""
    name, draft = str(row.get("test") or row.get("name", "?")), row.get("draft", "off")
    return f"{name} {draft}" if draft != "off" and "test" in row else name


def percentile(ascending: Sequence[float], share_below: float) -> float:
    """The smallest value that at least `share_below` of the values do not exceed."""
    index = -(-len(ascending) * share_below // 1)
    return ascending[max(0, min(len(ascending), int(index)) - 1)]


def _joules_per_token(samples: Sequence[Sample]) -> float | None:
    total = 0.0
    for sample in samples:
        if sample.joules is None:
            return None
        total += sample.joules
    return total / sum(sample.tokens for sample in samples)
