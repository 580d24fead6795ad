"""Gemma 4 that was trained for INT4 (`…-qat-w4a16-ct`): it runs as it is stored, floats beside integers."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from localinfer.errors import NotSupported
from localinfer.formats.safetensors import SafetensorsFile
from localinfer.graph.weights import Checkpoint
from localinfer.quantize import quantize_checkpoint
from tests.graph.emulated import Emulated
from tests.graph.foreign import Tensors, save, words
from tests.graph.oracle import assert_close, oracle
from tests.graph.running import load, run

SCHEME: dict[str, Any] = {
    "quant_method": "compressed-tensors",
    "format": "pack-quantized",
    "quantization_status": "compressed",
    "global_compression_ratio": None,
    "kv_cache_scheme": None,
    "sparsity_config": {},
    "transform_config": {},
    "version": "0.13.0",
    "ignore": ["lm_head", "re:.*embed_tokens.*", "re:.*vision_tower.*", "re:.*audio_tower.*", "re:.*embed_vision.*"],
    "config_groups": {
        "group_0": {
            "targets": ["Linear"],
            "format": "pack-quantized",
            "input_activations": None,
            "output_activations": None,
            "weights": {
                "num_bits": 4,
                "type": "int",
                "symmetric": True,
                "strategy": "group",
                "group_size": 32,
                "dynamic": False,
                "actorder": None,
                "block_structure": None,
                "observer": "minmax",
                "observer_kwargs": {},
                "scale_dtype": None,
                "zp_dtype": None,
            },
        }
    },
}
"""What such a repository's config.json says."""


def bf16(values: NDArray[np.float32]) -> NDArray[np.uint16]:
    return (values.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)


def trained(variant: str, dest: Path, scales_as: str = "BF16") -> tuple[Path, dict[str, NDArray[np.float32]]]:
    """The tiny model as INT4 by 32, scales the value of largest magnitude over -8, and what each matrix means."""
    source = oracle(variant).path
    dest.mkdir()
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json", "generation_config.json"):
        (dest / name).write_bytes((source / name).read_bytes())
    file = SafetensorsFile(source / "model.safetensors")
    tensors: Tensors = {name: (info.dtype, file.read(name)) for name, info in file.tensors.items()}
    meaning = {}
    for name in [name for name, (_, values) in tensors.items() if values.ndim == 2 and "embed_tokens" not in name]:
        if "lm_head" in name:
            continue
        matrix = (tensors.pop(name)[1].astype(np.uint32) << 16).view(np.float32)
        groups = matrix.reshape(len(matrix), -1, 32)
        largest = np.take_along_axis(groups, np.abs(groups).argmax(-1)[..., None], -1)
        scales = (bf16(largest[..., 0] / np.float32(-8)).astype(np.uint32) << 16).view(np.float32)
        q = np.clip(np.rint(groups / scales[..., None]), -8, 7)
        module = name.removesuffix(".weight")
        tensors[f"{module}.weight_packed"] = ("I32", words((q + 8).astype(np.int64).reshape(len(matrix), -1), 4))
        stored = bf16(scales) if scales_as == "BF16" else scales.astype(np.float16)
        tensors[f"{module}.weight_scale"] = (scales_as, stored)
        tensors[f"{module}.weight_shape"] = ("I64", np.array(matrix.shape, np.int64))
        meaning[module] = (q.astype(np.float32) * scales[..., None]).reshape(matrix.shape)
    save(dest, tensors, **SCHEME)
    return dest, meaning


@pytest.mark.parametrize("variant", ["gemma4", "gemma4_text", "gemma4_unified"])
def test_it_runs_as_it_is_stored(tmp_path: Path, variant: str) -> None:
    path, meaning = trained(variant, tmp_path / "m")
    made, name_of = Checkpoint(path), Checkpoint(oracle(variant).path).names
    for module, matrix in meaning.items():
        name = (name_of[f"{module}.weight"] or "").removesuffix(".weight")
        assert made.form(name) == (4, 32), name
        assert np.array_equal(made.matrix(name), matrix), name
    for table in made.graph.tables:
        assert made.form(table.name) == (16, 0), "floats stay floats"
    meant = Emulated(made, 8).logits(oracle(variant).tokens[:3]).numpy()
    assert_close(run(load(path, 8), oracle(variant).tokens[:3]), meant, 0.1)


def test_scales_of_either_type_give_the_same_bits(tmp_path: Path) -> None:
    """bfloat16 scales are float16 ones, as long as they are no smaller than 2^-17."""
    tokens = oracle("gemma4").tokens
    paths = [trained("gemma4", tmp_path / kind, kind)[0] for kind in ("BF16", "F16")]
    seen = [run(load(path, 8), tokens) for path in paths]
    assert np.array_equal(seen[0], seen[1])


def test_it_is_not_quantized_again(tmp_path: Path) -> None:
    path, _ = trained("gemma4_text", tmp_path / "m")
    with pytest.raises(NotSupported, match="is quantized already"):
        quantize_checkpoint(path, tmp_path / "q", bits=4, method="rtn")
    config = json.loads((path / "config.json").read_text())
    assert config["quantization_config"]["config_groups"]["group_0"]["weights"]["num_bits"] == 4
