"""The table tool: what it makes is kept, what was cut short is not taken for whole."""

from pathlib import Path

import pytest

from localinfer.evaluate import held_out_text
from tests.tiny import make_checkpoint
from tools.quality import table


@pytest.fixture
def fair(tmp_path: Path) -> Path:
    make_checkpoint(tmp_path / "fair" / "model")
    (tmp_path / "fair" / "f16.gguf").write_bytes(b"weights")
    return tmp_path / "fair"


def tools(folder: Path, script: str) -> Path:
    """`llama-imatrix` and `llama-quantize` that do what `script` says."""
    folder.mkdir()
    for name in ("llama-imatrix", "llama-quantize"):
        (folder / name).write_text(f"#!/bin/sh\n{script}\n")
        (folder / name).chmod(0o755)
    return folder


def test_ours(fair: Path, tmp_path: Path) -> None:
    entry = table.ours(fair, tmp_path, "4:32:rtn")
    assert table.ours(fair, tmp_path, "4:32:rtn") == entry
    ((measured, quality),) = table.measure([entry], fair, held_out_text(), 64, 2)
    cells = [cell.strip() for cell in table.row(measured, quality).strip("|").split("|")]
    assert cells[:3] == ["INT4 rtn, groups of 32", "4.50", f"{quality.bits_per_weight:.2f}"]
    assert cells[4] == f"{quality.kld_mean:.4f} ± {quality.kld_se:.4f}"
    assert table.HEAD.splitlines()[0].count("|") == table.row(measured, quality).count("|")


@pytest.mark.parametrize("size", ["4bpw", "90KB"])
def test_ours_of_a_size(fair: Path, tmp_path: Path, size: str) -> None:
    """Widths are mixed, as `--bpw` and `--target-size` do it."""
    entry = table.ours(fair, tmp_path, f"3:{size}:rtn", threads=1)
    assert entry.method == f"INT3 rtn, mixed for {size}"
    ((_, quality),) = table.measure([entry], fair, held_out_text(), 64, 2)
    assert 3.5 < quality.body_bits_per_weight <= 4.01 if size == "4bpw" else 85_000 < quality.size_bytes <= 90_000


def test_theirs(fair: Path, tmp_path: Path) -> None:
    """Each tool is run once, with the file to write where it belongs."""
    log = tmp_path / "log"
    made = tools(
        tmp_path / "bin", f'echo "$0 $@" >> {log}; for word; do case $word in */part-*) echo x > $word;; esac; done'
    )
    entry = table.theirs(fair, tmp_path, made, "Q4_0")
    assert table.theirs(fair, tmp_path, made, "Q4_0") == entry
    first, second = log.read_text().splitlines()
    assert first.endswith(f"-c 512 --no-ppl -o {tmp_path}/part-imatrix.gguf")
    assert second.endswith(f"{fair}/f16.gguf {tmp_path}/part-Q4_0.gguf Q4_0")
    assert (tmp_path / "imatrix.gguf").exists()
    assert entry.path == tmp_path / "Q4_0.gguf"
    assert "leaves change colour" in (tmp_path / "calibration.txt").read_text()


def test_a_tool_that_fails_leaves_nothing(fair: Path, tmp_path: Path) -> None:
    broken = tools(tmp_path / "bin", "echo no such luck >&2; exit 3")
    with pytest.raises(SystemExit, match="no such luck"):
        table.theirs(fair, tmp_path, broken, "Q4_0")
    assert not (tmp_path / "imatrix.gguf").exists()
