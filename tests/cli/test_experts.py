"""`--experts`: what does not fit is read from disk, which is said before it is loaded, and the answer is the same."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from localinfer.cost.fit import estimate
from localinfer.cost.machine import kept
from localinfer.cost.mapped import mapped
from localinfer.paths import experts_dir
from tests.cli.conftest import Cli
from tests.tiny import make_checkpoint

RUN = ("--json", "--temp", "0", "-t", "1", "-c", "128", "--max-tokens", "8", "--draft", "off")
ROOM = 3_000_000
"""Bytes of memory that lack."""


@pytest.fixture
def ref(isolated: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr("localinfer.cost.fit.PAGES", Path("/nowhere"))  # a huge page would hold all of it
    monkeypatch.setattr("localinfer.cost.disk.PROBE_BYTES", 4 << 20)
    folder = isolated / "localinfer" / "models" / "me--experts" / "BF16"
    make_checkpoint(folder, "qwen3_moe", num_experts=64, num_hidden_layers=4, moe_intermediate_size=96)
    return "me/experts"


def needs(isolated: Path, **how: Any) -> Any:
    folder = isolated / "localinfer" / "models" / "me--experts" / "BF16"
    return estimate(folder, context=128, free_bytes=1 << 40, ahead=False, **how)


def tokens(cli: Cli, *argv: str) -> tuple[list[int], dict[str, Any] | None, str]:
    ran = cli("run", *argv, *RUN)
    assert ran.code == 0, ran.err
    said = json.loads(ran.out)
    return said["token_ids"], said["experts"], ran.err


def test_what_does_not_fit_is_mapped_and_says_so(
    cli: Cli, ref: str, isolated: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    meant, experts, _ = tokens(cli, ref, "hi")
    assert experts is None
    need = needs(isolated)
    monkeypatch.setattr("localinfer.cost.fit.available_bytes", lambda: need.total_bytes - ROOM)
    found, experts, said = tokens(cli, ref, "hi")
    assert found == meant
    assert experts is not None
    assert experts["bytes"] == need.experts.nbytes > need.experts.layer_bytes * 3
    assert 0 < experts["held_bytes"] < experts["bytes"] - ROOM
    assert experts["read_bytes"] >= experts["held_bytes"]
    assert f"`{ref}:BF16` needs" in said
    assert "of experts are held, the others read from" in said
    assert " tok/s or more, as the disk gives " in said
    assert said.index("of experts are held") < said.index("on cpu")
    ran = cli("run", ref, "hi", "--experts", "resident", *RUN)
    assert (ran.code, "leave out `--experts resident`" in ran.err) == (3, True)
    monkeypatch.setattr("localinfer.cost.fit.available_bytes", lambda: need.total_bytes - need.experts.nbytes)
    ran = cli("run", ref, "hi", *RUN)
    assert (ran.code, "with its experts on disk, but" in ran.err) == (3, True)


def test_experts_can_be_mapped_where_all_fit(cli: Cli, ref: str) -> None:
    meant, _, _ = tokens(cli, ref, "hi", "--experts", "resident")
    found, experts, said = tokens(cli, ref, "hi", "--experts", "mapped")
    assert found == meant
    assert experts is not None
    assert "needs" not in said
    (file,) = experts_dir().iterdir()
    assert file.stat().st_size == experts["bytes"] + 4096
    again, _, _ = tokens(cli, ref, "hi", "--experts", "mapped")
    assert again == meant
    ran = cli("run", ref, "hi", "--experts", "mapped", "--stats", "--max-tokens", "4", "-t", "1", "-c", "128")
    assert "held, " in ran.err
    listed = json.loads(cli("cache", "prune", "--dry-run", "--json").out)
    assert str(file) in [one["path"] for one in listed["leftovers"]]
    assert cli("cache", "prune").code == 0
    assert not file.exists()


def test_a_model_without_experts_has_none_to_map(cli: Cli, mine: str) -> None:
    ran = cli("run", mine, "hi", "--experts", "mapped")
    assert (ran.code, "has no experts that could be mapped" in ran.err) == (2, True)
    assert cli("run", mine, "hi", "--experts", "elsewhere").code == 2


def test_fit_tells_of_experts_on_disk(cli: Cli, ref: str, isolated: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def said() -> dict[str, Any]:
        ran = cli("fit", f"{ref}:BF16", "-t", "1", "-c", "128", "--draft", "off", "--json")
        assert ran.code == 0
        return json.loads(ran.out)["forms"][0]  # type: ignore[no-any-return]

    whole = said()
    assert (whole["fits"], whole["mapped_fits"]) == (True, True)
    assert whole["disk_bytes"] == 0
    assert not kept("disk")  # nothing has to be read from it, so it was not measured
    assert whole["mapped_held_bytes"] == whole["experts_bytes"] == needs(isolated).experts.nbytes
    free = whole["total_bytes"] - ROOM
    monkeypatch.setattr("localinfer.cost.fit.available_bytes", lambda: free)
    part = said()
    assert (part["fits"], part["mapped_fits"]) == (False, True)
    assert part["mapped_held_bytes"] < part["experts_bytes"] - ROOM
    assert part["mapped_bytes"] <= free
    assert 0 < part["mapped_tok_s"] < whole["mapped_tok_s"]
    assert part["disk_bytes"] == part["experts_bytes"]  # the model is here, its packed experts are not
    assert kept("disk")
    table = cli("fit", f"{ref}:BF16", "-t", "1", "-c", "128", "--draft", "off").out
    assert "| part |" in table
    assert "of experts in memory and all of them in a file on disk, counted there" in table
    assert "`--experts` changes nothing that `fit` tells" in cli("fit", ref, "--experts", "mapped").err


def test_a_model_that_speaks_to_be_calibrated_says_where_its_experts_are(
    cli: Cli, ref: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def tight(*args: Any, **how: Any) -> Any:
        found = estimate(*args, **how)
        return replace(found, free_bytes=found.total_bytes - ROOM)

    argv = ("quantize", ref, "--bits", "4", "--method", "imatrix", "--tokens", "2048", "--no-report", "--calib", "self")
    monkeypatch.setattr("localinfer.cost.fit.estimate", tight)
    ran = cli(*argv, "--threads", "1")
    assert ran.code == 0, ran.err
    assert "of experts are held, the others read from" in ran.err


def test_the_disk_is_measured_once(ref: str, isolated: Path) -> None:
    from localinfer.cost.disk import disk_bandwidth

    first = disk_bandwidth(experts_dir())
    assert first > 0
    assert abs(disk_bandwidth(experts_dir()) - first) < 1
    assert list(isolated.rglob("*.tmp")) == []
    fit = needs(isolated)
    found = mapped(fit, held_bytes=fit.experts.layer_bytes)
    assert found is not None
    assert found.read_s(1e9) == pytest.approx(fit.experts.token_bytes * 0.75 / 1e9)
    assert found.read_s(0) == 0
