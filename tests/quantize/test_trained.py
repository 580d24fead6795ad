"""Models that were trained to be rounded as Q4_0 rounds are rounded so."""

import json
from pathlib import Path

import numpy as np
import pytest
from gguf import GGMLQuantizationType
from gguf.quants import dequantize, quantize

from localinfer.graph.weights import Checkpoint
from localinfer.quantize import quantize_checkpoint
from localinfer.quantize.plan import default_method, make_plan
from localinfer.quantize.scales import round_trained
from tests.tiny import make_checkpoint

NAME = "gemma-3-tiny-it-qat-q4_0-unquantized"


def test_the_grid_is_that_of_q4_0() -> None:
    rows = np.random.default_rng(1).standard_normal((64, 96)).astype(np.float32)
    rows[3, :32] = 0
    rows[4, 32:64] = 1.5  # all alike
    found = round_trained(rows, 32)
    ours = found.values.reshape(64, 3, 32) * found.scales.astype(np.float32)[:, :, None]
    theirs = dequantize(quantize(rows, GGMLQuantizationType.Q4_0), GGMLQuantizationType.Q4_0)
    np.testing.assert_array_equal(ours.reshape(64, 96), theirs)
    assert found.error == pytest.approx(float(np.square(rows - theirs, dtype=np.float64).sum()))


def test_weights_too_large_are_named() -> None:
    with pytest.raises(OverflowError):
        round_trained(np.full((1, 32), 1e6, np.float32), 32)


def test_a_model_of_that_name_keeps_its_grid(tmp_path: Path) -> None:
    source = make_checkpoint(tmp_path / NAME, "gemma3_text")
    assert default_method(4, source)[0] == "rtn"
    report = quantize_checkpoint(source, tmp_path / "made", bits=4, threads=1)
    assert any("grid of Q4_0" in note for note in report.notes)
    matrix = "model.layers.0.mlp.up_proj"
    rows, found = Checkpoint(source).matrix(matrix), Checkpoint(tmp_path / "made").matrix(matrix)
    theirs = dequantize(quantize(rows, GGMLQuantizationType.Q4_0), GGMLQuantizationType.Q4_0)
    np.testing.assert_array_equal(found, theirs)
    recipe = json.loads((tmp_path / "made" / "localinfer.json").read_text())["recipe"]
    assert recipe["rounding"] == "the grid of Q4_0"


@pytest.mark.parametrize(("bits", "group", "method"), [(4, 64, "rtn"), (4, None, "gptq"), (3, None, "rtn")])
def test_another_way_says_what_it_loses(tmp_path: Path, bits: int, group: int | None, method: str) -> None:
    source = make_checkpoint(tmp_path / NAME, "gemma3_text")
    plan = make_plan(source, bits, group, method)  # type: ignore[arg-type]
    assert not any(job.trained for job in plan.jobs)
    assert any("training is lost" in note for note in plan.notes) == (bits == 4)
