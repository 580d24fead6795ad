"""FP8 checkpoints carry scales of the KV cache, and say how it was to be stored: our cache has its own forms."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from localinfer.formats.safetensors import SafetensorsFile
from tests.cases.right import change_config, greedy, ours
from tests.cli.conftest import Cli
from tests.graph import foreign
from tests.tiny import make_checkpoint, random_weights, tiny_config, write_weights

TEXT = "Hello world"


def plain(path: Path, meaning: Mapping[str, NDArray[np.float32]]) -> Path:
    """The same model, whose matrices mean `meaning`, in bfloat16 and nothing else."""
    make_checkpoint(path, seed=3)
    weights = random_weights(tiny_config("llama"), seed=3)
    write_weights(path, weights | {f"{name}.weight": matrix for name, matrix in meaning.items()}, "bfloat16")
    return path


@pytest.mark.parametrize("scaled", ["tensor", "row", "block"])
@pytest.mark.parametrize("names", [("kv_scale",), ("k_scale", "v_scale"), ("k_proj.output_scale",)], ids="+".join)
def test_they_are_known_by_name(cli: Cli, tmp_path: Path, names: tuple[str, ...], scaled: str) -> None:
    path = make_checkpoint(tmp_path / "m", seed=3)
    meaning = foreign.fp8(path, scaled)
    scale: Any = ("F32", np.ones((), np.float32))
    more = {f"model.layers.{layer}.self_attn.{name}": scale for layer in range(2) for name in names}
    foreign.edit(path, lambda tensors: tensors.update(more))
    assert more.keys() <= SafetensorsFile(path / "model.safetensors").tensors.keys()
    assert ours(cli, path, TEXT, 8) == greedy(plain(tmp_path / "plain", meaning), TEXT, 8)


@pytest.mark.parametrize(
    "name",
    [
        "model.rotary_emb.original_inv_freq",
        "model.layers.0.self_attn.masked_bias",
        "model.layers.0.self_attn.k_cache_scale",
        "model.layers.0.total_params",
        "total_ops",
        "v_head.summary.weight",
    ],
)
def test_what_training_and_exports_leave_behind(cli: Cli, tmp_path: Path, name: str) -> None:
    path = make_checkpoint(tmp_path / "m", seed=3)
    foreign.fp8(path, "tensor")
    before = ours(cli, path, TEXT, 8)
    foreign.edit(path, lambda tensors: tensors.update({name: ("F32", np.ones((1, 64), np.float32))}))
    assert ours(cli, path, TEXT, 8) == before


def test_how_the_cache_was_to_be_stored(cli: Cli, tmp_path: Path) -> None:
    path = make_checkpoint(tmp_path / "m", seed=3)
    foreign.compressed(path, 4, 32, symmetric=True)
    before = ours(cli, path, TEXT, 8)
    scheme = {"num_bits": 8, "type": "float", "strategy": "tensor", "dynamic": False, "symmetric": True}
    said = json.loads((path / "config.json").read_text())["quantization_config"]
    change_config(path, quantization_config={**said, "kv_cache_scheme": scheme})
    assert ours(cli, path, TEXT, 8) == before
