"""The ablation as figures: JSON to keep, a table for people and for pages, and a picture."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from localinfer.bench.ablation import NAIVE, VariantResult, hash_of
from localinfer.cost.bill import usd
from localinfer.cost.energy import Source, marked
from localinfer.cost.prices import Tariff, per_million_at
from localinfer.errors import size
from localinfer.picture import save_picture

Report = Mapping[str, Any]

_INCHES = (9.6, 4.8)


@dataclass(frozen=True, slots=True, kw_only=True)
class AblationRow:
    """One variant. Speeds in tokens of answers a second, prompts included; ratios are medians of the rounds' ratios."""

    name: str
    stands_on: str | None
    tok_s: float
    tok_s_sd: float
    decode_tok_s: float
    """After first tokens; of many streams: as `tok_s`."""
    times_previous: float | None
    """Against the variant it stands on."""
    times_naive: float
    bits_per_weight: float
    kv_bits: int
    draft: str
    streams: int
    bytes_per_token: int
    """Weights and cache read to write one token: what is read together for several is shared out."""
    joules_per_token: float | None
    energy_source: Source
    usd_per_mtok: float | None
    kld: float | None
    """Mean divergence from the naive way's scores, nats a token."""
    output_ok: bool
    check: str
    """What `output_ok` says."""
    output_hash: str
    replayed: bool = False
    """Computed from what was accepted on real text, not measured."""
    settings: str = ""
    rows_of_steps: Sequence[int] = ()
    """How many steps checked 0, 1, 2, … guesses, for a replay elsewhere."""
    decoded: int = 0
    """Tokens that these steps wrote."""


def rows_of(
    results: Sequence[VariantResult], klds: Mapping[tuple[Path, int], float], tariff: Tariff, source: Source
) -> list[AblationRow]:
    """The rows of what was measured; `klds` by path and bits of the cache."""
    by_name = {one.variant.name: one for one in results}
    return [_row(one, by_name, klds, tariff, source) for one in results]


def _row(
    one: VariantResult,
    by_name: Mapping[str, VariantResult],
    klds: Mapping[tuple[Path, int], float],
    tariff: Tariff,
    source: Source,
) -> AblationRow:
    variant = one.variant
    speeds = [turn.tokens / turn.seconds for turn in one.turns]
    below = by_name[variant.stands_on] if variant.stands_on else None
    joules = [turn.joules / turn.tokens for turn in one.turns if turn.joules is not None]
    each = statistics.median(joules) if joules else None
    tok_s = statistics.median(speeds)
    first = one.turns[0]
    plain = first.tokens - len(first.ids)
    return AblationRow(
        name=variant.name,
        stands_on=variant.stands_on,
        tok_s=tok_s,
        tok_s_sd=statistics.stdev(speeds) if len(speeds) > 1 else 0.0,
        decode_tok_s=(
            tok_s
            if variant.streams > 1
            else statistics.median((t.tokens - len(t.ids)) / t.decode_s for t in one.turns if t.decode_s > 0)
            if plain
            else 0.0
        ),
        times_previous=_times(one, below) if below else None,
        times_naive=_times(one, by_name[NAIVE]),
        bits_per_weight=one.bits_per_weight,
        kv_bits=variant.kv_bits,
        draft=variant.draft,
        streams=variant.streams,
        bytes_per_token=_bytes(one),
        joules_per_token=each,
        energy_source=source if joules else "none",
        usd_per_mtok=per_million_at(tok_s, None if each is None else each * tok_s, tariff),
        kld=0.0 if variant.name == NAIVE and klds else klds.get((variant.path, variant.kv_bits)),
        output_ok=one.is_steady,  # of ours what is not raises before there is a row
        check=_check_in_words(one),
        output_hash=hash_of(one),
        settings=one.settings,
        rows_of_steps=first.drafts if variant.draft != "off" and variant.streams == 1 else (),
        decoded=first.tokens if variant.draft != "off" and variant.streams == 1 else 0,
    )


def _check_in_words(one: VariantResult) -> str:
    if not one.is_steady:
        return "other tokens in another round"
    return f"the tokens of {one.variant.stands_on}" if one.variant.same_text else "the same tokens in each round"


def _times(one: VariantResult, other: VariantResult) -> float:
    pairs = zip(one.turns, other.turns, strict=True)
    return statistics.median((a.tokens / a.seconds) / (b.tokens / b.seconds) for a, b in pairs)


def _bytes(one: VariantResult) -> int:
    """Weights once a step that wrote tokens; the cache of the prompt and half an answer."""
    turn = one.turns[0]
    depth = turn.prompt + statistics.fmean(len(ids) for ids in turn.ids) / 2
    kv = one.reads.bytes_per_token(round(depth)) - one.reads.weights
    return round(one.reads.weights * turn.steps / max(1, turn.tokens)) + kv


def replay(
    rows: Sequence[AblationRow], results: Sequence[VariantResult], base: str, recorded: AblationRow
) -> AblationRow:
    """Speculation where nothing can be guessed: the steps `recorded` on real text, at this model's times."""
    one = next(item for item in results if item.variant.name == base)
    row = next(item for item in rows if item.name == base)
    times = sorted(one.step_s.items())
    xs, ys = [rows_ for rows_, _ in times], [seconds for _, seconds in times]
    spent = sum(
        count * float(np.interp(1 + guesses, xs, ys)) for guesses, count in enumerate(recorded.rows_of_steps) if count
    )
    gain = recorded.decoded * one.step_s[1] / spent
    speeds = [turn.tokens / (turn.seconds - turn.decode_s * (1 - 1 / gain)) for turn in one.turns]
    tok_s = statistics.median(speeds)
    steps = sum(recorded.rows_of_steps)
    return AblationRow(
        **{
            **asdict(row),
            "name": f"{base} + speculation, replayed",
            "stands_on": base,
            "tok_s": tok_s,
            "tok_s_sd": 0.0,
            "decode_tok_s": row.decode_tok_s * gain,
            "times_previous": tok_s / row.tok_s,
            "times_naive": row.times_naive * tok_s / row.tok_s,
            "draft": "auto",
            "bytes_per_token": round(row.bytes_per_token * steps / recorded.decoded),
            "joules_per_token": None,
            "energy_source": "none",
            "usd_per_mtok": None,
            "check": f"replayed: {recorded.decoded} tokens in {steps} steps, as on real text",
            "replayed": True,
        }
    )


def ablation_table(report: Report) -> str:
    """Markdown, a line a variant, from the JSON; every line ends with a newline."""
    lines = [
        "| variant | tok/s | x before | x naive | read a token | J a token | $ a million | KL | text |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---|",
    ]
    for row in report["ladder"]:
        joules, price, source = row["joules_per_token"], row["usd_per_mtok"], row["energy_source"]
        cells = [
            row["name"],
            f"{row['tok_s']:.1f}",
            "" if row["times_previous"] is None else f"{row['times_previous']:.2f}",
            f"{row['times_naive']:.1f}",
            size(row["bytes_per_token"]),
            "–" if joules is None else marked(f"{joules:.3g}", source),
            "–" if price is None else marked(usd(price), source),
            "–" if row["kld"] is None else f"{row['kld']:.4f}",
            f"{row['output_hash'][:8]}, {row['check']}",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "".join(line + "\n" for line in lines) + "\n" + ablation_words(report)


def ablation_words(report: Report) -> str:
    """What the figures are of; one line."""
    machine, work = report["machine"], report["workload"]
    end = "to their ends" if work["to_the_end"] else "exactly"
    price = f"electricity {usd(tariff['usd_per_kwh'])} a kWh; " if (tariff := report.get("tariff")) else ""
    return (
        f"{report['model']['name']} on {machine['cpu']}, {machine['cores']} cores, {machine['isa']}, "
        f"{machine['read_gb_s']:.1f} GB/s; {work['prompts']} prompts answered {end}, "
        f"at most {work['most']} tokens each, "
        f"{work['rounds']} rounds in turn, ratios are medians of theirs; naive: {work['naive']}; {price}"
        f"{report['version']}, {report['at'][:10]}\n"
    )


def draw(report: Report, path: Path) -> None:
    """Write the picture of the ablation to `path`, in the form that its ending says (.svg or .png)."""
    from matplotlib.figure import Figure

    rows = list(report["ladder"])[::-1]
    figure = Figure(figsize=_INCHES, layout="constrained")
    axes = figure.add_subplot()
    colours = ["#b0b7c3" if row["name"] == NAIVE else "#9ecae1" if row["replayed"] else "#3182bd" for row in rows]
    bars = axes.barh([row["name"] for row in rows], [row["tok_s"] for row in rows], color=colours)
    labels = [f"{row['tok_s']:.1f} tok/s, x{row['times_naive']:.1f}" for row in rows]
    axes.bar_label(bars, labels=labels, padding=4, fontsize=8)
    axes.set_xscale("log")
    axes.margins(x=0.35)
    axes.set_xlabel("tokens of answers a second, prompts included; logarithmic")
    axes.set_title(str(report["model"]["name"]), fontsize=10)
    save_picture(figure, path)
