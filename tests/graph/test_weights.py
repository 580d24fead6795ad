"""Weights from strangers: missing, misshapen, unannounced or broken tensors are named, with both shapes."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from localinfer.errors import Corrupt, NotFound, NotSupported
from localinfer.formats.compressed import dequantize, pack, quantization_config
from localinfer.formats.safetensors import SafetensorsFile, write_safetensors
from localinfer.graph.stored import Bf16Linear, IntLinear, narrow, widen
from localinfer.graph.weights import Checkpoint
from tests.tiny import Family, make_checkpoint, random_weights, tiny_config

Tensors = dict[str, tuple[str, NDArray[Any]]]
Q = "model.layers.0.self_attn.q_proj"


def edit(path: Path, change: Callable[[Tensors], object]) -> None:
    """Rewrite the weights of a tiny checkpoint after `change`."""
    file = SafetensorsFile(path / "model.safetensors")
    tensors: Tensors = {name: (info.dtype, file.read(name)) for name, info in file.tensors.items()}
    change(tensors)
    write_safetensors(path / "model.safetensors", tensors)


def set_config(path: Path, **fields: Any) -> None:
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps({**config, **fields}))


def quantize(tensors: Tensors, name: str, bits: int, group: int) -> NDArray[np.float32]:
    """Replace a matrix by random integers and scales; returns what they mean."""
    rows, cols = tensors.pop(f"{name}.weight")[1].shape
    rng = np.random.default_rng(bits)
    values = rng.integers(-(1 << bits - 1), 1 << bits - 1, (rows, cols), dtype=np.int8)
    scales = rng.uniform(-0.1, 0.1, (rows, cols // group)).astype(np.float16)
    tensors[f"{name}.weight_packed"] = ("I32", pack(values, bits))
    tensors[f"{name}.weight_scale"] = ("F16", scales)
    tensors[f"{name}.weight_shape"] = ("I64", np.array([rows, cols], np.int64))
    return dequantize(values, scales)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return make_checkpoint(tmp_path / "tiny")


@pytest.mark.parametrize("shards", [1, 3])
def test_tensors_come_back_as_they_were_written(tmp_path: Path, shards: int) -> None:
    checkpoint = Checkpoint(make_checkpoint(tmp_path, "qwen2", seed=5, shards=shards))
    drawn = random_weights(tiny_config("qwen2"), 5)
    linear = checkpoint.linear(Q)
    assert isinstance(linear, Bf16Linear)
    assert (linear.kind, linear.rows, linear.cols) == ("bf16", 64, 64)
    assert np.array_equal(linear.values, narrow("w", drawn[f"{Q}.weight"]))
    assert np.array_equal(checkpoint.vector(f"{Q}.bias"), widen(narrow("b", drawn[f"{Q}.bias"])))
    assert np.array_equal(checkpoint.matrix(Q), linear.float32())
    assert checkpoint.form(Q) == (16, 0)
    assert checkpoint.stored_bytes(Q) == 64 * 64 * 2
    assert checkpoint.nbytes == 2 * sum(value.size for value in drawn.values())


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_other_floats_are_rounded_for_the_kernels_only(tmp_path: Path, dtype: Any) -> None:
    checkpoint = Checkpoint(make_checkpoint(tmp_path, dtype=dtype))
    drawn = random_weights(tiny_config("llama"), 0)[f"{Q}.weight"].astype(dtype).astype(np.float32)
    assert np.array_equal(checkpoint.matrix(Q), drawn)
    rounded = checkpoint.linear(Q).float32()
    assert 0 < np.abs(rounded / drawn - 1).max() <= 2**-8


@pytest.mark.parametrize(("bits", "group"), [(8, 32), (4, 64), (3, 32)])
def test_packed_integers(path: Path, bits: int, group: int) -> None:
    meaning: list[NDArray[np.float32]] = []
    edit(path, lambda tensors: meaning.append(quantize(tensors, Q, bits, group)))
    set_config(path, quantization_config=quantization_config([(["Linear"], bits, group), (["re:.*head"], 8, 128)]))
    checkpoint = Checkpoint(path)
    linear = checkpoint.linear(Q)
    assert isinstance(linear, IntLinear)
    assert (linear.kind, linear.bits, linear.group, linear.rows, linear.cols) == (f"int{bits}", bits, group, 64, 64)
    assert np.array_equal(linear.float32(), meaning[0])
    assert np.array_equal(checkpoint.matrix(Q), meaning[0])
    assert checkpoint.form(Q) == (bits, group)
    assert checkpoint.stored_bytes(Q) == 64 * 64 * bits // 8 + 64 * 64 // group * 2


def test_scales_in_bfloat16_as_other_tools_write_them(path: Path) -> None:
    meaning: list[NDArray[np.float32]] = []

    def narrow_scales(tensors: Tensors) -> None:
        meaning.append(quantize(tensors, Q, 4, 64))
        _, scales = tensors[f"{Q}.weight_scale"]
        tensors[f"{Q}.weight_scale"] = ("BF16", narrow("s", scales.astype(np.float32)))

    edit(path, narrow_scales)
    set_config(path, quantization_config=quantization_config([(["Linear"], 4, 64)]))
    np.testing.assert_allclose(Checkpoint(path).matrix(Q), meaning[0], rtol=2**-8)


def test_a_missing_tensor(path: Path) -> None:
    edit(path, lambda tensors: tensors.pop(f"{Q}.weight"))
    with pytest.raises(Corrupt, match=r"`model.layers.0.self_attn.q_proj.weight` is missing"):
        Checkpoint(path)


def test_a_head_that_is_missing_is_not_taken_for_tied(path: Path) -> None:
    edit(path, lambda tensors: tensors.pop("lm_head.weight"))
    with pytest.raises(Corrupt, match=r"`lm_head.weight` is missing"):
        Checkpoint(path)


@pytest.mark.parametrize("copied", ["BF16", "F32"])
def test_a_copy_of_the_tied_head_is_not_read(path: Path, copied: str) -> None:
    def copy(tensors: Tensors) -> None:
        _, table = tensors["model.embed_tokens.weight"]
        tensors["lm_head.weight"] = (copied, widen(table) if copied == "F32" else table)

    edit(path, copy)
    set_config(path, tie_word_embeddings=True)
    checkpoint = Checkpoint(path)
    assert "lm_head" not in [linear.name for linear in checkpoint.graph.linears()]
    assert not checkpoint.notes


def test_a_tied_head_that_differs_in_its_last_number(path: Path) -> None:
    def nearly(tensors: Tensors) -> None:
        table = tensors["model.embed_tokens.weight"][1].copy()
        table[-1, -1] ^= 1
        tensors["lm_head.weight"] = ("BF16", table)

    edit(path, nearly)
    set_config(path, tie_word_embeddings=True)
    checkpoint = Checkpoint(path)
    assert not checkpoint.spec.tied
    assert any("another one is stored" in note for note in checkpoint.notes)


def test_a_tied_head_that_is_stored_in_integers_is_another_one(path: Path) -> None:
    edit(path, lambda tensors: quantize(tensors, "lm_head", 8, 64))
    set_config(path, tie_word_embeddings=True, quantization_config=quantization_config([(["Linear"], 8, 64)]))
    assert Checkpoint(path).form("lm_head") == (8, 64)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("vocab_size", 321, r"`model.embed_tokens.weight` is \[320, 64\], but config.json asks for \[321, 64\]"),
        ("intermediate_size", 2**20, r"gate_proj.weight` is \[128, 64\], but config.json asks for \[1048576, 64\]"),
        ("num_key_value_heads", 4, r"k_proj.weight` is \[32, 64\], but config.json asks for \[64, 64\]"),
        ("num_hidden_layers", 1024, r"`model.layers.2.self_attn.q_proj.weight` is missing"),
        ("attention_bias", True, r"q_proj.bias` is missing"),
    ],
)
def test_a_config_that_disagrees_with_the_weights(path: Path, field: str, value: object, message: str) -> None:
    set_config(path, **{field: value})
    with pytest.raises(Corrupt, match=message) as caught:
        Checkpoint(path)
    assert caught.value.hint


def test_layers_that_config_does_not_count_are_passed_over(path: Path) -> None:
    set_config(path, num_hidden_layers=1)
    (note,) = Checkpoint(path).notes
    assert note.startswith("9 tensors (`model.layers.1.input_layernorm.weight`, ")


@pytest.mark.parametrize(
    "name",
    [
        "model.rotary_emb.inv_freq",
        "model.layers.0.self_attn.rotary_emb.inv_freq",
        "model.layers.0.self_attn.rotary_emb.cos_cached",
        "model.layers.0.attn.bias",
        "model.layers.0.attn.masked_bias",
        "model.layers.0.self_attn.kv_scale",
        "model.layers.0.self_attn.k_scale",
        "model.layers.0.self_attn.v_scale",
        "model.layers.0.self_attn.q_scale",
        "model.layers.0.self_attn.attn.k_scale",
        "model.layers.0.self_attn.k_zero_point",
        "model.layers.0.self_attn.k_proj.k_scale",
        "model.layers.0.self_attn.v_proj.output_scale",
        "model.layers.0.mlp.down_proj.input_scale",
        "model.layers.0.mlp.down_proj.input_zero_point",
        "model.embed_tokens.position_ids",
    ],
)
def test_tensors_that_change_no_answer_are_known_by_name(path: Path, name: str) -> None:
    edit(path, lambda tensors: tensors.update({name: ("F32", np.ones(8, np.float32))}))
    assert Checkpoint(path).spec.layers == 2


@pytest.mark.parametrize(
    "name",
    [
        "model.layers.0.self_attn.k_scales",
        "model.layers.0.self_attn.sinks",
        "model.layers.0.self_attn.bias",
        "model.layers.0.mlp.act_fn.scales",
        "model.layers.0.self_attn.q_norm.weight",
        "model.layers.0.self_attn.q_proj.bias",
        "lm_head.bias",
        "mtp.norm.weight",
        "score.weight",
    ],
)
@pytest.mark.parametrize("tied", [False, True])
def test_any_other_tensor_is_passed_over_by_name(path: Path, name: str, tied: bool) -> None:
    def more(tensors: Tensors) -> None:
        tensors[name] = ("F32", np.ones(8, np.float32))
        if tied:
            del tensors["lm_head.weight"]

    edit(path, more)
    set_config(path, tie_word_embeddings=tied)
    (note,) = Checkpoint(path).notes
    assert note.startswith(f"tensor `{name}`: config.json describes no such thing")


def test_names_without_a_prefix(tmp_path: Path) -> None:
    """As a base model alone is saved."""
    whole = Checkpoint(make_checkpoint(tmp_path / "whole", tie_word_embeddings=True))
    bare = make_checkpoint(tmp_path / "bare", tie_word_embeddings=True)
    edit(bare, lambda tensors: [tensors.update({n.removeprefix("model."): tensors.pop(n)}) for n in list(tensors)])
    checkpoint = Checkpoint(bare)
    for linear in checkpoint.graph.linears():
        assert np.array_equal(checkpoint.matrix(linear.name), whole.matrix(linear.name))


def test_tied_the_other_way_round(tmp_path: Path) -> None:
    """Only the head is stored: it is the embedding."""
    whole = Checkpoint(make_checkpoint(tmp_path / "whole", tie_word_embeddings=True))
    path = make_checkpoint(tmp_path / "head", tie_word_embeddings=True)
    edit(path, lambda tensors: tensors.update({"lm_head.weight": tensors.pop("model.embed_tokens.weight")}))
    assert np.array_equal(Checkpoint(path).matrix("model.embed_tokens"), whole.matrix("model.embed_tokens"))


def test_one_tensor_under_two_names(tmp_path: Path) -> None:
    path = make_checkpoint(tmp_path / "g", "gemma3")
    name = "language_model.model.norm.weight"
    edit(path, lambda tensors: tensors.update({"model.language_model.norm.weight": tensors[name]}))
    with pytest.raises(Corrupt, match=r"`model.norm.weight` is stored twice"):
        Checkpoint(path)


def test_a_dtype_that_is_no_float(path: Path) -> None:
    edit(path, lambda tensors: tensors.update({f"{Q}.weight": ("U8", np.ones((64, 64), np.uint8))}))
    with pytest.raises(NotSupported, match=r"q_proj.weight` has dtype U8.*known: BF16, F16, F32"):
        Checkpoint(path)


@pytest.mark.parametrize("bits", [0x7FC0, 0x7F80, 0xFF80, 0xFFFF], ids=["NaN", "inf", "-inf", "-NaN"])
@pytest.mark.parametrize("name", [f"{Q}.weight", "model.norm.weight", "lm_head.weight"])
def test_a_broken_bf16_number_is_named_with_its_place(path: Path, name: str, bits: int) -> None:
    def spoil(tensors: Tensors) -> None:
        tensors[name][1].reshape(-1)[-1] = bits

    edit(path, spoil)
    checkpoint = Checkpoint(path)
    place = {"model.norm.weight": r"\[63\]", "lm_head.weight": r"\[319, 63\]"}.get(name, r"\[63, 63\]")
    with pytest.raises(Corrupt, match=f"tensor `{name}` holds NaN or infinity, first at {place}"):
        checkpoint.vector(name) if "norm" in name else checkpoint.linear(name.removesuffix(".weight"))


@pytest.mark.parametrize(
    ("dtype", "value"), [("float32", np.nan), ("float16", np.inf), ("float32", 3.4e38)], ids=["NaN", "inf", "too large"]
)
def test_a_broken_number_in_other_floats(tmp_path: Path, dtype: Any, value: float) -> None:
    path = make_checkpoint(tmp_path, dtype=dtype)

    def spoil(tensors: Tensors) -> None:
        tensors[f"{Q}.weight"][1][3, 5] = value

    edit(path, spoil)
    with pytest.raises(Corrupt, match=r"q_proj.weight` holds NaN or infinity, first at \[3, 5\]"):
        Checkpoint(path).linear(Q)


def test_a_broken_scale(path: Path) -> None:
    def spoil(tensors: Tensors) -> None:
        quantize(tensors, Q, 4, 64)
        tensors[f"{Q}.weight_scale"][1][7, 0] = np.inf

    edit(path, spoil)
    set_config(path, quantization_config=quantization_config([(["Linear"], 4, 64)]))
    with pytest.raises(Corrupt, match=r"q_proj.weight_scale` holds NaN or infinity, first at \[7, 0\]"):
        Checkpoint(path).linear(Q)


def _reshape(part: str, dtype: str, array: NDArray[Any]) -> Callable[[Tensors], None]:
    return lambda tensors: tensors.update({f"{Q}.{part}": (dtype, array)})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            _reshape("weight_packed", "I32", np.zeros((64, 9), np.int32)),
            r"weight_packed` is \[64, 9\].*\[64, 64\] packed",
        ),
        (_reshape("weight_packed", "I32", np.zeros((63, 8), np.int32)), r"weight_packed` is \[63, 8\]"),
        (_reshape("weight_scale", "F16", np.ones((64, 2), np.float16)), r"weight_scale` is \[64, 2\].*4 bits by 64"),
        (_reshape("weight_scale", "F16", np.ones((64, 64), np.float16)), r"weight_scale` is \[64, 64\]"),
        (lambda tensors: tensors.pop(f"{Q}.weight_scale"), r"weight_scale` is missing"),
        (lambda tensors: tensors.pop(f"{Q}.weight_shape"), r"weight_shape` is missing"),
        (_reshape("weight_shape", "I64", np.array([64, 2**62])), r"weight_shape` says \[64, 4611686018427387904\]"),
    ],
)
def test_packed_tensors_that_disagree(path: Path, change: Callable[[Tensors], object], message: str) -> None:
    edit(path, lambda tensors: (quantize(tensors, Q, 4, 64), change(tensors)))
    set_config(path, quantization_config=quantization_config([(["Linear"], 4, 64)]))
    with pytest.raises(Corrupt, match=message):
        Checkpoint(path).linear(Q)


def test_packed_tensors_without_a_scheme(path: Path) -> None:
    edit(path, lambda tensors: quantize(tensors, Q, 4, 64))
    with pytest.raises(Corrupt, match=r"no scheme of config.json \(none\)"):
        Checkpoint(path)


@pytest.mark.parametrize("extra", ["weight_zero_point", "weight_g_idx"])
def test_asymmetric_or_reordered_weights(path: Path, extra: str) -> None:
    edit(path, lambda tensors: (quantize(tensors, Q, 4, 64), _reshape(extra, "I32", np.zeros(64, np.int32))(tensors)))
    set_config(path, quantization_config=quantization_config([(["Linear"], 4, 64)]))
    with pytest.raises(NotSupported, match=extra):
        Checkpoint(path)


def _scheme(**weights: Any) -> dict[str, Any]:
    scheme = quantization_config([(["Linear"], 4, 64)])
    scheme["config_groups"]["group_0"]["weights"].update(weights)
    return scheme


@pytest.mark.parametrize(
    ("scheme", "words"),
    [
        ({"quant_method": "bitsandbytes"}, ("bitsandbytes",)),
        ({"quant_method": "compressed-tensors", "format": "nvfp4-pack-quantized"}, ("format", "nvfp4-pack-quantized")),
        ({**_scheme(), "sparsity_config": {"format": "sparse-24-bitmask"}}, ("sparsity_config", "sparse-24-bitmask")),
        (_scheme(num_bits=6), ("num_bits", "6", "3, 4, 5, 8")),
        (_scheme(num_bits=True), ("num_bits", "True")),
        (_scheme(group_size=-1, strategy="token"), ("strategy", "token", "group")),
        (_scheme(group_size=16), ("group_size", "16", "32, 64, 128")),
        (_scheme(symmetric=False, num_bits=8), ("symmetric", "False")),
        (_scheme(type="float"), ("num_bits", "4", "8")),
        (_scheme(type="complex"), ("type", "complex", "int")),
        (_scheme(type="float", num_bits=8, strategy="group"), ("strategy", "group", "block")),
        ({"quant_method": "gptq", "bits": 2, "group_size": 128}, ("bits", "2", "3, 4, 8")),
        ({"quant_method": "gptq", "bits": 8, "group_size": 128, "sym": False}, ("sym", "False")),
        ({"quant_method": "gptq", "bits": 4, "group_size": 16}, ("group_size", "16")),
        ({"quant_method": "gptq", "bits": 4, "group_size": 64, "checkpoint_format": "marlin"}, ("marlin", "gptq_v2")),
        ({"quant_method": "gptq", "bits": 4, "group_size": 64, "dynamic": {"x": {}}}, ("dynamic",)),
        ({"quant_method": "awq", "bits": 4, "group_size": 64, "version": "gemv"}, ("version", "gemv", "gemm")),
        ({"quant_method": "awq", "bits": 4, "group_size": 64, "zero_point": False}, ("zero_point", "False")),
        ({"quant_method": "fp8", "fmt": "e5m2"}, ("fmt", "e5m2", "e4m3")),
        (_scheme(actorder="group"), ("actorder", "group")),
        (_scheme(dynamic=True), ("dynamic",)),
    ],
)
def test_a_quantization_that_is_not_ours(path: Path, scheme: dict[str, Any], words: tuple[str, ...]) -> None:
    set_config(path, quantization_config=scheme)
    with pytest.raises(NotSupported) as caught:
        Checkpoint(path)
    assert all(word in caught.value.message for word in words), caught.value.message
    assert caught.value.hint


def test_a_directory_that_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        Checkpoint(tmp_path / "nowhere")
    with pytest.raises(NotFound):
        Checkpoint(tmp_path)


@pytest.mark.parametrize("family", ["qwen3_5", "qwen3_5_moe", "qwen3_5_text", "qwen3_next"])
def test_what_sees_pictures_is_passed_over_and_said(tmp_path: Path, family: Family) -> None:
    """Not so the head that guesses ahead: that is for drafts."""
    path = make_checkpoint(tmp_path, family)
    file = SafetensorsFile(path / "model.safetensors")
    tensors = {name: (info.dtype, file.read(name)) for name, info in file.tensors.items()}
    extra = ["model.visual.patch_embed.proj.weight"] if family in ("qwen3_5", "qwen3_5_moe") else []
    ahead = ["mtp.fc.weight", "mtp.layers.0.mlp.up_proj.weight"]
    tensors |= {name: ("F32", np.zeros((4, 4), np.float32)) for name in (*extra, *ahead)}
    write_safetensors(path / "model.safetensors", tensors)
    notes = Checkpoint(path).notes
    assert [name for name in extra if any(f"`{name}`" in note for note in notes)] == extra
    assert len(notes) == len(extra)
    assert Checkpoint(path).has_ahead
