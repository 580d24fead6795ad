"""Joules, and who says so: the processor's own counters, the watts that a person measured, or an estimate.

An estimate is never taken for a measurement: every meter names its source, and whoever prints a figure marks it.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from localinfer.cost.watts import Rated, rated

POWERCAP = Path("/sys/class/powercap")

Source = Literal["rapl", "nvml", "given", "estimate", "none"]
"""`rapl`: counters of processor and memory. `nvml`: those and the card's. `given`: watts that the user measured.
`estimate`: rated watts of this processor, for the time that its cores worked for us, even if a card's are measured."""


class Meter(Protocol):
    """Counts joules from its making on."""

    @property
    def source(self) -> Source: ...

    def joules(self) -> float | None:
        """Joules so far; None when they can no longer be told."""
        ...


@dataclass(frozen=True, slots=True)
class Zone:
    """One counter of microjoules that starts again at 0 after `wraps_at`."""

    path: Path
    wraps_at: int


class EnergyMeter:
    """The powercap counters. Read it every few minutes: a counter may wrap only once between two reads."""

    source: Source = "rapl"

    def __init__(self, zones: list[Zone], last: list[int]) -> None:
        self._zones = zones
        self._last = last
        self._microjoules = 0

    def joules(self) -> float | None:
        for i, zone in enumerate(self._zones):
            now = _number(zone.path / "energy_uj")
            if now is None:
                return None
            step = now - self._last[i]
            self._microjoules += step if step >= 0 else step + zone.wraps_at
            self._last[i] = now
        return self._microjoules / 1e6


class GivenMeter:
    """A machine that draws so many watts, as somebody measured at the socket, for as long as it is watched."""

    source: Source = "given"

    def __init__(self, watts: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._watts = watts
        self._clock = clock
        self._started = clock()

    def joules(self) -> float | None:
        return self._watts * (self._clock() - self._started)


class EstimateMeter:
    """Rated watts of the processor, shared out among its cores, for the seconds that this process kept them busy."""

    source: Source = "estimate"

    def __init__(self, processor: Rated, busy: Callable[[], float] = time.process_time) -> None:
        self._watts = processor.watts_per_core
        self._busy = busy
        self._started = busy()

    def joules(self) -> float | None:
        return self._watts * (self._busy() - self._started)


class CardMeter:
    """A card's own counter of millijoules (NVML), from now on, and what `host` counts of the rest of the machine."""

    def __init__(self, host: Meter, counter: Callable[[], int | None], started: int) -> None:
        self.source: Source = "nvml" if host.source in ("rapl", "nvml") else host.source
        self._host = host
        self._counter = counter
        self._started = started

    def joules(self) -> float | None:
        host, now = self._host.joules(), self._counter()
        return None if host is None or now is None else host + (now - self._started) / 1e3


def with_card(meter: Meter | None, uuid: str) -> Meter | None:
    """`meter`, and what the card of this uuid (32 hexadecimal digits; empty: none) uses from now on.

    Without the card's counter, or without a meter of the rest, nothing can be told. Watts that were given are those of
    the whole machine.
    """
    if not uuid or meter is None or meter.source == "given":
        return meter
    counter = _card_counter(uuid)
    started = counter() if counter else None
    return None if counter is None or started is None else CardMeter(meter, counter, started)


def _card_counter(uuid: str) -> Callable[[], int | None] | None:
    """Reads the card's millijoules since its driver was loaded; None where NVML or its Python package is not there."""
    try:
        import pynvml  # type: ignore[import-untyped]
    except ImportError:
        return None
    name = f"GPU-{uuid[:8]}-{uuid[8:12]}-{uuid[12:16]}-{uuid[16:20]}-{uuid[20:]}"
    try:
        pynvml.nvmlInit()
        handle = pynvml.nvmlDeviceGetHandleByUUID(name)
    except pynvml.NVMLError:
        return None

    def read() -> int | None:
        try:
            return int(pynvml.nvmlDeviceGetTotalEnergyConsumption(handle))
        except pynvml.NVMLError:  # a card without a counter, or one that is gone
            return None

    return read


def start_meter(
    watts: float | None = None, root: Path = POWERCAP, cpuinfo: Path = Path("/proc/cpuinfo")
) -> Meter | None:
    """The best meter here: `watts` if somebody gave them, else counters of all packages and their memory, else the
    rated watts of a processor that we know; None where nothing is known."""
    if watts is not None:
        return GivenMeter(watts)
    counters = start_counters(root)
    if counters is not None:
        return counters
    known = rated(cpuinfo)
    return EstimateMeter(known) if known else None


def start_counters(root: Path = POWERCAP) -> EnergyMeter | None:
    """A meter over all packages and their memory; None without counters, or when this user may not read them."""
    zones = [zone for folder in sorted(root.glob("intel-rapl:*")) if (zone := _zone(folder)) is not None]
    last = [_number(zone.path / "energy_uj") for zone in zones]
    if not zones or None in last:
        return None
    return EnergyMeter(zones, [value for value in last if value is not None])


def source_of(meter: Meter | None) -> Source:
    """Who says the joules; `none` without a meter."""
    return meter.source if meter else "none"


def marked(figure: str, source: Source) -> str:
    """`figure`, with a mark if it is an estimate."""
    return f"≈{figure}" if source == "estimate" else figure


def _zone(folder: Path) -> Zone | None:
    """Packages, and the memory beside them. Cores lie in a package, `psys` holds packages: they would count twice."""
    try:
        name = (folder / "name").read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        return None
    if not (name.startswith("package") or name == "dram"):
        return None
    wraps_at = _number(folder / "max_energy_range_uj")
    return Zone(folder, wraps_at) if wraps_at else None


def _number(path: Path) -> int | None:
    try:
        text = path.read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        return None
    return int(text) if text.isdigit() else None
