"""Energy counters, their wrap, and the price of a joule."""

import sys
from pathlib import Path
from types import ModuleType

import pytest

from localinfer.cost.energy import Source, start_counters, with_card
from localinfer.cost.prices import electricity, per_million


def zone(root: Path, name: str, kind: str, energy: int | str, wraps_at: int | str = 1000) -> Path:
    folder = root / name
    folder.mkdir(parents=True)
    (folder / "name").write_text(kind + "\n")
    (folder / "energy_uj").write_text(f"{energy}\n")
    (folder / "max_energy_range_uj").write_text(f"{wraps_at}\n")
    return folder


def test_packages_and_memory_are_added_and_nothing_twice(tmp_path: Path) -> None:
    one = zone(tmp_path, "intel-rapl:0", "package-0", 100)
    cores = zone(tmp_path, "intel-rapl:0:0", "core", 50)
    dram = zone(tmp_path, "intel-rapl:0:2", "dram", 10)
    two = zone(tmp_path, "intel-rapl:1", "package-1", 900)
    whole = zone(tmp_path, "intel-rapl:2", "psys", 1)
    meter = start_counters(tmp_path)
    assert meter is not None
    for folder, energy in ((one, 400), (cores, 999), (dram, 20), (two, 100), (whole, 999)):
        (folder / "energy_uj").write_text(str(energy))
    assert meter.joules() == pytest.approx((300 + 10 + (100 - 900 + 1000)) / 1e6)
    (one / "energy_uj").write_text("450")
    assert meter.joules() == pytest.approx((350 + 10 + 200) / 1e6)
    (one / "energy_uj").unlink()
    assert meter.joules() is None


@pytest.mark.parametrize(("energy", "wraps_at"), [("", 1000), ("denied", 1000), (5, ""), (5, 0)])
def test_counters_that_cannot_be_read_are_none(tmp_path: Path, energy: int | str, wraps_at: int | str) -> None:
    zone(tmp_path, "intel-rapl:0", "package-0", energy, wraps_at)
    assert start_counters(tmp_path) is None


def test_no_counters_at_all(tmp_path: Path) -> None:
    assert start_counters(tmp_path) is None
    assert start_counters(tmp_path / "none") is None


def test_prices_say_what_they_assume() -> None:
    cost = electricity(3.6e6, 0.30)
    assert cost.usd == pytest.approx(0.30)
    assert "0.3 USD a kWh" in cost.assumptions
    assert per_million(2.0, 0.36).usd == pytest.approx(0.2)


class Host:
    """What the rest of the machine uses."""

    def __init__(self, source: Source, joules: float | None = 5.0) -> None:
        self.source, self._joules = source, joules

    def joules(self) -> float | None:
        return self._joules


@pytest.fixture
def nvml(monkeypatch: pytest.MonkeyPatch) -> list[int | None]:
    """NVIDIA's library is not here; this says the millijoules in the list, one after the other, None an error."""
    reads: list[int | None] = []
    door = ModuleType("pynvml")

    class NVMLError(Exception):
        pass

    def energy(handle: str) -> int:
        assert handle == "GPU-00112233-4455-6677-8899-aabbccddeeff"
        if (value := reads.pop(0)) is None:
            raise NVMLError
        return value

    door.__dict__.update(
        NVMLError=NVMLError,
        nvmlInit=lambda: None,
        nvmlDeviceGetHandleByUUID=lambda name: name,
        nvmlDeviceGetTotalEnergyConsumption=energy,
    )
    monkeypatch.setitem(sys.modules, "pynvml", door)
    return reads


UUID = "00112233445566778899aabbccddeeff"


def test_a_cards_millijoules_are_added(nvml: list[int | None]) -> None:
    nvml[:] = [7_000, 9_500, None]
    meter = with_card(Host("rapl"), UUID)
    assert meter is not None
    assert meter.source == "nvml"
    assert meter.joules() == 5.0 + 2.5
    assert meter.joules() is None


def test_an_estimate_stays_one_and_what_was_given_is_the_whole(nvml: list[int | None]) -> None:
    nvml[:] = [0]
    meter, given = with_card(Host("estimate"), UUID), Host("given")
    assert meter is not None
    assert meter.source == "estimate"
    assert with_card(given, UUID) is given
    assert with_card(given, "") is given


def test_without_the_cards_counter_nothing_is_told(nvml: list[int | None], monkeypatch: pytest.MonkeyPatch) -> None:
    nvml[:] = [None]
    assert with_card(Host("rapl"), UUID) is None
    assert with_card(None, UUID) is None
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert with_card(Host("rapl"), UUID) is None
