"""Where tools say how weights were quantized, and which of GPTQ's versions a file that does not say so is in."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from localinfer.errors import Corrupt, NotSupported
from localinfer.graph.weights import Checkpoint
from localinfer.hub.checkpoint import variant_of
from tests.cases.right import change_config, ours
from tests.cli.conftest import Cli
from tests.graph import foreign
from tests.tiny import make_checkpoint, write_json

TEXT = "Hello world"


def taken_out(path: Path) -> dict[str, Any]:
    """What config.json said of quantization; it says so no longer."""
    said: dict[str, Any] = json.loads((path / "config.json").read_text())["quantization_config"]
    change_config(path, quantization_config=...)
    return said


def right(path: Path, meaning: foreign.Meaning) -> None:
    """Every matrix means what the writer meant."""
    checkpoint = Checkpoint(path)
    for name, matrix in meaning.items():
        assert np.array_equal(checkpoint.matrix(name), matrix)


def test_autogptq_in_a_file_of_its_own(cli: Cli, tmp_path: Path) -> None:
    path = make_checkpoint(tmp_path / "m")
    meaning = foreign.gptq(path, 4, 32, symmetric=True, version=1)
    before = ours(cli, path, TEXT, 8)
    said = taken_out(path)
    del said["quant_method"]
    write_json(path / "quantize_config.json", {**said, "damp_percent": 0.01, "model_name_or_path": None})
    right(path, meaning)
    assert ours(cli, path, TEXT, 8) == before
    assert variant_of(path) == "INT4"


def test_autoawq_in_a_file_of_its_own(cli: Cli, tmp_path: Path) -> None:
    path = make_checkpoint(tmp_path / "m")
    meaning = foreign.awq(path, 32)
    before = ours(cli, path, TEXT, 8)
    taken_out(path)
    write_json(path / "quant_config.json", {"zero_point": True, "q_group_size": 32, "w_bit": 4, "version": "GEMM"})
    right(path, meaning)
    assert ours(cli, path, TEXT, 8) == before


@pytest.mark.parametrize("method", ["compressed-tensors", None])
def test_compression_config(cli: Cli, tmp_path: Path, method: str | None) -> None:
    path = make_checkpoint(tmp_path / "m")
    meaning = foreign.compressed(path, 4, 32, symmetric=True)
    before = ours(cli, path, TEXT, 8)
    said = taken_out(path)
    change_config(path, compression_config={key: said[key] for key in said if method or key != "quant_method"})
    right(path, meaning)
    assert ours(cli, path, TEXT, 8) == before


def test_config_json_goes_before_a_file_beside_it(tmp_path: Path) -> None:
    path = make_checkpoint(tmp_path / "m")
    meaning = foreign.gptq(path, 4, 32, symmetric=True, version=1)
    write_json(path / "quantize_config.json", {"bits": 8, "group_size": 128})
    right(path, meaning)


@pytest.mark.parametrize("name", ["quantize_config.json", "quant_config.json"])
def test_a_file_that_was_left_beside_plain_weights(tmp_path: Path, name: str) -> None:
    path = make_checkpoint(tmp_path / "m")
    write_json(path / name, {"bits": 4, "w_bit": 4, "group_size": 32, "q_group_size": 32, "zero_point": True})
    assert variant_of(path) == "BF16"
    assert Checkpoint(path).scheme.method == "none"


def test_errors_name_the_file(tmp_path: Path) -> None:
    path = make_checkpoint(tmp_path / "m")
    foreign.gptq(path, 4, 32, symmetric=True, version=1)
    taken_out(path)
    write_json(path / "quantize_config.json", {"bits": 2, "group_size": 32})
    with pytest.raises(NotSupported, match=r"^quantize_config.json: `bits` is 2"):
        Checkpoint(path)
    (path / "quantize_config.json").write_text("[]")
    with pytest.raises(Corrupt, match=r"quantize_config.json"):
        Checkpoint(path)
    change_config(path, quantization_config=[1])
    with pytest.raises(Corrupt, match="`quantization_config` is not an object"):
        Checkpoint(path)


@pytest.mark.parametrize("bits", [3, 4, 8])
@pytest.mark.parametrize("sym", [True, ...])
def test_a_symmetric_file_whose_zeros_are_stored_as_they_are_is_the_second_version(
    tmp_path: Path, bits: int, sym: Any
) -> None:
    path = make_checkpoint(tmp_path / "m", "qwen2")
    meaning = foreign.gptq(path, bits, 32, symmetric=True, version=2)
    said = taken_out(path) | {"sym": sym}
    del said["checkpoint_format"]
    change_config(path, quantization_config={key: value for key, value in said.items() if value is not ...})
    right(path, meaning)


def test_a_second_version_that_is_named_is_believed(tmp_path: Path) -> None:
    path = make_checkpoint(tmp_path / "m")
    foreign.gptq(path, 4, 32, symmetric=True, version=1)
    change_config(path, quantization_config=taken_out(path) | {"checkpoint_format": "gptq_v2"})
    with pytest.raises(Corrupt, match=r"zero point of 7 "):
        Checkpoint(path).linear("model.layers.0.self_attn.q_proj")


def test_zeros_that_are_not_all_the_same_are_no_version(tmp_path: Path) -> None:
    path = make_checkpoint(tmp_path / "m")
    foreign.gptq(path, 4, 32, symmetric=True, version=2)
    said = taken_out(path)
    del said["checkpoint_format"]
    change_config(path, quantization_config=said)

    def spoil(tensors: foreign.Tensors) -> None:
        words = tensors["model.layers.0.self_attn.q_proj.qzeros"][1]
        words[0, 0] ^= 1

    foreign.edit(path, spoil)
    with pytest.raises(Corrupt, match=r"zero point of (9|10) "):
        Checkpoint(path).linear("model.layers.0.self_attn.q_proj")
