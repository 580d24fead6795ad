"""Results are kept, found again, drawn, and never lost for a file that is damaged or cannot be written."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from localinfer.bench import history
from localinfer.bench.measured import benched, benched_watts
from localinfer.errors import NotFound
from localinfer.paths import bench_file


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LOCALINFER_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def report(tok_s: float, model: str = "me/m:INT4", **row: Any) -> dict[str, Any]:
    usual = {
        "test": "tg8",
        "tok_s": tok_s,
        "tok_s_median": tok_s,
        "draft": "off",
        "batch": 1,
        "threads": 2,
        "isa": "avx2",
    }
    fields = {"joules_per_token": 0.5, "energy_source": "estimate", "usd_per_mtok": 0.028, "output_hash": "0123456789"}
    return {"machine": {"cpu": "x"}, "model": {"name": model}, "rows": [{**usual, **fields, **row}]}


def test_a_line_a_run() -> None:
    assert history.reports() == ([], 0)
    assert history.keep(report(10.0), command="localinfer bench m") == ""
    assert history.keep(report(20.0, "me/other"), command="c") == ""
    found, damaged = history.reports("me/m:INT4")
    assert (len(found), damaged) == (1, 0)
    assert found[0]["command"] == "localinfer bench m"
    assert len(history.reports()[0]) == 2
    assert bench_file().stat().st_mode & 0o777 == 0o600


def test_damaged_lines_are_counted_and_looked_over() -> None:
    history.keep(report(10.0), command="c")
    with bench_file().open("ab") as file:
        file.write(b'{"at": 3}\n[]\n{\n\xff\n' + b"[" * 100_000 + b"\n")
    history.keep(report(11.0), command="c")
    found, damaged = history.reports()
    assert [row["rows"][0]["tok_s"] for row in found] == [10.0, 11.0]
    assert damaged == 5


@pytest.mark.parametrize(
    "odd",
    [
        {"rows": [{"test": "tg8", "tok_s": 1.0, "joules_per_token": "much"}]},
        {"rows": [{"test": "tg8", "tok_s": "fast"}]},
        {"rows": [{"test": "tg8", "tok_s": float("inf")}]},
        {"rows": [{"test": "tg8", "tok_s": 10**400}]},
        {"rows": [3]},
        {"rows": 3},
        {"machine": None},
        {"model": {"name": 3}},
    ],
)
def test_a_line_whose_figures_cannot_be_shown_is_left_out(odd: dict[str, Any]) -> None:
    history.keep({**report(10.0), **odd}, command="c")
    history.keep(report(11.0), command="c")
    found, damaged = history.reports()
    assert ([one["rows"][0]["tok_s"] for one in found], damaged) == ([11.0], 1)


def test_a_line_that_was_cut_short_takes_no_other_with_it() -> None:
    history.keep(report(10.0), command="c")
    with bench_file().open("r+b") as file:
        file.truncate(bench_file().stat().st_size - 20)
    history.keep(report(11.0), command="c")
    found, damaged = history.reports()
    assert ([row["rows"][0]["tok_s"] for row in found], damaged) == ([11.0], 1)


def test_a_full_disk_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    write = os.write
    monkeypatch.setattr(os, "write", lambda handle, line: write(handle, line[:10]))
    assert "no space left" in history.keep(report(10.0), command="c")


def test_the_ablation_of_a_model_belongs_to_each_of_its_forms() -> None:
    history.keep({"model": {"name": "me/m"}, "rows": [], "ladder": [{"name": "INT4", "tok_s": 9.0}]}, command="c")
    history.keep(report(10.0, "me/m"), command="c")
    assert "| INT4 | 9.0 |" in history.history_table(history.reports("me/m:INT4")[0])
    assert len(history.reports("me/m:INT4")[0]) == 1
    assert len(history.reports("me/m")[0]) == 2


def test_answers_to_real_prompts_are_kept() -> None:
    row = {"test": "chat", "draft": "auto", "tok_s": 9.0, "output_hash": "ab"}
    history.keep({"model": {"name": "me/m"}, "answers": [row]}, command="c")
    assert "| chat auto | 9.0 | – | – | ab |" in history.history_table(history.reports("me/m")[0])


def test_a_home_that_cannot_be_written_is_told(home: Path) -> None:
    home.parent.mkdir(exist_ok=True)
    home.write_text("a file")
    assert "bench.jsonl" in history.keep(report(1.0), command="c")


def test_the_last_one() -> None:
    with pytest.raises(NotFound, match="no benchmark of `me/m:INT4`"):
        history.last("me/m:INT4", ["tg8"])
    for speed in (10.0, 12.0):
        history.keep(report(speed), command="c")
    history.keep(report(13.0, draft="auto"), command="c")
    history.keep({"model": {"name": "me/m:INT4"}, "answers": [{"test": "tg8", "tok_s": 14.0}]}, command="c")
    assert history.last("me/m:INT4", ["tg8"])["rows"][0]["tok_s"] == 12.0
    assert history.last("me/m:INT4", ["pp4", "tg8 auto"])["rows"][0]["tok_s"] == 13.0


def test_what_a_person_sees() -> None:
    for speed in (10.0, 12.0):
        history.keep(report(speed), command="c")
    found, _ = history.reports()
    text = history.history_table(found)
    assert "| me/m:INT4 | tg8 | 12.0 | ≈0.5 | ≈$0.028 | 01234567 |" in text
    drawn = history.history_plot(found, width=80)
    assert "tg8" in drawn
    assert "\x1b" not in drawn
    assert max(map(len, drawn.splitlines())) <= 80
    assert history.history_plot(found[:1], width=80) == ""


def test_a_benchmark_replaces_a_step_timing() -> None:
    assert benched(history.reports()[0], "me/m:INT4", "x", "avx2", threads=2) is None
    history.keep(report(10.0), command="c")
    history.keep(report(50.0, test="tg8@d64"), command="c")
    history.keep(report(60.0, draft="auto"), command="c")
    history.keep(report(70.0, isa="scalar"), command="c")
    found = history.reports()[0]
    assert benched(found, "me/m:INT4", "x", "avx2", threads=2) == pytest.approx(0.1)
    assert benched(found, "me/m:INT4", "x", "avx2", threads=1) is None
    assert benched(found, "me/m:INT4", "another", "avx2", threads=2) is None


def test_watts_are_those_of_as_many_texts_and_never_an_estimate() -> None:
    history.keep(report(10.0), command="c")
    assert benched_watts(history.reports()[0], "me/m:INT4", "x", streams=1) is None
    history.keep(report(20.0, energy_source="rapl", joules_per_token=2.0), command="c")
    history.keep(report(80.0, energy_source="rapl", joules_per_token=1.0, batch=8), command="c")
    found = history.reports()[0]
    assert benched_watts(found, "me/m:INT4", "x", streams=1) == pytest.approx(40)
    assert benched_watts(found, "me/m:INT4", "x", streams=8) == pytest.approx(80)
    assert benched_watts(found, "me/m:INT4", "x", streams=4) == pytest.approx(80)
    assert benched_watts(found, "me/m:INT4", "another", streams=1) is None


def test_every_line_is_json() -> None:
    history.keep(report(10.0), command="c")
    assert [json.loads(line)["version"] for line in bench_file().read_text().splitlines()]
