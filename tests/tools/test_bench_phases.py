"""The table of a step's phases adds up, whatever the model."""

import time
from pathlib import Path

import numpy as np
import pytest

from tests.graph.running import load
from tests.tiny import make_checkpoint
from tools import bench_phases


@pytest.mark.parametrize(
    ("family", "operations"),
    [("llama", {"attend"}), ("lfm2", {"attend", "conv"}), ("qwen3_5_text", {"attend", "delta"})],
)
def test_every_operation_is_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], family: str, operations: set[str]
) -> None:
    path = make_checkpoint(tmp_path / "m", family)  # type: ignore[arg-type]
    bench_phases.main([str(path), "--rows", "1", "9", "--depth", "0", "40", "--steps", "3", "--threads", "2"])
    said = capsys.readouterr().out
    assert said.count(" tokens before them:") == 4
    assert {line.split()[0] for line in said.splitlines() if line.startswith("  ")} == {
        "start",
        "mlp",
        "head",
        *operations,
    }


def test_phases_take_no_longer_than_the_step(tmp_path: Path) -> None:
    program = load(make_checkpoint(tmp_path / "m"))
    one, table = np.zeros(1, np.int32), np.array([[0]], np.int32)
    logits = np.empty((1, program.vocab), np.float32)
    program.step(one, one, one, table, one, logits)
    assert program.phase_times() == []
    program.time_phases(True)
    started = time.perf_counter()
    program.step(one, one, one, table, one, logits)
    taken = time.perf_counter() - started
    assert 0 < sum(busy + wait for _, _, busy, wait in program.phase_times()) <= taken
