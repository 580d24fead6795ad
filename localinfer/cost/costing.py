"""`cost`: tokens from here, from other machines and from providers, side by side."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from localinfer.config import EngineConfig
from localinfer.cost import compare
from localinfer.cost.apis import Offer, offer_named, offers_of
from localinfer.cost.bill import usd
from localinfer.cost.compare import Way, Work
from localinfer.cost.fit import estimate
from localinfer.cost.machine import last_level_cache, read_bandwidth
from localinfer.cost.machines import machines
from localinfer.cost.predict import Known, load_of, predict
from localinfer.cost.prices import Tariff
from localinfer.cost.roofline import traffic
from localinfer.cost.watts import rated
from localinfer.graph.weights import Checkpoint
from localinfer.picture import save_picture

PROVIDERS = 5
"""Providers shown, the cheapest ones."""

DEPTH = 1024
"""Tokens of context that a text has when its next token is written, on average."""

VOLUMES = [10.0**power for power in range(3, 11)]


@dataclass(frozen=True, slots=True, kw_only=True)
class CostReport:
    """One model, width and batch, every way."""

    model: str
    batch: int
    kv_bits: int
    depth: int
    per_day: float | None
    """Tokens a day that were asked about."""
    ways: Sequence[Way]
    api_note: str
    tariff: Tariff

    def to_json(self) -> dict[str, Any]:
        """Everything, and the answers."""
        volume = {way.name: way.usd_at(self.per_day) for way in self.ways} if self.per_day else None
        return {**asdict(self), "usd_at_volume": volume, **self.answers()}

    def answers(self) -> dict[str, Any]:
        """The cheapest way of each kind, and the volumes from which buying pays."""
        best = {kind: compare.cheapest(self.ways, kind) for kind in ("here", "own", "rent", "api")}
        found: dict[str, Any] = {f"cheapest_{kind}": way.name if way else None for kind, way in best.items()}
        top = compare.cheapest(self.ways, per_day=self.per_day)
        found["cheapest"] = top.name if top else None
        for what, dear, cheap in (
            ("buying_beats_api", "own", "api"),
            ("buying_beats_renting", "own", "rent"),
            ("here_beats_api", "here", "api"),
        ):
            first, second = best[dear], best[cheap]
            found[f"{what}_from"] = compare.break_even(first, second) if first and second else None
        first, second = best["rent"], best["api"]
        found["renting_beats_api"] = bool(first and second and (first.usd_per_mtok or 0) < (second.usd_per_mtok or 0))
        return found


@dataclass(frozen=True, slots=True)
class Facts:
    """What was measured of a model on this machine."""

    step_s: Mapping[int, float] = field(default_factory=dict)
    """Seconds of steps by rows; empty when it was never loaded."""
    known: Sequence[Known] = ()
    """Models that were measured."""
    watts: float | None = None
    """While it generated as many texts at once; None when that was never measured."""


def cost_report(
    name: str,
    ref: str,
    checkpoint: Checkpoint,
    facts: Facts,
    config: EngineConfig,
    tariff: Tariff,
    *,
    api_model: str | None = None,
    per_day: float | None = None,
    user_machines: Path | None = None,
) -> CostReport:
    """All ways for a model: `org/name`, and what means exactly this form of it. Raises `Corrupt` for the table of
    machines, and `UsageError` for a context that the model was not made for."""
    context = config.choose_context(checkpoint.spec.max_context)
    reads = traffic(checkpoint.path, config.kv_bits)
    depth = min(DEPTH, context)
    total = estimate(
        checkpoint,
        context=context,
        parallel=config.parallel,
        kv_bits=config.kv_bits,
        kv_tokens=config.kv_tokens,
        rows=config.most_rows,
    ).total_bytes
    work = Work(
        weights_bytes=reads.weights,
        kv_bytes=reads.bytes_per_token(depth) - reads.weights,
        parameters=checkpoint.graph.parameters(),
        layers=checkpoint.spec.layers,
        batch=config.parallel,
        total_bytes=total,
    )
    offers = _offers(name, api_model)
    ways = [
        _this_machine(ref, checkpoint, facts, config, tariff),
        *(compare.on_machine(machine, work, tariff) for machine in machines(user_machines)),
        *map(compare.at_provider, offers),
    ]
    note = "" if offers else f"nobody is known to serve {name}; `--api-model` compares with another model"
    return CostReport(
        model=ref,
        batch=config.parallel,
        kv_bits=config.kv_bits,
        depth=depth,
        per_day=per_day,
        ways=ways,
        api_note=note,
        tariff=tariff,
    )


def _offers(name: str, api_model: str | None) -> list[Offer]:
    named = [offer_named(api_model)] if api_model else []
    return [*named, *(offer for offer in offers_of(name)[:PROVIDERS] if offer not in named)]


def _this_machine(ref: str, checkpoint: Checkpoint, facts: Facts, config: EngineConfig, tariff: Tariff) -> Way:
    """This machine: by the last benchmark of one text, or the steps measured at loading, else by the roofline."""
    steps, known = facts.step_s, facts.known
    rows = [count for count in steps if count <= config.parallel]
    alone = next((one for one in known if one.name == ref), None)
    if config.parallel == 1 and alone is not None:
        tok_s, source, guess = 1 / alone.seconds, "measured here", False
    elif rows:
        tok_s, source, guess = max(rows) / steps[max(rows)], "steps measured when it was loaded", False
        if max(rows) < config.parallel:
            source, guess = f"{source}, of {max(rows)} texts at most", True
    else:
        bandwidth = read_bandwidth(config.threads).bytes_per_s
        tok_s = predict(load_of(checkpoint), known, bandwidth, last_level_cache()).tok_s
        source, guess = "estimated for one text: it was never loaded here", True
    watts = tariff.watts
    if watts is None and facts.watts:
        watts, source = facts.watts, f"{source}; {facts.watts:.0f} W as last benchmarked"
    if watts is None and (processor := rated()) is not None:
        from localinfer import native

        watts, guess = processor.watts_per_core * (config.threads or native.physical_cores()), True
        source += f"; rated watts of {processor.name}"
    return compare.this_machine(tok_s, watts, tariff, is_estimate=guess, source=source)


def cost_table(report: CostReport) -> str:
    """For people; every line ends with a newline."""
    lines = [
        f"{report.model}, {report.batch} text{'s' * (report.batch > 1)} at once, {report.kv_bits}-bit cache, "
        f"{report.depth} tokens of context",
        "",
        "| way | tok/s | $ a million tokens | " + ("at that volume | " if report.per_day else "") + "from |",
        "|---|---:|---:|" + ("---:|" if report.per_day else "") + "---|",
    ]
    for way in report.ways:
        mark = "≈" if way.is_estimate else ""
        cells = [
            way.name,
            "–" if way.tok_s is None else f"{mark}{way.tok_s:.0f}",
            "–" if way.usd_per_mtok is None else mark + usd(way.usd_per_mtok),
        ]
        if report.per_day:
            price = way.usd_at(report.per_day)
            cells.append("–" if price is None else mark + usd(price))
        cells.append(f"{way.kind}: {way.why_not or way.source}")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join([*lines, "", *_sentences(report)]) + "\n"


def _sentences(report: CostReport) -> list[str]:
    said, tariff = report.answers(), report.tariff
    this, bought, rent, api = (said[f"cheapest_{kind}"] for kind in ("here", "own", "rent", "api"))
    price = "not counted" if tariff.hardware_usd is None else f"at {usd(tariff.hardware_usd)}"
    lines = [
        f"≈ estimates: {compare.READS:.0%} of the specified bandwidth, {compare.COMPUTES:.0%} of the "
        "operations; "
        f"electricity {usd(tariff.usd_per_kwh)} a kWh; machines last {tariff.hardware_years:g} years, this one {price}"
        "; a million tokens when it works all day, at a provider a quarter of them written",
    ]
    if report.api_note:
        lines.append(report.api_note)
    when = f"at {report.per_day:,.0f} tokens a day" if report.per_day else "working all day"
    lines.append(f"the cheapest that runs, {when}: {said['cheapest'] or 'nobody'}")
    if not bought or not rent:
        lines.append(f"no machine to {'rent' if bought else 'buy' if rent else 'buy or rent'} in the table runs it")
    if bought and rent:
        lines.append(f"buying {bought} beats renting {rent} {_from(said['buying_beats_renting_from'])}")
    if bought and api:
        lines.append(f"buying {bought} beats {api} {_from(said['buying_beats_api_from'])}")
    if this and api:
        lines.append(f"{this} beats {api} {_from(said['here_beats_api_from'])}")
    if rent and api:
        verb = "beats" if said["renting_beats_api"] else "does not beat"
        lines.append(f"renting {rent} by the second {verb} {api}, when it is kept busy")
    return lines


def _from(volume: float | None) -> str:
    if volume is None:
        return "at no volume that it can do"
    return f"from {volume:,.0f} tokens a day on" if volume >= 1 else "at any volume"


def draw(report: CostReport, path: Path) -> None:
    """Dollars a million tokens against tokens a day, the best way of each kind; .svg or .png."""
    from matplotlib.figure import Figure

    said = report.answers()
    names = {said[f"cheapest_{kind}"] for kind in ("here", "own", "rent", "api")}
    figure = Figure(figsize=(9.6, 5.4), layout="constrained")
    axes = figure.add_subplot()
    for way in (way for way in report.ways if way.name in names):
        grid = [volume * step for volume in VOLUMES for step in (1, 2, 5)]
        points = [(volume, price) for volume in grid if (price := way.usd_at(volume)) is not None]
        axes.plot([x for x, _ in points], [y for _, y in points], label=f"{way.name} ({way.kind})")
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.grid(visible=True, which="major", alpha=0.3)
    axes.set_xlabel("tokens a day")
    axes.set_ylabel("US dollars a million tokens")
    axes.set_title(report.model, fontsize=10)
    axes.legend()
    save_picture(figure, path)
