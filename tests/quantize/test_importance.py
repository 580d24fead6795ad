"""`imatrix` by the core alone: the mean squares of inputs are those of the reference, and torch is not asked for."""

import re
import subprocess
import sys
from collections.abc import Mapping
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
from tests.graph.variants import make_variant
from tests.quantize.trees import tree
from tests.tiny import FAMILIES, MIXTURES, UNCALIBRATED, make_checkpoint

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


BESIDE = "gemma4-experts"
"""A variant whose experts stand beside an MLP, and read another norm than their router."""


@pytest.mark.parametrize("family", [*(family for family in FAMILIES if family not in UNCALIBRATED), BESIDE])
def test_mean_squares(family: Any, tmp_path: Path) -> None:
    made = make_variant(family, tmp_path / "m") if family == BESIDE else make_checkpoint(tmp_path / "m", family)
    checkpoint = Checkpoint(made)
    tokens = np.random.default_rng(0).integers(3, 300, (2, 70)).astype(np.int32)
    linears = [one for op in checkpoint.graph.body for one in op.linears() if one not in op.unquantized()]
    seen = {}
    for threads in (1, 3):
        seen[threads] = mean_squares(checkpoint, linears, tokens, head=True, threads=threads)
    assert all(np.array_equal(seen[1][name], seen[3][name]) for name in seen[1])
    watching = Watching(checkpoint)
    for sequence in tokens:
        watching.logits(sequence.tolist())
    wanted = {name: squares.numpy() / tokens.size for name, squares in watching.sums.items()}
    wanted[HEAD] = wanted[checkpoint.graph.head.table.name]
    found = of_layers(seen[1])
    for name, squares in of_layers({name: wanted.get(name, np.zeros(1)) for name in seen[1]}).items():
        loose = 10 if family in (*MIXTURES, BESIDE) else 1  # a row between two experts may go to the other one
        np.testing.assert_allclose(
            found[name], squares, rtol=loose * 1e-2, atol=loose * 1e-3 * squares.max(), err_msg=name
        )
    for name in wanted.keys() & seen[1].keys():
        if EXPERT.search(name) and wanted[name].sum() > 0.1 * found[EXPERT.sub("experts", name)].sum():
            np.testing.assert_allclose(seen[1][name].sum(), wanted[name].sum(), rtol=0.25, err_msg=name)


EXPERT = re.compile(r"experts\.\d+")


def of_layers(squares: Mapping[str, Any]) -> dict[str, Any]:
    """All experts of a layer together."""
    found: dict[str, Any] = {}
    for name, sums in squares.items():
        found[EXPERT.sub("experts", name)] = found.get(EXPERT.sub("experts", name), 0) + sums
    return found


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
