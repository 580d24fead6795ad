"""gpt-oss from its own form of weights: the numbers that transformers makes of them, exactly, and what is refused."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from localinfer import native
from localinfer.errors import Corrupt
from localinfer.formats.safetensors import SafetensorsFile, write_safetensors
from localinfer.graph.memory import packed_bytes
from localinfer.graph.ops import Linear
from localinfer.graph.stored import Mxfp4Linear
from localinfer.graph.weights import Checkpoint
from tests.graph.emulated import Emulated
from tests.graph.oracle import PROMPT, assert_close, run_transformers
from tests.graph.running import load, run
from tests.graph.test_mixture import with_tensor
from tests.tiny import make_checkpoint, write_json

VALUES = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.0, -0.5, -1, -1.5, -2, -3, -4, -6], np.float32)
Bytes = NDArray[np.uint8]


def to_mxfp4(values: NDArray[np.float32]) -> tuple[Bytes, Bytes]:
    """values [..., 32 n] as blocks [..., n, 16] and scales [..., n]; 0 at the scale's power of two is exact."""
    grouped = values.reshape(*values.shape[:-1], -1, 32)
    exponent = np.floor(np.log2(np.abs(grouped).max(axis=-1))).astype(np.int32) - 2
    scaled = grouped / np.exp2(exponent.astype(np.float32))[..., None]
    codes = np.abs(scaled[..., None] - VALUES).argmin(axis=-1).astype(np.uint8)
    return codes[..., 0::2] | codes[..., 1::2] << 4, (exponent + 127).astype(np.uint8)


def make_mxfp4(path: Path, **config: Any) -> Path:
    """A tiny gpt-oss with its experts as OpenAI publishes them."""
    make_checkpoint(path, "gpt_oss", **config)
    file = SafetensorsFile(path / "model.safetensors")
    tensors = {name: (info.dtype, file.read(name)) for name, info in file.tensors.items()}
    for name in [name for name in tensors if name.endswith(("experts.gate_up_proj", "experts.down_proj"))]:
        values = (tensors.pop(name)[1].astype(np.uint32) << 16).view(np.float32)
        blocks, scales = to_mxfp4(np.ascontiguousarray(values.transpose(0, 2, 1)))
        tensors |= {f"{name}_blocks": ("U8", blocks), f"{name}_scales": ("U8", scales)}
    write_safetensors(path / "model.safetensors", tensors)
    kept = ["model.layers.*.self_attn", "model.layers.*.mlp.router", "model.embed_tokens", "lm_head"]
    said = json.loads((path / "config.json").read_text())
    said["quantization_config"] = {"quant_method": "mxfp4", "modules_to_not_convert": kept, "dequantize": True}
    write_json(path / "config.json", said)
    return path


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_mxfp4(tmp_path_factory.mktemp("mxfp4") / "m", seed=3)


def test_means_what_transformers_makes_of_it(model: Path) -> None:
    tokens, logits, _ = run_transformers(model, PROMPT, 32)
    checkpoint = Checkpoint(model)
    assert checkpoint.form("model.layers.0.mlp.experts.3.up_proj") == (4, 32, "mxfp4")
    assert checkpoint.notes == ()
    from localinfer.reference.executor import Executor

    assert_close(Executor(checkpoint).logits(tokens).numpy(), logits, 1e-4)
    emulated = Emulated(checkpoint, 16).logits(tokens).numpy()
    assert_close(run(load(model), tokens)[:8], emulated[:8], 0.02)


def test_every_number_is_exact(model: Path) -> None:
    file = SafetensorsFile(model / "model.safetensors")
    at = "model.layers.1.mlp.experts"
    blocks, scales = file.read(f"{at}.gate_up_proj_blocks"), file.read(f"{at}.gate_up_proj_scales")
    codes = np.stack([blocks & 15, blocks >> 4], axis=-1).reshape(*blocks.shape[:-1], 32)
    meant = (VALUES[codes] * np.exp2(scales.astype(np.float32) - 127)[..., None]).reshape(*blocks.shape[:2], -1)
    checkpoint = Checkpoint(model)
    for expert in (0, 7):
        assert np.array_equal(checkpoint.matrix(f"{at}.{expert}.gate_proj"), meant[expert, 0::2])
        assert np.array_equal(checkpoint.matrix(f"{at}.{expert}.up_proj"), meant[expert, 1::2])


@pytest.mark.parametrize("scale", [0, 90, 100, 103, 104, 127, 142, 143, 146])
def test_the_smallest_and_the_largest_scales(tmp_path: Path, scale: int) -> None:
    """Exact, and in 8 bits from 2^-24 on for twice the value; below, to the nearest multiple of it."""
    path = make_mxfp4(tmp_path / "m")
    name = "model.layers.0.mlp.experts.down_proj"
    blocks = np.zeros((8, 64, 4, 16), np.uint8)
    blocks[:, :, :, :8] = np.arange(0, 256, 32, dtype=np.uint8) | np.arange(8, dtype=np.uint8)
    with_tensor(path, f"{name}_blocks", lambda x: blocks)
    with_tensor(path, f"{name}_scales", lambda x: np.full_like(x, scale))
    linear = Checkpoint(path).linear("model.layers.0.mlp.experts.2.down_proj")
    assert isinstance(linear, Mxfp4Linear)
    seen, wide = linear.float32().astype(np.float64), linear.widened().float32().astype(np.float64)
    codes = np.stack([blocks & 15, blocks >> 4], axis=-1).reshape(8, 64, -1)
    meant = VALUES[codes[2]].astype(np.float64) * 2.0 ** (scale - 127)
    assert np.array_equal(seen, meant if scale > 1 else 0 * meant)
    assert np.array_equal(wide, meant if scale >= 104 else np.rint(meant * 2.0**24) * 2.0**-24)
    weight = native.pack_mxfp4([linear.arrays()])
    assert np.array_equal(np.stack([weight.row(i) for i in range(linear.rows)]), seen)
    assert weight.nbytes == packed_bytes(Linear("", linear.rows, linear.cols), 4, 32, "mxfp4")


def test_a_scale_that_no_weight_has(tmp_path: Path) -> None:
    path = make_mxfp4(tmp_path / "m")
    with_tensor(path, "model.layers.0.mlp.experts.down_proj_scales", lambda x: np.full_like(x, 255))
    with pytest.raises(Corrupt, match=r"experts\.0\.down_proj\.weight_scales` holds 255 at \[0, 0\]"):
        load(path)


@pytest.mark.parametrize("part", ["blocks", "scales"])
def test_halves_that_disagree(tmp_path: Path, part: str) -> None:
    path = make_mxfp4(tmp_path / "m")
    with_tensor(path, f"model.layers.1.mlp.experts.gate_up_proj_{part}", lambda x: np.ascontiguousarray(x[:, :, :1]))
    with pytest.raises(Corrupt, match=rf"experts\.0\.gate_proj\.weight_{part}` is \[128, 1"):
        Checkpoint(path)


def test_blocks_without_scales(tmp_path: Path) -> None:
    path = make_mxfp4(tmp_path / "m")
    with_tensor(path, "model.layers.1.mlp.experts.gate_up_proj_scales", None)
    with pytest.raises(Corrupt, match="weight_scales` is missing"):
        Checkpoint(path)
