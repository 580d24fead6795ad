"""Energy of the processor and its memory, from the powercap counters; None where they are not there to read."""

from dataclasses import dataclass
from pathlib import Path

POWERCAP = Path("/sys/class/powercap")


@dataclass(frozen=True, slots=True)
class Zone:
    """One counter of microjoules that starts again at 0 after `wraps_at`."""

    path: Path
    wraps_at: int


class EnergyMeter:
    """Counts joules from its making on. Read it every few minutes: a counter may wrap only once between two reads."""

    def __init__(self, zones: list[Zone], last: list[int]) -> None:
        self._zones = zones
        self._last = last
        self._microjoules = 0

    def joules(self) -> float | None:
        """Joules since the meter was made; None when a counter can no longer be read."""
        for i, zone in enumerate(self._zones):
            now = _whole(zone.path / "energy_uj")
            if now is None:
                return None
            step = now - self._last[i]
            self._microjoules += step if step >= 0 else step + zone.wraps_at
            self._last[i] = now
        return self._microjoules / 1e6


def start_meter(root: Path = POWERCAP) -> EnergyMeter | None:
    """A meter over all packages and their memory; None without counters, or when this user may not read them."""
    zones = [zone for folder in sorted(root.glob("intel-rapl:*")) if (zone := _zone(folder)) is not None]
    last = [_whole(zone.path / "energy_uj") for zone in zones]
    if not zones or None in last:
        return None
    return EnergyMeter(zones, [value for value in last if value is not None])


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
