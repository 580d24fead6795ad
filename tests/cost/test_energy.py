"""Energy counters, their wrap, and the price of a joule."""

from pathlib import Path

import pytest

from localinfer.cost.energy import start_counters
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
