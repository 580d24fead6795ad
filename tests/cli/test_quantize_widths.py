"""Mixed widths by the command: three bits by default, and the smallest model that keeps a divergence."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import Cli

QUICK = ("--method", "imatrix", "--tokens", "2048", "--threads", "1")


def made(cli: Cli, *argv: str) -> dict[str, Any]:
    ran = cli("quantize", *argv, "--json", "-q")
    assert ran.code == 0, ran.err
    found: dict[str, Any] = json.loads(ran.out)
    return found


def forms(path: str) -> set[tuple[int, int]]:
    recipe = json.loads((Path(path) / "localinfer.json").read_text())["recipe"]
    return {tuple(form) for name, form in recipe["forms"].items() if ".layers." in name}


def test_three_bits_are_a_mix_of_the_same_bytes(cli: Cli, mine: str) -> None:
    usual = made(cli, mine, "--bits", "3", "--no-report", *QUICK)
    assert len(forms(usual["path"])) > 1
    assert cli("rm", f"{mine}:INT3", "--yes").code == 0
    alike = made(cli, mine, "--bits", "3", "--uniform", "--no-report", *QUICK)
    assert not forms(alike["path"])
    assert alike["body_bits_per_weight"] - 0.2 < usual["body_bits_per_weight"] <= alike["body_bits_per_weight"]
    assert cli("rm", f"{mine}:INT3", "--yes").code == 0
    assert not forms(made(cli, mine, "--bits", "3", "--group", "32", "--no-report", *QUICK)["path"])
    assert cli("rm", f"{mine}:INT3", "--yes").code == 0
    ran = cli("quantize", mine, "--bits", "3", "--no-report", *QUICK)
    assert "layers get from 3 bits up, 3.5 bits a weight in all; `--uniform` makes them alike" in ran.err


def test_the_smallest_that_keeps_a_divergence(cli: Cli, mine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """In rounds that are told; stopped, it goes on with what is made; nothing but the model is left."""
    three = made(cli, mine, "--bits", "3", "--uniform", *QUICK)
    assert cli("rm", f"{mine}:INT3", "--yes").code == 0
    target = str(three["kld_mean"] / 2)
    from localinfer import evaluate

    real, calls = evaluate.report_on, list[str]()

    def counted(path: Path, *words: Any, **more: Any) -> Any:
        calls.append(path.name)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(path, *words, **more)

    monkeypatch.setattr(evaluate, "report_on", counted)
    argv = ("quantize", mine, "--target-kld", target, *QUICK)
    stopped = cli(*argv)
    assert stopped.code == 130
    assert "round 1: " in stopped.err
    assert "the same command goes on where it stopped" in stopped.err
    ran = cli(*argv, "--json")
    assert ran.code == 0, ran.err
    found = json.loads(ran.out)
    assert calls[2:4] == calls[:2]
    assert found["ref"] == f"{mine}:INT3"
    assert found["kld_mean"] <= float(target)
    assert three["body_bits_per_weight"] < found["body_bits_per_weight"] < 8
    assert json.loads((Path(found["path"]) / "localinfer.json").read_text())["quality"]["kld_mean"] == found["kld_mean"]
    assert {one.name for one in Path(found["path"]).parent.iterdir()} == {"BF16", "INT3"}
    assert cli("cache", "verify").code == 0


def test_a_divergence_that_cannot_be_kept(cli: Cli, mine: str) -> None:
    ran = cli("quantize", mine, "--target-kld", "0.000001", *QUICK)
    assert (ran.code, ran.out) == (2, "")
    assert "a KL divergence of 1e-06 cannot be kept: the best of " in ran.err
    assert "INT3" not in cli("list").out


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--bpw", "4"), "`--bpw` and `--target-kld` were both given"),
        (("--uniform",), "`--target-kld` and `--uniform` were both given"),
        (("--time-budget", "1h"), "`--time-budget` does not go with `--target-kld`"),
        (("--no-report",), "`--no-report` does not go with `--target-kld`"),
        (("--group", "64"), "`--group` does not go with `--target-kld`"),
        (("--refine", "kl"), "`--target-kld` measures before any training"),
    ],
)
def test_refusals(cli: Cli, mine: str, flags: tuple[str, ...], words: str) -> None:
    ran = cli("quantize", mine, "--target-kld", "0.1", *flags)
    assert (ran.code, ran.out) == (2, "")
    assert words in ran.err
