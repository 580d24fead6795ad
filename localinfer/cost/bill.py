"""The bill of one answer: electricity, the machine, and what a provider would have charged."""

from dataclasses import dataclass

from localinfer.cost.apis import Offer
from localinfer.cost.energy import Source, marked
from localinfer.cost.prices import Tariff, electricity, hardware


@dataclass(frozen=True, slots=True, kw_only=True)
class Bill:
    """US dollars; None where a figure is not known."""

    joules: float | None
    source: Source
    electricity_usd: float | None
    hardware_usd: float | None
    api_usd: float | None
    api_model: str | None
    """Who was compared with, `provider/model`; None when nobody serves this model and none was named."""

    def in_words(self) -> str:
        """`≈12.3 J, ≈$0.0000007 of electricity; $0.00042 at novita/…`; what is not known is a dash."""
        if self.joules is None or self.electricity_usd is None:
            energy = "energy – (not known here; `--watts` says what the machine draws)"
        else:
            price = marked(usd(self.electricity_usd), self.source)
            energy = f"{marked(f'{self.joules:.1f} J', self.source)}, {price} of electricity"
        if self.hardware_usd is not None:
            energy += f", {usd(self.hardware_usd)} of the machine"
        if self.api_usd is None:
            return f"{energy}; API – (nobody is known to serve this model; `--api-model` compares with another)"
        return f"{energy}; {usd(self.api_usd)} at {self.api_model}"


def bill_of(
    joules: float | None,
    source: Source,
    *,
    seconds: float | None,
    read: int,
    written: int,
    tariff: Tariff,
    offer: Offer | None,
) -> Bill:
    """The bill of an answer that took `joules` and `seconds`, with so many tokens read and written."""
    machine = None if seconds is None else hardware(seconds, tariff.hardware_usd, tariff.hardware_years)
    return Bill(
        joules=joules,
        source="none" if joules is None else source,
        electricity_usd=None if joules is None else electricity(joules, tariff.usd_per_kwh).usd,
        hardware_usd=machine.usd if machine else None,
        api_usd=offer.charge(read, written) if offer else None,
        api_model=offer.model if offer else None,
    )


def usd(amount: float) -> str:
    """Dollars with two digits that count, however small: `$0.00000071`, `$3.40`."""
    if amount >= 0.1 or amount <= 0:
        return f"${amount:.2f}"
    digits = 1
    while amount * 10**digits < 10 and digits < 14:
        digits += 1
    return f"${amount:.{digits}f}"
