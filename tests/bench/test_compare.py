"""Two reports side by side."""

import json
from pathlib import Path
from typing import Any

import pytest

from localinfer.bench.compare import compare, comparison_table, fail_on_drops, read_report
from localinfer.errors import Corrupt, LocalInferError, UsageError


def report(speeds: dict[str, float], ratios: dict[str, float], cpu: str = "A") -> dict[str, Any]:
    return {
        "machine": {"cpu": cpu, "cores": 2, "isa": "avx2"},
        "model": {"name": "m"},
        "rows": [*({"test": t, "tok_s_median": v} for t, v in speeds.items()), {"n_rows": 8, "tok_s": 50.0}],
        "peers": [{"test": test, "ratio": value} for test, value in ratios.items()],
    }


OLD = report({"pp256": 200.0, "tg128": 30.0, "tg64": 31.0}, {"pp256": 2.5, "tg128": 2.0})


def test_figures_of_both() -> None:
    found = compare(OLD, report({"pp256": 100.0, "tg128": 33.0, "tg8": 1.0}, {"pp256": 2.6, "tg128": 1.9}, "B"), "old")
    assert {change.what: change.ratio for change in found.speeds} == {
        "pp256": 0.5,
        "tg128": pytest.approx(1.1),
        "8 rows": 1.0,
    }
    assert found.notes == ("another cpu: A then, B now", "tg64 is only in old", "tg8 is new")
    assert found.drops(0.1) == []
    fail_on_drops(found, 0.1)
    text = comparison_table(found, "old")
    assert "pp256: 0.50 x (200.0 t/s then, 100.0 now)" in text
    assert "tg128: 1.90 x the other engine, 2.00 then (-5%)" in text


def test_a_drop_is_named() -> None:
    found = compare(OLD, report({"pp256": 400.0, "tg128": 60.0}, {"pp256": 2.5, "tg128": 1.7}), "old")
    assert [change.what for change in found.drops(0.1)] == ["tg128"]
    with pytest.raises(LocalInferError, match=r"by more than 10%: tg128 from 2\.00 to 1\.70"):
        fail_on_drops(found, 0.1)
    fail_on_drops(found, 0.2)


def test_nothing_in_common() -> None:
    with pytest.raises(UsageError, match="no test in common"):
        compare(report({"pp1": 1.0}, {}) | {"rows": [{"test": "pp1", "tok_s": 1.0}]}, OLD, "old")
    found = compare(OLD, report({"pp256": 1.0}, {}), "old")
    assert "pp256 ran against another engine only then" in found.notes
    with pytest.raises(UsageError, match="no ratio"):
        fail_on_drops(found, 0.1)


def test_rows_with_drafts_are_others_than_those_without() -> None:
    rows = [{"test": "tg8", "draft": way, "tok_s": tok_s} for way, tok_s in (("off", 10.0), ("auto", 20.0))]
    both, plain = report({}, {}) | {"rows": rows}, report({}, {}) | {"rows": rows[:1]}
    found = compare(both, plain, "old")
    assert {change.what: change.ratio for change in found.speeds} == {"tg8": 1.0}
    assert found.notes[0] == "tg8 auto is only in old"


def test_what_ran_in_another_way_is_told() -> None:
    one, two = (
        report({}, {}) | {"rows": [{"test": "tg8", "tok_s": 1.0, "threads": threads, "kv_bits": 8}]}
        for threads in (1, 2)
    )
    assert compare(one, two, "old").notes == ("another number of threads: 1 then, 2 now",)


def test_files(tmp_path: Path) -> None:
    path = tmp_path / "kept.jsonl"
    newer = report({"pp256": 1.0}, {})
    path.write_text(json.dumps(OLD) + "\n" + json.dumps(newer) + "\n")
    assert read_report(path) == newer
    assert read_report(path, like={"cpu": "A"}) == newer
    other = report({"pp256": 3.0}, {}, cpu="B")
    path.write_text("\n".join(map(json.dumps, (OLD, other, newer, report({}, {}, cpu="C")))))
    assert read_report(path, like={"isa": "avx2", "cpu": "B"}) == other
    assert read_report(path, like={"isa": "avx2", "cpu": "A"}) == newer
    assert read_report(path, like={"isa": "neon", "cpu": "D"}) == report({}, {}, cpu="C")
    path.write_text(json.dumps(OLD, indent=2))
    assert read_report(path) == OLD
    for wrong in ("", "[]", "{", '{"rows": 3}', '{"rows": [3]}', '{"rows": [], "machine": 1}', "\x00"):
        path.write_text(wrong)
        with pytest.raises(Corrupt, match="holds no report"):
            read_report(path)
