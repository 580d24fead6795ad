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

Source = Literal["rapl", "given", "estimate", "none"]
"""`rapl`: counters of processor and memory. `given`: watts that the user measured. `estimate`: rated watts of this
processor, for the time that its cores worked for us."""


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
            now = _whole(zone.path / "energy_uj")
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
    last = [_whole(zone.path / "energy_uj") for zone in zones]
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
    wraps_at = _whole(folder / "max_energy_range_uj")
    return Zone(folder, wraps_at) if wraps_at else None


def _whole(path: Path) -> int | None:
    try:
        text = path.read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        return None
    return int(text) if text.isdigit() else None
