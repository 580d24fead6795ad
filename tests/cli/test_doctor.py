"""`doctor` says what is, and never fails for a part it cannot tell."""

import json
import re
from pathlib import Path

import pytest

from localinfer.cli.doctor import PACKAGES
from localinfer.engine.step_timing import ROWS
from localinfer.paths import step_timing_file
from tests.cli.conftest import Cli
from tests.tiny import make_checkpoint

MACHINE = {
    "cpu",
    "cores",
    "features",
    "kernels",
    "kernel",
    "why",
    "memory_bytes",
    "free_bytes",
    "read_bytes_per_s",
    "read_threads",
    "energy",
}


def test_json(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCALINFER_THREADS", "2")
    monkeypatch.setenv("LOCALINFER_THRAEDS", "2")
    report = json.loads(cli("doctor", "--json").out)
    assert report["machine"].keys() == MACHINE
    assert any(held.startswith("limits") for held in report["templates"]["held_by"])
    assert report["machine"]["kernel"] == report["machine"]["kernels"][-1]
    assert report["machine"]["why"] == "the best this CPU has"
    assert report["machine"]["read_bytes_per_s"] > 1e8
    assert report["version"]["numpy"]
    assert report["settings"]["threads"] == {"value": 2, "origin": "LOCALINFER_THREADS"}
    assert report["settings"]["temp"] == {"value": None, "origin": "default"}
    assert report["unknown_environment"] == ["LOCALINFER_THRAEDS"]


def test_for_a_person(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCALINFER_TEMP", "0.5")
    monkeypatch.setenv("LOCALINFER_ISA", "scalar")
    ran = cli("doctor")
    assert ran.code == 0
    for words in (
        "kernel        scalar, asked for by LOCALINFER_ISA (has scalar",
        "read speed    ",
        "localinfer              0.",
        "temp                    0.5  from LOCALINFER_TEMP",
        " settings are at their defaults",
    ):
        assert words in ran.out
    assert not [name for name in PACKAGES if not re.search(rf"^{name} +\S", ran.out, re.MULTILINE)]


def test_step_times(cli: Cli, tmp_path: Path) -> None:
    assert json.loads(cli("doctor", "--json").out)["steps"] == {"models": []}
    model = str(make_checkpoint(tmp_path / "m"))
    assert cli("run", model, "hello", "-n", "1", "-t", "1").code == 0
    (steps,) = json.loads(cli("doctor", "--json").out)["steps"]["models"]
    assert (steps["threads"], steps["threads_asked"], steps["kv_bits"]) == (1, 1, 8)
    assert list(steps["step_s"]) == list(map(str, ROWS))
    assert ", 1 thread: " in cli("doctor").out
    ran = cli("doctor", "--json", "--recalibrate")
    assert json.loads(ran.out)["steps"] == {"models": []}
    assert "forgot the step times of 1 model\n" in ran.err


def test_step_times_that_cannot_be_read(cli: Cli) -> None:
    step_timing_file().parent.mkdir(parents=True, exist_ok=True)
    step_timing_file().write_text("{}")
    assert f"step times    {step_timing_file()}: is no list" in cli("doctor").out
    assert cli("doctor", "--recalibrate", "-q").err == ""
    assert "step times" not in cli("doctor").out


def test_parts_that_cannot_be_told_are_named(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCALINFER_ISA", "altivec")
    monkeypatch.setenv("LOCALINFER_THREADS", "many")
    ran = cli("doctor")
    assert ran.code == 0
    assert "problem       LOCALINFER_ISA is 'altivec'" in ran.out
    assert "settings: LOCALINFER_THREADS is 'many'" in ran.out
    assert "numpy" in ran.out


def test_what_the_cache_loses_of_a_model(cli: Cli, tmp_path: Path) -> None:
    model = str(make_checkpoint(tmp_path / "m", "qwen3", max_position_embeddings=64, head_dim=32))
    found = json.loads(cli("doctor", model, "--json").out)["cache"]
    assert [one["kv_bits"] for one in found["losses"]] == [8, 4]
    assert 0 < found["losses"][0]["kld_mean"] < found["losses"][1]["kld_mean"]
    assert found["losses"][0]["layers"] == [8, 8]
    assert "8-bit cache   loses 0.0" in cli("doctor", model).out
    assert cli("doctor", str(tmp_path / "none")).code == 4


def test_heads_that_4_bits_cannot_hold_are_left_out(cli: Cli, tmp_path: Path) -> None:
    model = str(make_checkpoint(tmp_path / "m", max_position_embeddings=64))
    assert [one["kv_bits"] for one in json.loads(cli("doctor", model, "--json").out)["cache"]["losses"]] == [8]
