"""`eval`, and the report at the end of `quantize`; what the figures mean is tested with the room itself."""

import json
from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread

from tests.cli.conftest import Cli

KEYS = {
    "model",
    "reference",
    "bits_per_weight",
    "size_bytes",
    "ppl",
    "ppl_reference",
    "kld_mean",
    "kld_se",
    "kld_median",
    "kld_p99",
    "kld_floor",
    "top1_agreement",
    "seconds",
    "peak_bytes",
}


@pytest.fixture
def text(tmp_path: Path) -> str:
    path = tmp_path / "text.txt"
    path.write_text("There is nothing in the box, and the box is on the table. " * 20)
    return str(path)


@pytest.fixture
def small(cli: Cli, mine: str) -> str:
    assert cli("quantize", mine, "--bits", "4", "--method", "rtn", "--no-report").code == 0
    return f"{mine}:INT4"


def test_one_model_is_one_object(cli: Cli, mine: str, small: str, text: str) -> None:
    ran = cli("eval", small, "--against", mine, "--text", text, "--ctx", "64", "--chunks", "3", "--json", "-q")
    assert (ran.code, ran.err) == (0, "")
    found = json.loads(ran.out)
    assert found.keys() >= KEYS
    assert (found["model"], found["reference"]) == (small, f"{mine}:BF16")
    assert (found["ctx"], found["chunks"], found["tokens"]) == (64, 3, 93)
    assert 0 < found["kld_mean"] < 1
    again = json.loads(
        cli("eval", small, "--against", mine, "--text", text, "--ctx", "64", "--chunks", "3", "--json", "-q").out
    )
    assert all(again[key] == found[key] for key in found.keys() - {"seconds", "peak_bytes"})


def test_several_models_and_a_picture(cli: Cli, mine: str, small: str, text: str, tmp_path: Path) -> None:
    picture = tmp_path / "out.png"
    assert cli("quantize", mine, "--bits", "3", "--method", "rtn", "--no-report").code == 0
    models = [small, f"{mine}:INT3", f"{mine}:BF16"]
    argv = ("eval", *models, "--against", mine, "--text", text, "--ctx", "64", "--kv-bits", "16")
    found = json.loads(cli(*argv, "--json", "-q").out)
    assert [row["model"] for row in found] == models
    assert found[0]["kld_mean"] < found[1]["kld_mean"]
    assert (found[2]["kld_mean"], found[2]["top1_agreement"], found[2]["kld_floor"]) == (0, 1, 0)
    ran = cli(*argv, "--plot", str(picture))
    assert ran.out.startswith("| model ")
    assert f"reference {mine}:BF16: ppl " in ran.out
    pixels = imread(picture, format="png")
    assert pixels.shape[:2] == (600, 960)
    assert len(np.unique(pixels.reshape(-1, pixels.shape[2]), axis=0)) > 10


def test_perplexity_alone(cli: Cli, small: str) -> None:
    found = json.loads(cli("eval", small, "--chunks", "1", "--json", "-q").out)
    assert found["ppl"] > 1
    assert found["kld_mean"] is found["reference"] is found["ppl_reference"] is None
    assert "reference" not in cli("eval", small, "--chunks", "1", "-q").out


@pytest.mark.parametrize(
    ("flags", "code", "words"),
    [
        (["--text", "no.such"], 4, "no.such: no such file or directory"),
        (["--ctx", "513"], 2, "made for 512"),
        (["--ctx", "4"], 2, "--ctx is 4, but must lie between 8"),
        (["--plot", "x.png"], 2, "`--plot` draws divergences"),
        (["--against", "nobody/nothing"], 4, "nobody/nothing"),
    ],
)
def test_refusals(cli: Cli, mine: str, flags: list[str], code: int, words: str) -> None:
    ran = cli("eval", mine, *flags)
    assert (ran.code, ran.out) == (code, "")
    assert words in ran.err
    assert "hint: " in ran.err


def test_a_picture_is_a_png(cli: Cli, mine: str, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What keeps it from being drawn is said before anything is measured."""

    def never(*_: object, **__: object) -> None:
        raise AssertionError

    monkeypatch.setattr("localinfer.evaluate.evaluate", never)
    argv = ("eval", mine, "--against", mine, "--text", text, "--ctx", "64", "--plot")
    ran = cli(*argv, "x.svg")
    assert (ran.code, ran.out) == (2, "")
    assert "`x.svg` says otherwise" in ran.err
    ran = cli(*argv, "no.such/x.png")
    assert (ran.code, ran.out) == (4, "")
    assert "no.such: no such folder" in ran.err
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    ran = cli(*argv, "x.png")
    assert (ran.code, ran.out) == (5, "")
    assert "drawing needs matplotlib" in ran.err
    assert "pip install 'localinfer[plot]'" in ran.err


def test_quantize_says_what_it_lost(cli: Cli, mine: str, isolated: Path) -> None:
    made = json.loads(cli("quantize", mine, "--bits", "8", "--json", "-q").out)
    assert made.keys() >= KEYS - {"model"}
    assert made["ref"] == f"{mine}:INT8"
    kept = json.loads((Path(made["path"]) / "localinfer.json").read_text())["quality"]
    assert {key: made[key] for key in kept} == kept
    assert kept["kld_mean"] < 0.01
    report = json.loads((Path(made["path"]) / "localinfer.json").read_text())["report"]
    assert report.keys() >= {"bits_per_weight", "size_bytes", "worst_tensors", "seconds", "peak_bytes"}
    assert {key: made[key] for key in report} == report
    assert cli("cache", "verify").code == 0
    ran = cli("quantize", mine, "--bits", "3", "--method", "rtn")
    first, second, third = ran.out.splitlines()
    assert first.startswith(f"{mine}:INT3  ")
    assert second.startswith("ppl ")
    assert third.startswith("worst tensors: model.layers.")


def test_a_report_that_does_not_fit_is_no_failure(cli: Cli, mine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("localinfer.evaluate.run.available_bytes", lambda: 1000)
    ran = cli("quantize", mine, "--bits", "4", "--method", "rtn")
    assert ran.code == 0
    assert "not measured: these 2 models need " in ran.err
    assert f"`localinfer eval {mine}:INT4 --against {mine}:BF16` measures it" in ran.err


def test_an_interrupted_report_keeps_the_model(cli: Cli, mine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("localinfer.evaluate.run._read_chunk", interrupt)
    ran = cli("quantize", mine, "--bits", "4", "--method", "rtn")
    assert ran.code == 130
    assert f"`{mine}:INT4` is made, but was not measured" in ran.err
    assert cli("show", f"{mine}:INT4").code == 0
