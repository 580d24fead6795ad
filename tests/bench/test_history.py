"""Results are kept, found again, drawn, and never lost for a file that is damaged or cannot be written."""

import json
from pathlib import Path
from typing import Any

import pytest

from localinfer.bench import history
from localinfer.bench.fitting import benched
from localinfer.errors import NotFound
from localinfer.paths import bench_file


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LOCALINFER_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def report(tok_s: float, model: str = "me/m:INT4", **row: Any) -> dict[str, Any]:
    usual = {"test": "tg8", "tok_s": tok_s, "tok_s_median": tok_s, "draft": "off", "batch": 1, "threads": 2}
    fields = {"joules_per_token": 0.5, "energy_source": "estimate", "usd_per_mtok": 0.028, "output_hash": "0123456789"}
    return {"machine": {"cpu": "x"}, "model": {"name": model}, "rows": [{**usual, **fields, **row}]}


def test_a_line_a_run() -> None:
    assert history.kept() == ([], 0)
    assert history.keep(report(10.0), command="localinfer bench m") == ""
    assert history.keep(report(20.0, "me/other"), command="c") == ""
    found, damaged = history.kept("me/m:INT4")
    assert (len(found), damaged) == (1, 0)
    assert found[0]["command"] == "localinfer bench m"
    assert len(history.kept()[0]) == 2
    assert bench_file().stat().st_mode & 0o777 == 0o600


def test_damaged_lines_are_counted_and_looked_over() -> None:
    history.keep(report(10.0), command="c")
    with bench_file().open("ab") as file:
        file.write(b'{"at": 3}\n[]\n{\n\xff\n' + b"[" * 100_000 + b"\n")
    history.keep(report(11.0), command="c")
    found, damaged = history.kept()
    assert [row["rows"][0]["tok_s"] for row in found] == [10.0, 11.0]
    assert damaged == 5


def test_a_home_that_cannot_be_written_is_told(home: Path) -> None:
    home.parent.mkdir(exist_ok=True)
    home.write_text("a file")
    assert "bench.jsonl" in history.keep(report(1.0), command="c")


def test_the_last_one() -> None:
    with pytest.raises(NotFound, match="no benchmark of `me/m:INT4`"):
        history.last("me/m:INT4")
    for speed in (10.0, 12.0):
        history.keep(report(speed), command="c")
    assert history.last("me/m:INT4")["rows"][0]["tok_s"] == 12.0


def test_what_a_person_sees() -> None:
    for speed in (10.0, 12.0):
        history.keep(report(speed), command="c")
    found, _ = history.kept()
    text = history.history_table(found)
    assert "| me/m:INT4 | tg8 | 12.0 | ≈0.5 | ≈$0.028 | 01234567 |" in text
    drawn = history.history_plot(found, width=80)
    assert "tg8" in drawn
    assert "\x1b" not in drawn
    assert max(map(len, drawn.splitlines())) <= 80
    assert history.history_plot(found[:1], width=80) == ""


def test_a_benchmark_replaces_a_calibration() -> None:
    assert benched(history.kept()[0], "me/m:INT4", "x", threads=2) is None
    history.keep(report(10.0), command="c")
    history.keep(report(50.0, test="tg8@d64"), command="c")
    history.keep(report(60.0, draft="auto"), command="c")
    assert benched(history.kept()[0], "me/m:INT4", "x", threads=2) == pytest.approx(0.1)
    assert benched(history.kept()[0], "me/m:INT4", "x", threads=1) is None
    assert benched(history.kept()[0], "me/m:INT4", "another", threads=2) is None


def test_every_line_is_json() -> None:
    history.keep(report(10.0), command="c")
    assert [json.loads(line)["version"] for line in bench_file().read_text().splitlines()]
