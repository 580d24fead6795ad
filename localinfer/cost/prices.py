"""From joules and seconds to money. Every figure carries what it assumes."""

from dataclasses import dataclass

from localinfer.config import in_range

USD_PER_KWH = 0.20
"""Price of electricity when none is set: about the middle of what households pay; yours may be a third or double."""

HARDWARE_YEARS = 4.0
"""How long a machine serves when nothing is said."""

_JOULES_PER_KWH = 3.6e6
SECONDS_PER_YEAR = 365.0 * 86400


@dataclass(frozen=True, slots=True, kw_only=True)
class Tariff:
    """What electricity and the machine cost."""

    usd_per_kwh: float = USD_PER_KWH
    watts: float | None = None
    """What the whole machine draws while it works, measured at the socket. Unset: counters, or an estimate."""
    hardware_usd: float | None = None
    """What the machine cost. Unset: it is there anyway, and its price is not counted."""
    hardware_years: float = HARDWARE_YEARS

    def __post_init__(self) -> None:
        in_range("usd-per-kwh", self.usd_per_kwh, 0, 100)
        in_range("hardware-years", self.hardware_years, 0.01, 100)
        for name, value, most in (("watts", self.watts, 1e6), ("hardware-usd", self.hardware_usd, 1e9)):
            if value is not None:
                in_range(name, value, 0, most)


USUAL = Tariff()
"""When nothing is set."""


@dataclass(frozen=True, slots=True)
class Cost:
    """US dollars, and how they were reached."""

    usd: float
    assumptions: tuple[str, ...]


def electricity(joules: float, usd_per_kwh: float = USD_PER_KWH) -> Cost:
    """What `joules` cost from the socket."""
    return Cost(
        joules / _JOULES_PER_KWH * usd_per_kwh,
        (
            f"{usd_per_kwh:g} USD a kWh",
            "processor and memory only: not the screen, the disk, or what the power supply loses",
            "all that the processor did in that time, also for other programs",
        ),
    )


def per_million(joules_per_token: float, usd_per_kwh: float = USD_PER_KWH) -> Cost:
    """What a million tokens cost in electricity, at the joules a token measured here."""
    return electricity(joules_per_token * 1e6, usd_per_kwh)


def hardware(seconds: float, usd: float | None, years: float = HARDWARE_YEARS) -> Cost | None:
    """The share of a machine's price that `seconds` of its life use up; None when the price is not known."""
    if usd is None:
        return None
    return Cost(
        usd * seconds / (years * SECONDS_PER_YEAR),
        (f"{usd:g} USD over {years:g} years", "every second of its life costs the same, worked or not"),
    )


def per_million_at(tok_s: float, watts: float | None, tariff: Tariff) -> float | None:
    """US dollars a million tokens at `tok_s` all the time: electricity at `watts`, and the machine where its price is
    known. None when neither is."""
    if tok_s <= 0:
        return None
    seconds = 1e6 / tok_s
    parts = [
        None if watts is None else electricity(watts * seconds, tariff.usd_per_kwh).usd,
        None if (share := hardware(seconds, tariff.hardware_usd, tariff.hardware_years)) is None else share.usd,
    ]
    known = [part for part in parts if part is not None]
    return sum(known) if known else None
