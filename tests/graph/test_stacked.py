"""Experts whose tensors are stored in one, as transformers holds them: the same model, or a named error."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from localinfer.errors import Corrupt
from localinfer.formats.safetensors import SafetensorsFile, write_safetensors
from localinfer.graph.weights import Checkpoint
from tests.graph.oracle import PROMPT, transformers_model
from tests.graph.running import load, run
from tests.graph.test_mixture import with_tensor
from tests.tiny import Family, make_checkpoint


@pytest.mark.parametrize(
    "family", ["mixtral", "qwen2_moe", "qwen3_moe", "olmoe", "granitemoe", "ernie4_5_moe", "glm4_moe", "lfm2_moe"]
)
def test_as_transformers_holds_them(tmp_path: Path, family: Family) -> None:
    path = make_checkpoint(tmp_path / "m", family)
    model = transformers_model(path).bfloat16()
    model.save_pretrained(tmp_path / "new", save_original_format=False)
    stored = SafetensorsFile(tmp_path / "new" / "model.safetensors").tensors
    assert any(name.endswith(".experts.gate_up_proj") for name in stored)
    assert np.array_equal(run(load(tmp_path / "new"), PROMPT), run(load(path), PROMPT))
    assert Checkpoint(tmp_path / "new").notes == ()


def stacked(tmp_path: Path) -> Path:
    """A tiny model whose experts are stored in one tensor a layer and kind."""
    return make_checkpoint(tmp_path / "m", "granitemoe")


GATES = "model.layers.1.block_sparse_moe.input_linear.weight"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda x: x[:7], r"is \[7, 256, 64\].* 256 rows of each of 8 experts"),
        (lambda x: np.concatenate([x, x[:1]]), r"is \[9, 256, 64\]"),
        (lambda x: x[:, :-1], r"is \[8, 255, 64\]"),
        (lambda x: x[0], r"is \[256, 64\]"),
        (lambda x: x[:, :, :32], r"experts\.0\.gate_proj\.weight` is \[128, 32\].*\[128, 64\]"),
        (None, r"experts\.0\.gate_proj\.weight` is missing"),
    ],
    ids=["fewer", "more", "rows", "rank", "columns", "missing"],
)
def test_experts_that_disagree(tmp_path: Path, change: Any, words: str) -> None:
    path = stacked(tmp_path)
    with_tensor(path, GATES, change)
    with pytest.raises(Corrupt, match=words):
        Checkpoint(path)


def test_experts_that_are_stored_twice(tmp_path: Path) -> None:
    path = stacked(tmp_path)
    file = SafetensorsFile(path / "model.safetensors")
    tensors = {name: (info.dtype, file.read(name)) for name, info in file.tensors.items()}
    again = "model.layers.1.block_sparse_moe.experts.3.up_proj.weight"
    tensors[again] = ("BF16", tensors[GATES][1][3, 128:].copy())
    write_safetensors(path / "model.safetensors", tensors)
    with pytest.raises(Corrupt, match=r"experts\.3\.up_proj\.weight` is stored twice"):
        Checkpoint(path)


@pytest.mark.parametrize(("place", "name"), [((5, 3, 1), "gate_proj"), ((5, 130, 1), "up_proj")])
def test_a_nan_is_named_by_its_expert(tmp_path: Path, place: tuple[int, ...], name: str) -> None:
    def broken(x: Any) -> Any:
        x[place] = 0x7FC0
        return x

    path = stacked(tmp_path)
    with_tensor(path, GATES, broken)
    with pytest.raises(Corrupt, match=rf"experts\.5\.{name}\.weight` holds NaN .*\[{place[1] % 128}, 1\]"):
        load(path)
