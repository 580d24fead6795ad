"""The microbenchmark of kernels runs, and says what it measured."""

import json
from pathlib import Path

import pytest

from localinfer import native
from tools import bench_kernels


def test_every_kind_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(bench_kernels, "FROM_MEMORY", 1 << 20)
    bench_kernels.main(["--rows", "1", "3", "--columns", "256", "--passes", "1", "--json", str(tmp_path / "k.json")])
    told = json.loads((tmp_path / "k.json").read_text(encoding="utf-8"))
    cells = told["cells"]
    threads = len({1, native.physical_cores()})
    assert len(cells) == len(bench_kernels.KINDS) * 2 * threads * 3
    assert {cell["isa"] for cell in cells} == {native.supported_isas()[-1]}
    assert all(cell["gb_s"] > 0 and cell["of_read"] > 0 for cell in cells)
    assert all((cell["of_peak"] > 0) == (cell["rows"] > 0 and cell["kind"] != "BF16") for cell in cells)
    assert len(capsys.readouterr().out.splitlines()) == len(cells) + 2


def test_shapes_that_no_kernel_takes_are_refused() -> None:
    with pytest.raises(ValueError, match="group"):
        native.linear_seconds("scalar", 4, 8, 100, 64, 1, 1 << 16)
    with pytest.raises(ValueError, match="6 bits"):
        native.linear_seconds("scalar", 6, 8, 128, 64, 1, 1 << 16)
