"""MXFP4 between GGUF and our form: the same codes and powers, in gpt-oss and wherever else a file has it."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from localinfer.errors import Corrupt, NotSupported
from localinfer.formats.gguf import GgufFile
from localinfer.formats.gguf_blocks import mxfp4_blocks_of, mxfp4_of
from localinfer.formats.gguf_import import in_order
from localinfer.formats.safetensors import SafetensorsFile, write_safetensors
from localinfer.graph.weights import Checkpoint
from localinfer.hub.checkpoint import variant_of
from localinfer.quantize.export import export_gguf
from localinfer.quantize.from_gguf import GgufImporter
from tests.formats.files import write
from tests.formats.gguf_models import gguf_of
from tests.graph.running import load, run
from tests.graph.test_mxfp4 import make_mxfp4
from tests.quantize.beside_llamacpp import says_the_same
from tests.quantize.test_export_families import GPT_OSS
from tests.tiny import make_checkpoint

EXPERTS = ["blk.0.ffn_gate_exps.weight", "blk.1.ffn_up_exps.weight", "blk.1.ffn_down_exps.weight"]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return make_mxfp4(tmp_path / "m", seed=3, **GPT_OSS)


def test_blocks_there_and_back() -> None:
    """What the `gguf` package makes of the bytes is what the codes and powers mean."""
    import gguf

    rng = np.random.default_rng(5)
    raw = rng.integers(0, 256, (7, 3 * 17), dtype=np.uint8)
    raw[:, ::17] = rng.integers(100, 147, (7, 3))
    codes, powers = mxfp4_of(raw)
    twice = np.array([0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12], np.float32)
    values = twice[np.stack([codes & 15, codes >> 4], axis=-1)].reshape(7, 3, 32)
    meant = values * np.exp2(powers.astype(np.float32) - 128)[:, :, None]
    theirs = gguf.quants.dequantize(raw, gguf.GGMLQuantizationType.MXFP4)
    assert np.array_equal(meant.reshape(7, -1), theirs)
    assert np.array_equal(mxfp4_blocks_of(codes, powers), raw)


def test_gpt_oss_goes_there_and_comes_back(tmp_path: Path, model: Path) -> None:
    before = Checkpoint(model)
    assert export_gguf(model, tmp_path / "x.gguf") == "MXFP4, F16"
    file = GgufFile(tmp_path / "x.gguf")
    assert {file.tensors[name].type for name in EXPERTS} == {"MXFP4"}
    assert file.tensors["blk.0.attn_q.weight"].type == "F16"
    assert file.metadata["general.file_type"] == 38
    told = GgufImporter().write(tmp_path / "x.gguf", tmp_path / "back")
    assert "MXFP4 stayed MXFP4: exactly" in told["notes"]
    assert not any("experts" in name for name in told["error"])
    after = Checkpoint(tmp_path / "back")
    assert variant_of(tmp_path / "back") == "INT4"
    assert after.spec.mixture == before.spec.mixture
    for linear in before.graph.linears():
        assert after.form(linear.name) == before.form(linear.name)
        if ".experts." in linear.name:
            assert np.array_equal(after.matrix(linear.name), before.matrix(linear.name))
    for name, _ in before.graph.vectors():
        assert np.array_equal(after.vector(name), before.vector(name)), name
    export_gguf(tmp_path / "back", tmp_path / "y.gguf")
    again = GgufFile(tmp_path / "y.gguf")
    assert all(np.array_equal(again.raw(name), file.raw(name)) for name in EXPERTS)
    tokens = list(range(3, 35))
    assert np.abs(run(load(model), tokens) - run(load(tmp_path / "back"), tokens)).max() < 0.05


@pytest.mark.parametrize(("kind", "near"), [(None, 0.1), ("Q8_0", 0.1), ("Q4_0", 0.2), ("F16", 0.1)])
def test_llama_cpp_says_the_same_tokens(tmp_path: Path, model: Path, kind: Any, near: float) -> None:
    export_gguf(model, tmp_path / "x.gguf", kind)
    types = {name: tensor.type for name, tensor in GgufFile(tmp_path / "x.gguf").tensors.items()}
    assert {types[name] for name in EXPERTS} == {"F16" if kind == "F16" else "MXFP4"}
    assert types["blk.0.attn_q.weight"] == (kind or "F16")
    GgufImporter().write(tmp_path / "x.gguf", tmp_path / "back")
    says_the_same(tmp_path / "back", tmp_path / "x.gguf", near)


def test_any_file_may_have_it(tmp_path: Path) -> None:
    """Rows of q and k are in another order there, and the embedding is a table; q beside an INT8 is INT8."""
    source = make_checkpoint(tmp_path / "m", "llama", dtype="float32", seed=3)
    kinds = {"blk.1.attn_v.*": "Q8_0", "*.attn_[qkv].*": "MXFP4", "*ffn*": "MXFP4", "token_embd*": "MXFP4", "*": "Q8_0"}
    path = write(tmp_path / "x.gguf", gguf_of(source, kinds=kinds))
    told = GgufImporter().write(path, tmp_path / "back")
    after, file = Checkpoint(tmp_path / "back"), GgufFile(path)
    for name in ("model.embed_tokens", "model.layers.0.self_attn.q_proj", "model.layers.1.mlp.down_proj"):
        assert after.form(name) == (4, 32, "mxfp4")
    assert after.form("model.layers.1.self_attn.q_proj") == (8, 32)
    from localinfer.formats.gguf_config import plan_import

    for one in plan_import(file).tensors:
        if len(one.shape) == 2 and f"{one.name}" not in told["error"]:
            meant = in_order(file.dequantize(one.source), one)
            assert np.array_equal(after.matrix(one.name.removesuffix(".weight")), meant), one.name
    assert set(told["error"]) == {"model.layers.1.self_attn.q_proj.weight", "model.layers.1.self_attn.k_proj.weight"}


@pytest.mark.parametrize("power", [147, 254, 255])
def test_powers_that_no_weight_has(tmp_path: Path, model: Path, power: int) -> None:
    export_gguf(model, tmp_path / "x.gguf")
    file = GgufFile(tmp_path / "x.gguf")
    place = file.tensors[EXPERTS[1]]
    data = bytearray((tmp_path / "x.gguf").read_bytes())
    data[place.begin + 17] = power
    (tmp_path / "x.gguf").write_bytes(data)
    with pytest.raises(Corrupt, match=r"`blk\.1\.ffn_up_exps\.weight` holds NaN or infinite"):
        GgufImporter().write(tmp_path / "x.gguf", tmp_path / "back")


@pytest.mark.parametrize(
    ("part", "kind", "shape", "words"),
    [
        ("weight_packed", np.uint8, (128, 16), r"weight_packed` is \[128, 16\]"),
        ("weight_scale", np.uint8, (128, 4), r"weight_scale` is \[128, 4\]"),
        ("weight_scale", np.float16, (128, 2), "weight_scale` has dtype F16"),
        ("weight_scale", None, (), "weight_scale` is missing"),
    ],
)
def test_parts_that_do_not_fit(tmp_path: Path, model: Path, part: str, kind: Any, shape: Any, words: str) -> None:
    export_gguf(model, tmp_path / "x.gguf")
    GgufImporter().write(tmp_path / "x.gguf", tmp_path / "back")
    path = tmp_path / "back" / "model.safetensors"
    stored = SafetensorsFile(path)
    tensors = {name: (info.dtype, stored.read(name)) for name, info in stored.tensors.items()}
    name = f"model.layers.0.mlp.experts.2.up_proj.{part}"
    tensors.pop(name)
    if kind is not None:
        tensors[name] = ("U8" if kind is np.uint8 else "F16", np.zeros(shape, kind))
    write_safetensors(path, tensors)
    with pytest.raises((Corrupt, NotSupported), match=words):
        Checkpoint(tmp_path / "back")


@pytest.mark.parametrize(
    ("field", "value"),
    [("group_size", 16), ("num_bits", 8), ("symmetric", False), ("scale_dtype", "torch.float8_e4m3fn")],
)
def test_other_floats_of_four_bits_are_refused(tmp_path: Path, model: Path, field: str, value: Any) -> None:
    export_gguf(model, tmp_path / "x.gguf")
    GgufImporter().write(tmp_path / "x.gguf", tmp_path / "back")
    said = json.loads((tmp_path / "back" / "config.json").read_text())
    for group in said["quantization_config"]["config_groups"].values():
        if group["format"] == "mxfp4-pack-quantized":
            group["weights"][field] = value
    (tmp_path / "back" / "config.json").write_text(json.dumps(said))
    with pytest.raises(NotSupported, match=field):
        Checkpoint(tmp_path / "back")


def test_the_librarys_own_reader_takes_the_experts(tmp_path: Path, model: Path) -> None:
    """compressed-tensors unpacks what was written to the same numbers."""
    torch = pytest.importorskip("torch")
    base = pytest.importorskip("compressed_tensors.compressors.mxfp4.base")
    quantization = pytest.importorskip("compressed_tensors.quantization")
    export_gguf(model, tmp_path / "x.gguf")
    GgufImporter().write(tmp_path / "x.gguf", tmp_path / "back")
    said = json.loads((tmp_path / "back" / "config.json").read_text())["quantization_config"]
    groups = quantization.QuantizationConfig.model_validate(said).config_groups.values()
    (scheme,) = [group for group in groups if group.format == "mxfp4-pack-quantized"]
    name = "model.layers.1.mlp.experts.5.down_proj"
    stored = SafetensorsFile(tmp_path / "back" / "model.safetensors")
    parts = {p: torch.from_numpy(stored.read(f"{name}.{p}").copy()) for p in ("weight_packed", "weight_scale")}
    found = base.MXFP4PackedCompressor.decompress(parts, scheme)
    values = (found["weight"] if isinstance(found, dict) else found).to(torch.float32).numpy()
    assert np.array_equal(values, Checkpoint(model).matrix(name))
