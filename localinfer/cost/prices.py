"""From joules to money. Every figure carries what it assumes."""

from dataclasses import dataclass

USD_PER_KWH = 0.20
"""Price of electricity when none is set: about the middle of what households pay; yours may be a third or double."""

_JOULES_PER_KWH = 3.6e6


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
