"""`cost` of a tiny model with a machine, prices and measurements that stand still: a golden table."""

from pathlib import Path
from typing import Any

import pytest

from localinfer.config import EngineConfig
from localinfer.cost import costing
from localinfer.cost.apis import Offer
from localinfer.cost.costing import CostReport, Facts, cost_report, cost_table, draw
from localinfer.cost.prices import Tariff
from localinfer.graph.weights import Checkpoint
from tests.tiny import make_checkpoint

GOLDEN = Path(__file__).parent / "golden" / "cost.txt"


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Checkpoint:
    monkeypatch.setattr(costing, "offers_of", lambda name: [Offer("p/tiny", 0.1, 0.5, "prices of a test")])
    monkeypatch.setattr("localinfer.paths.config_file", lambda: tmp_path / "config.toml")
    return Checkpoint(make_checkpoint(tmp_path / "m"))


TARIFF = Tariff(watts=36, hardware_usd=500)


def report_of(model: Checkpoint, tariff: Tariff = TARIFF, watts: float | None = None, **changes: Any) -> CostReport:
    config = EngineConfig(threads=1, context=64, parallel=4)
    facts = Facts({1: 0.01, 4: 0.02}, watts=watts)
    return cost_report("me/tiny", "me/tiny", model, facts, config, tariff, **changes)


def test_the_table(model: Checkpoint, request: pytest.FixtureRequest) -> None:
    text = cost_table(report_of(model, per_day=1e6))
    if request.config.getoption("--update-golden"):
        GOLDEN.parent.mkdir(exist_ok=True)
        GOLDEN.write_text(text, encoding="utf-8")
    assert text == GOLDEN.read_text(encoding="utf-8")


def test_json_and_answers(model: Checkpoint) -> None:
    said = report_of(model).to_json()
    assert said["cheapest_here"] == "this machine"
    assert said["cheapest_api"] == "p/tiny"
    mine = next(way for way in said["ways"] if way["kind"] == "here")
    assert mine["tok_s"] == pytest.approx(4 / 0.02)
    # 200 tok/s: 5,000 s a million; 36 W are 0.01 USD, 500 USD over four years 0.0198.
    assert mine["usd_per_mtok"] == pytest.approx(0.01 + 500 / (4 * 365 * 86400) * 5000)
    assert not mine["is_estimate"]


def test_measured_watts_come_before_rated_ones(model: Checkpoint) -> None:
    report = report_of(model, Tariff(), watts=72.0)
    mine = next(way for way in report.ways if way.kind == "here")
    assert not mine.is_estimate
    assert mine.usd_per_mtok == pytest.approx(0.02)  # 5,000 s at 72 W are 0.1 kWh
    assert "72 W as last benchmarked" in mine.source


def test_nobody_serves_it(model: Checkpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(costing, "offers_of", lambda name: [])
    report = report_of(model)
    assert "nobody is known to serve me/tiny" in cost_table(report)
    assert report.answers()["buying_beats_api_from"] is None


@pytest.mark.parametrize("ending", ["svg", "png"])
def test_a_picture(model: Checkpoint, tmp_path: Path, ending: str) -> None:
    draw(report_of(model), tmp_path / f"cost.{ending}")
    assert (tmp_path / f"cost.{ending}").stat().st_size > 1000
