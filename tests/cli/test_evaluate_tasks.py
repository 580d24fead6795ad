"""`eval --tasks`: right answers of a tiny model, which has few; what items mean is tested with the room itself."""

import json

import pytest

from tests.cli.conftest import Cli

KEYS = {"model", "reference", "kv_bits", "tasks", "tokens", "needle_tokens", "seconds", "items_seed", "peak_bytes"}
OF_TASK = {
    *("right", "items", "low", "high", "cut", "reference_right", "lost", "won"),
    *("difference", "difference_low", "difference_high"),
}


def test_models_beside_their_original(cli: Cli, mine: str) -> None:
    assert cli("quantize", mine, "--bits", "4", "--method", "rtn", "--no-report").code == 0
    models = [f"{mine}:INT4", f"{mine}:BF16"]
    argv = ("eval", *models, "--against", mine, "--tasks", "arithmetic", "--items", "3")
    ran = cli(*argv, "--json", "-q")
    assert (ran.code, ran.err) == (0, "")
    found = json.loads(ran.out)
    assert [row["model"] for row in found] == models
    for row in found:
        assert row.keys() == KEYS
        assert row["tasks"].keys() == {"arithmetic"}
        task = row["tasks"]["arithmetic"]
        assert task.keys() == OF_TASK
        assert task["items"] == 3
        assert 0 <= task["low"] <= task["right"] / 3 <= task["high"] <= 1
        assert task["difference"] == (task["won"] - task["lost"]) / 3
        assert task["right"] == task["reference_right"] - task["lost"] + task["won"]
    lines = cli(*argv, "-q").out.splitlines()
    assert lines[0].startswith("| model ")
    assert [line.split("|")[1].strip() for line in lines[2:4]] == models


def test_one_model_alone_is_one_object(cli: Cli, mine: str) -> None:
    ran = cli("eval", mine, "--tasks", "arithmetic", "--items", "2", "--json", "-q")
    found = json.loads(ran.out)
    task = found["tasks"]["arithmetic"]
    assert found["reference"] is task["reference_right"] is task["difference"] is None
    assert found["needle_tokens"] is None


@pytest.mark.parametrize(
    ("flags", "code", "words"),
    [
        (["--tasks", "sums"], 2, "tasks is 'sums', but must be one of arithmetic, code, needle, json, all"),
        (["--tasks", "all", "--ctx", "64"], 2, "`--ctx` does not go with `--tasks`"),
        (["--items", "5"], 2, "`--items` counts those of tasks"),
        (["--tasks", "all", "--items", "101"], 2, "--items is 101"),
        (["--tasks", "needle"], 2, "the task `needle` needs more context than 512 tokens"),
        (["--tasks", "json"], 8, "json-0"),
    ],
)
def test_refusals(cli: Cli, mine: str, flags: list[str], code: int, words: str) -> None:
    ran = cli("eval", mine, *flags)
    assert (ran.code, ran.out) == (code, "")
    assert words in ran.err
    assert "hint: " in ran.err


def test_code_is_refused_where_it_cannot_be_locked_in(cli: Cli, mine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("localinfer.tasks.code_box.run", lambda *_: {"held": ["limits (cpu)"]})
    ran = cli("eval", mine, "--tasks", "all")
    assert (ran.code, ran.out) == (5, "")
    assert "the task `code` is not run here" in ran.err
