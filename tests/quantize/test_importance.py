"""`imatrix` by the core alone: the mean squares of inputs are those of the reference, and torch is not asked for."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from localinfer.graph.ops import Linear
from localinfer.graph.weights import Checkpoint
from localinfer.quantize import CalibrationText, quantize_checkpoint
from localinfer.quantize.importance import mean_squares
from localinfer.quantize.plan import HEAD
from localinfer.reference.executor import Executor
from tests.quantize.trees import tree
from tests.tiny import FAMILIES, UNCALIBRATED, Family, make_checkpoint

TEXT = CalibrationText(tokens=2048)


class Watching(Executor):
    """Adds up the squares of what comes to each matrix."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        super().__init__(checkpoint)
        self.sums: dict[str, Any] = {}

    def linear(self, linear: Linear, x: torch.Tensor) -> torch.Tensor:
        seen = x.reshape(-1, linear.cols).double().square().sum(0)
        self.sums[linear.name] = self.sums.get(linear.name, 0) + seen
        return super().linear(linear, x)


@pytest.mark.parametrize("family", [family for family in FAMILIES if family not in UNCALIBRATED])
def test_mean_squares(family: Family, tmp_path: Path) -> None:
    checkpoint = Checkpoint(make_checkpoint(tmp_path / "m", family))
    tokens = np.random.default_rng(0).integers(3, 300, (2, 70)).astype(np.int32)
    linears = [one for op in checkpoint.graph.body for one in op.linears() if one not in op.unquantized()]
    seen = {}
    for threads in (1, 3):
        seen[threads] = mean_squares(checkpoint, linears, tokens, head=True, threads=threads)
    assert all(np.array_equal(seen[1][name], seen[3][name]) for name in seen[1])
    watching = Watching(checkpoint)
    for sequence in tokens:
        watching.logits(sequence.tolist())
    head = checkpoint.graph.head.table.name
    for name, found in seen[1].items():
        wanted = watching.sums[head if name == HEAD else name].numpy() / tokens.size
        np.testing.assert_allclose(found, wanted, rtol=1e-2, atol=1e-3 * float(wanted.max()), err_msg=name)


def test_without_torch(tmp_path: Path) -> None:
    """In a process where torch cannot be imported; with any number of threads the same bytes."""
    source = make_checkpoint(tmp_path / "m", "llama")
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from pathlib import Path\n"
        "from localinfer.quantize import CalibrationText, quantize_checkpoint\n"
        "source, dest = map(Path, sys.argv[1:])\n"
        "text = CalibrationText(tokens=2048)\n"
        "report = quantize_checkpoint(source, dest, bits=4, head=4, method='imatrix', text=text, threads=3)\n"
    )
    subprocess.run([sys.executable, "-c", code, str(source), str(tmp_path / "a")], check=True)
    quantize_checkpoint(source, tmp_path / "b", bits=4, head=4, method="imatrix", text=TEXT, threads=1)
    assert tree(tmp_path / "a") == tree(tmp_path / "b")
    quantize_checkpoint(source, tmp_path / "c", bits=4, head=4, method="rtn")
    assert tree(tmp_path / "a") != tree(tmp_path / "c")
