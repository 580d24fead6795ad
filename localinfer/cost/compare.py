"""What a million tokens cost on each machine and at each provider, and from which volume on one is cheaper.

A step writes one token for each of B texts. It reads the weights once and each text's keys and values, and computes two
operations a weight and text: its time is the longer of both, at the part of the specification that programs reach,
and a little for each layer.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from localinfer.cost.apis import Offer
from localinfer.cost.machines import Machine
from localinfer.cost.predict import LAYER_S
from localinfer.cost.prices import SECONDS_PER_YEAR, Tariff, electricity

READS, COMPUTES = 0.65, 0.5
"""Parts of the specified bandwidth and operations that a step is taken to reach."""

DAY = 86400.0


@dataclass(frozen=True, slots=True)
class Work:
    """What a step has to do."""

    weights_bytes: int
    kv_bytes: int
    """Of one text at the depth that is asked about."""
    parameters: int
    layers: int
    batch: int
    total_bytes: int
    """Of memory: all texts at their whole context."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """One way to get tokens. Dollars are US; None where it cannot be told."""

    name: str
    kind: str
    """`here`, `own`, `rent` or `api`."""
    runs: bool
    """Whether it can be done with this version."""
    why_not: str = ""
    tok_s: float | None
    is_estimate: bool
    usd_per_mtok: float | None
    """When it works all day."""
    fixed_usd_per_day: float
    """What it costs without a token."""
    marginal_usd_per_mtok: float | None
    """What each further million costs."""
    source: str

    @property
    def most_per_day(self) -> float | None:
        """Tokens that it can write in a day; None: as many as are asked for."""
        return None if self.tok_s is None or self.kind == "api" else self.tok_s * DAY

    def usd_at(self, per_day: float) -> float | None:
        """Dollars a million tokens at a volume; None beyond what it can do."""
        if self.marginal_usd_per_mtok is None or per_day <= 0:
            return None
        most = self.most_per_day
        if most is not None and per_day > most:
            return None
        return self.marginal_usd_per_mtok + self.fixed_usd_per_day / per_day * 1e6


def speed(machine: Machine, work: Work) -> float:
    """Tokens a second of all texts together."""
    reading = (work.weights_bytes + work.batch * work.kv_bytes) / (machine.gb_s * 1e9 * READS)
    computing = 2 * work.parameters * work.batch / (machine.int8_tops * 1e12 * COMPUTES)
    return work.batch / (max(reading, computing) + work.layers * LAYER_S)


def on_machine(machine: Machine, work: Work, tariff: Tariff) -> Way:
    """Tokens from a machine that is bought, or rented by the second."""
    fits = work.total_bytes <= machine.memory_gb * 1e9
    why_not = "" if fits else "does not fit in its memory"
    if fits and machine.needs:
        why_not = f"needs {machine.needs}"
    tok_s = speed(machine, work) if fits else None
    if machine.kind == "own":
        fixed = machine.usd / (tariff.hardware_years * SECONDS_PER_YEAR) * DAY
        marginal = _electric(machine.watts, tok_s, tariff)
    else:
        fixed, marginal = 0.0, None if tok_s is None else machine.usd_per_hour / 3600 / tok_s * 1e6
    unproved = "; our kernels were never measured on a card" if machine.backend == "cuda" else ""
    source = f"{machine.source}, {machine.date}{unproved}"
    return _way(machine.name, machine.kind, tok_s, True, fixed, marginal, source, why_not)


def this_machine(tok_s: float | None, watts: float | None, tariff: Tariff, *, is_estimate: bool, source: str) -> Way:
    """Tokens from this machine, whose price counts only where it was given."""
    fixed = (tariff.hardware_usd or 0.0) / (tariff.hardware_years * SECONDS_PER_YEAR) * DAY
    marginal = None if watts is None else _electric(watts, tok_s, tariff)
    return _way("this machine", "here", tok_s, is_estimate, fixed, marginal, source, "")


def at_provider(offer: Offer) -> Way:
    """Tokens from a provider, prompts and answers blended."""
    return Way(
        name=offer.model,
        kind="api",
        runs=True,
        tok_s=None,
        is_estimate=False,
        usd_per_mtok=offer.blended,
        fixed_usd_per_day=0.0,
        marginal_usd_per_mtok=offer.blended,
        source=offer.source,
    )


def _electric(watts: float, tok_s: float | None, tariff: Tariff) -> float | None:
    return None if tok_s is None else electricity(watts / tok_s * 1e6, tariff.usd_per_kwh).usd


def _way(
    name: str,
    kind: str,
    tok_s: float | None,
    is_estimate: bool,
    fixed: float,
    marginal: float | None,
    source: str,
    why_not: str,
) -> Way:
    full = None if tok_s is None or marginal is None else marginal + fixed / (tok_s * DAY) * 1e6
    return Way(
        name=name,
        kind=kind,
        runs=not why_not,
        why_not=why_not,
        tok_s=tok_s,
        is_estimate=is_estimate,
        usd_per_mtok=full,
        fixed_usd_per_day=fixed,
        marginal_usd_per_mtok=marginal,
        source=source,
    )


def break_even(dear_first: Way, cheap_first: Way) -> float | None:
    """Tokens a day from which on `dear_first`, which costs more without a token, is the cheaper way.

    None when it never is: its tokens cost as much or more, or it cannot write so many.
    """
    if dear_first.marginal_usd_per_mtok is None or cheap_first.marginal_usd_per_mtok is None:
        return None
    saved = cheap_first.marginal_usd_per_mtok - dear_first.marginal_usd_per_mtok
    if saved <= 0:
        return None
    volume = max(0.0, dear_first.fixed_usd_per_day - cheap_first.fixed_usd_per_day) / saved * 1e6
    most = dear_first.most_per_day
    return None if most is not None and volume > most else volume


def cheapest(ways: Sequence[Way], kind: str | None = None, *, per_day: float | None = None) -> Way | None:
    """The cheapest that runs, of one kind or of all: when it works all day, or at a volume."""
    priced = []
    for way in ways:
        price = way.usd_per_mtok if per_day is None else way.usd_at(per_day)
        if way.runs and price is not None and kind in (None, way.kind):
            priced.append((price, way.name, way))
    return min(priced, key=lambda item: item[:2])[2] if priced else None
