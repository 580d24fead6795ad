"""Requests by chance: the figures against examples worked out by hand, and a real run on a tiny engine."""

import statistics
from pathlib import Path

import pytest

from localinfer.bench.arrivals import Served, arrivals, row_of, run_poisson, serve, serving_table, spread
from localinfer.bench.workload import Asked
from localinfer.config import EngineConfig
from localinfer.cost.energy import GivenMeter
from localinfer.cost.prices import Tariff
from localinfer.engine.opening import open_engine
from tests.tiny import make_checkpoint


def test_gaps_fall_off_exponentially() -> None:
    times = arrivals(20_000, 4.0, seed=1)
    gaps = [b - a for a, b in zip([0.0, *times], times, strict=False)]
    assert statistics.fmean(gaps) == pytest.approx(0.25, rel=0.05)
    assert statistics.pstdev(gaps) == pytest.approx(0.25, rel=0.05)  # of an exponential: its mean
    assert times == arrivals(20_000, 4.0, seed=1) != arrivals(20_000, 4.0, seed=2)


def test_what_a_sender_sees() -> None:
    one = Served(1.0, prompt=10, times=[1.5, 1.7, 2.1], landed=[1, 1, 3])
    assert one.ttft_s == pytest.approx(0.5)
    assert one.e2el_s == pytest.approx(1.1)
    assert one.tpot_s == pytest.approx(0.6 / 4)  # two moments brought two tokens
    assert one.gaps_s == pytest.approx([0.2, *[0.4 / 3] * 3])  # tokens share the time of their step
    assert Served(1.0, 10, [1.5], [1]).tpot_s is None


def test_the_row_worked_out() -> None:
    found = [
        Served(0.0, 10, [1.0, 2.0], [1, 1], (1, 2)),
        Served(1.0, 20, [2.0, 2.5, 4.0], [1, 1, 1], (3, 4, 5)),
    ]
    meter = GivenMeter(10.0, lambda: 0.0)
    row = row_of(found, 2.0, 2, 10.0, meter, Tariff(usd_per_kwh=0.36))
    assert (row.duration_s, row.req_s, row.tok_s) == (4.0, 0.5, 1.25)
    assert row.total_tok_s == pytest.approx(35 / 4)
    assert row.ttft_ms["mean"] == pytest.approx(1000)
    assert row.tpot_ms["mean"] == pytest.approx(1000)  # 1 s, and 2 s for two tokens
    assert row.itl_ms["mean"] == pytest.approx(1000)
    assert row.itl_ms["p99"] == pytest.approx(1490)  # of 500, 1000 and 1500
    assert row.e2el_ms["median"] == pytest.approx(2500)
    assert row.joules_per_token == pytest.approx(2.0)
    assert row.usd_per_mtok == pytest.approx(0.2)
    assert "2 requests, 2 a second by chance, 2 at once at most" in serving_table(row)


def test_a_spread() -> None:
    assert spread([]) == {}
    hundred = spread([i / 1000 for i in range(1, 101)])
    assert hundred == pytest.approx({"mean": 50.5, "median": 50.5, "p90": 90.1, "p99": 99.01})  # as numpy, so as vLLM


def test_a_real_run(tmp_path: Path) -> None:
    path = make_checkpoint(tmp_path / "m", max_position_embeddings=1024)
    how = {"name": "tiny", "parallel": 4, "rate": 200.0, "requests": 6, "seed": 3}
    config = EngineConfig(threads=1, draft="off")
    one, two = (run_poisson(path, config, **how, tariff=Tariff(watts=10)) for _ in range(2))  # type: ignore[arg-type]
    assert one.requests == 6
    assert one.output_hash == two.output_hash
    assert one.ttft_ms["p99"] >= one.ttft_ms["median"] > 0
    assert 1 <= one.most_at_once <= 6
    assert one.energy_source == "given"


def test_an_idle_engine_sleeps_until_the_next_one(tmp_path: Path) -> None:
    now, slept = [0.0], list[float]()

    def clock() -> float:
        now[0] += 1e-3
        return now[0]

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        now[0] += seconds

    asked = [Asked(5, 2), Asked(5, 2)]
    with open_engine(make_checkpoint(tmp_path / "m"), EngineConfig(threads=1, context=64, draft="off")) as engine:
        found, most = serve(engine, asked, [1.0, 50.0], 0, clock, sleep)
    assert most == 1
    assert [round(one) for one in slept] == [1, 49]
    assert all(one.tokens == 2 and one.times[0] >= one.arrived for one in found)
