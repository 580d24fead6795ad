"""What all panes together do, twice a second: speed, rows, blocks, energy; and the last minutes of it for the plots."""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from localinfer.cost.energy import EnergyMeter
from localinfer.engine.load import Load
from localinfer.tui.engines import Engines
from localinfer.tui.widgets.pane import ChatPane
from localinfer.tui.widgets.status import SPARKS
from localinfer.tui.widgets.total import Total, summed

StartMeter = Callable[[], EnergyMeter | None]

KEPT = 240
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

    def __init__(self, start: StartMeter, clock: Callable[[], float]) -> None:
        self._energy = start()
        self._clock = clock
        self.joules: float | None = self._energy.joules() if self._energy else None
        self.samples: deque[Sample] = deque(maxlen=KEPT)
        self.total = Total()
        self._moved: dict[int, int] = {}
        self._power: deque[tuple[float, float]] = deque(maxlen=5)

    def share_out(self, panes: Sequence[ChatPane]) -> None:
        """Give the energy since the last call to those who had tokens computed, by how many; nobody gets it if none
        had."""
        moved = {pane.number: pane.moved - self._moved.get(pane.number, 0) for pane in panes}
        self._moved = {pane.number: pane.moved for pane in panes}
        before = self.joules
        self.joules = self._energy.joules() if self._energy else None
        if self.joules is None or before is None or not sum(moved.values()):
            return
        for pane in panes:
            pane.add_joules((self.joules - before) * moved[pane.number] / sum(moved.values()))

    def sample(self, panes: Sequence[ChatPane], engines: Engines, *, broadcast: bool) -> Total:
        """How things stand now; kept for the plots too."""
        now = self._clock()
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
            watts=self._watts(now),
            broadcast=broadcast,
        )
        return self.total

    def _watts(self, now: float) -> float | None:
        if self.joules is None:
            return None
        self._power.append((now, self.joules))
        (then, before), (_, joules) = self._power[0], self._power[-1]
        return (joules - before) / (now - then) if now > then else None
