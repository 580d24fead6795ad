"""What all panes together do, twice a second: speed, rows, blocks, energy; and the last minutes of it for the plots."""

import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from localinfer.cost.apis import Offer
from localinfer.cost.energy import Meter as EnergyMeter
from localinfer.cost.energy import source_of, with_card
from localinfer.cost.prices import Tariff
from localinfer.engine.load import Load
from localinfer.tui.engines import Engines
from localinfer.tui.widgets.pane import ChatPane
from localinfer.tui.widgets.status import SPARKS
from localinfer.tui.widgets.total import Total, summed

StartMeter = Callable[[], EnergyMeter | None]

OfferFor = Callable[[str], Offer | None]
"""Who serves the model of this name at what price; may take half a second."""

MOST_SAMPLES = 240
"""Samples kept: two minutes."""


@dataclass(frozen=True, slots=True)
class Sample:
    """A moment."""

    at: float
    """Seconds of the clock."""
    tok_s: float
    load: Load


class Meter:
    """Read by the app's own thread only."""

    def __init__(
        self,
        start: StartMeter,
        clock: Callable[[], float],
        tariff: Tariff,
        offer_for: OfferFor | None = None,
    ) -> None:
        self._energy = start()
        self.source = source_of(self._energy)
        self._cards: set[str] = set()
        self._tariff = tariff
        self._offer_for = offer_for
        self._offers: dict[str, Offer | None] = {}
        self._clock = clock
        self.joules: float | None = self._energy.joules() if self._energy else None
        self.samples: deque[Sample] = deque(maxlen=MOST_SAMPLES)
        self.total = Total()
        self._moved: dict[int, int] = {}
        self._power: deque[tuple[float, float]] = deque(maxlen=5)

    def _offer(self, model: str) -> Offer | None:
        """Who would be paid for this model; looked up in a thread when it is first asked for."""
        if model not in self._offers and (look := self._offer_for) is not None:
            self._offers[model] = None

            def look_up() -> None:
                self._offers[model] = look(model)

            threading.Thread(target=look_up, daemon=True, name="prices").start()
        return self._offers.get(model)

    def share_out(self, panes: Sequence[ChatPane]) -> None:
        """Give the energy since the last call to those who had tokens computed, by how many; nobody gets it if none
        had. Tell each what a provider would have charged."""
        for pane in panes:
            pane.running.hear()
            used = {pane.session.model: (0, 0), **pane.running.used}  # each at its own model's price
            offers = {model: offer for model in used if (offer := self._offer(model)) is not None}
            if offers:
                pane.set_status(api_usd=sum(offer.charge(*used[model]) for model, offer in offers.items()))
        moved = {pane.number: pane.running.moved - self._moved.get(pane.number, 0) for pane in panes}
        self._moved = {pane.number: pane.running.moved for pane in panes}
        before = self.joules
        self.joules = self._energy.joules() if self._energy else None
        if self.joules is None or before is None or not sum(moved.values()):
            return
        for pane in panes:
            joules = (self.joules - before) * moved[pane.number] / sum(moved.values())
            pane.running.add_joules(joules, self.source, self._tariff.usd_per_kwh)

    def sample(self, panes: Sequence[ChatPane], engines: Engines, *, broadcast: bool) -> Total:
        """How things stand now; kept for the plots too."""
        now = self._clock()
        self._watch_cards({engine.info.card for _, engine in engines.open} - {""})
        load = summed([engine.load() for _, engine in engines.open])
        writing = [pane for pane in panes if pane.busy]
        tok_s = sum(pane.status.tok_s or 0.0 for pane in writing if pane.status.phase == "decode")
        self.samples.append(Sample(now, tok_s, load))
        self.total = Total(
            load=load,
            panes=len(panes),
            writing=len(writing),
            tok_s=tok_s,
            speeds=tuple(sample.tok_s for sample in list(self.samples)[-SPARKS:]) if writing else (),
            joules=self.joules,
            source=self.source,
            usd_per_kwh=self._tariff.usd_per_kwh,
            api_usd=sum(charged) if (charged := [p.status.api_usd for p in panes if p.status.api_usd]) else None,
            watts=self._watts(now),
            broadcast=broadcast,
        )
        return self.total

    def _watch_cards(self, cards: set[str]) -> None:
        """Count what the cards use too, from when an engine first runs there."""
        for card in cards - self._cards:
            self._energy = with_card(self._energy, card)
        self._cards |= cards
        self.source = source_of(self._energy)

    def _watts(self, now: float) -> float | None:
        if self.joules is None:
            return None
        self._power.append((now, self.joules))
        (then, before), (_, joules) = self._power[0], self._power[-1]
        return (joules - before) / (now - then) if now > then else None
