"""What a GGUF file's weights become: the same integers and scales where there are such, else a loss that is told."""

from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest

from localinfer.errors import Corrupt, LocalInferError, NotSupported
from localinfer.formats.compressed import unpack
from localinfer.formats.gguf import GgufFile
from localinfer.formats.gguf_blocks import AFFINE, EXACT_BITS
from localinfer.formats.gguf_import import in_order
from localinfer.formats.safetensors import SafetensorsFile, write_safetensors
from localinfer.formats.tokenizer import Tokenizer
from localinfer.graph.memory import weights_bytes
from localinfer.graph.program import load_program
from localinfer.graph.stored import IntLinear
from localinfer.graph.weights import Checkpoint
from localinfer.quantize.export import export_gguf
from localinfer.quantize.export_folders import export_gptq
from localinfer.quantize.from_gguf import GgufImporter, StoredBits, try_out
from tests.formats.files import write
from tests.formats.gguf_models import Kinds, gguf_of
from tests.graph.packed import quantized
from tests.graph.running import load, run
from tests.tiny import BOS, Family, make_checkpoint

WIDE: dict[str, Any] = {"hidden_size": 256, "intermediate_size": 512, "head_dim": 64}
"""Sizes that blocks of 256 divide."""
FLAT: dict[str, Any] = {"F16": np.float16, "U8": np.uint8, "I32": np.int32}
SIX_LAYERS = {"num_hidden_layers": 6, "sliding_window_pattern": 6, "query_pre_attn_scalar": 32}
EXPORTED: list[tuple[Family, dict[str, Any]]] = [
    ("llama", {}),
    ("mistral", {}),
    ("qwen2", {}),
    ("gemma3_text", SIX_LAYERS),
]
EXACT = [kind for kind in EXACT_BITS if kind not in ("Q8_0", "Q4_0")]
ROUNDED = ["Q2_K", "Q6_K", "IQ4_XS", "IQ3_S", "IQ2_XXS"]


def imported(
    tmp_path: Path, kinds: Kinds, family: Family = "llama", **config: Any
) -> tuple[GgufFile, Checkpoint, dict[str, Any]]:
    source = make_checkpoint(tmp_path / "source", family, dtype="float32", seed=3, **config)
    path = write(tmp_path / "x.gguf", gguf_of(source, kinds=kinds))
    told = GgufImporter().write(path, tmp_path / "back")
    return GgufFile(path), Checkpoint(tmp_path / "back"), told


def meant(file: GgufFile, checkpoint: Checkpoint, name: str) -> np.ndarray[Any, np.dtype[np.float32]]:
    """The matrix as the file has it, in our order of rows."""
    plan = {one.name: one for one in _plan(file)}
    one = plan[f"{name}.weight"]
    return np.asarray(in_order(file.dequantize(one.source), one))


def _plan(file: GgufFile) -> Any:
    from localinfer.formats.gguf_config import plan_import

    return plan_import(file).tensors


@pytest.mark.parametrize(("kind", "bits"), [("Q8_0", 8), ("Q5_0", 5), ("Q4_0", 4)])
@pytest.mark.parametrize("family", ["llama", "qwen2", "qwen3", "gemma3_text"])
def test_integers_and_scales_are_the_files(tmp_path: Path, kind: str, bits: int, family: Family) -> None:
    file, checkpoint, told = imported(tmp_path, {"*": kind}, family)
    for one in _plan(file):
        if len(one.shape) != 2:
            continue
        raw = file.raw(one.source).reshape(one.shape[0], -1, {8: 34, 5: 22, 4: 18}[bits])
        scales = raw[:, :, :2].copy().view("<f2")[:, :, 0]
        nibbles = np.concatenate([raw[:, :, -16:] & 15, raw[:, :, -16:] >> 4], axis=2).astype(np.int16) - 8
        if bits == 5:
            nibbles += (np.unpackbits(raw[:, :, 2:6], axis=2, bitorder="little").astype(np.int16) << 4) - 8
        integers = (raw[:, :, 2:].view(np.int8) if bits == 8 else nibbles).reshape(one.shape)
        stored = checkpoint.linear(one.name.removesuffix(".weight"))
        assert isinstance(stored, IntLinear)
        assert (stored.bits, stored.group) == (bits, 32)
        assert np.array_equal(unpack(stored.packed, bits, stored.cols), in_order(integers, one))
        assert np.array_equal(stored.scales, in_order(scales, one))
    assert told["error"] == {}
    assert any(note == f"{kind} became INT{bits} by groups of 32: exactly" for note in told["notes"])


@pytest.mark.parametrize("kind", EXACT)
def test_other_types_that_our_integers_hold(tmp_path: Path, kind: str) -> None:
    file, checkpoint, told = imported(tmp_path, {"*ffn*": kind, "*": "Q8_0"}, **WIDE)
    for name in ("model.layers.1.mlp.up_proj", "model.layers.0.mlp.down_proj"):
        assert checkpoint.form(name) == (EXACT_BITS[kind], 32)
        assert np.array_equal(checkpoint.matrix(name), meant(file, checkpoint, name))
    assert told["error"] == {}


@pytest.mark.parametrize("kind", AFFINE)
def test_minima_are_kept_and_go_back(tmp_path: Path, kind: str) -> None:
    """Bit for bit: as the file means them, packed, and exported again; and with these the text goes on."""
    bits, wide = AFFINE[kind]
    kinds = {"*ffn*": kind, "*attn_[qk]*": kind, "token_embd*": kind, "*": "Q8_0"}
    file, checkpoint, told = imported(tmp_path, kinds, **WIDE)
    at = "model.layers.1"
    for name in (f"{at}.mlp.up_proj", f"{at}.mlp.down_proj", "model.embed_tokens"):
        assert checkpoint.form(name) == (bits, 32, wide)
        assert np.array_equal(checkpoint.matrix(name), meant(file, checkpoint, name))
    assert checkpoint.form(f"{at}.self_attn.q_proj") == (8, 32)  # v has 8 bits, and the three are loaded as one
    assert f"{kind} became INT{bits} by groups of 32 with minima: exactly" in told["notes"]
    weight = load_program(checkpoint, context=64, kv_blocks=2).weight_bytes
    assert weight == weights_bytes(checkpoint) - 4 * checkpoint.graph.vector_values()
    export_gguf(tmp_path / "back", tmp_path / "y.gguf")
    again = GgufFile(tmp_path / "y.gguf")
    for name in ("blk.0.ffn_gate.weight", "blk.1.ffn_down.weight", "token_embd.weight"):
        assert again.tensors[name].type == kind
        assert np.array_equal(again.raw(name), file.raw(name))
    with pytest.raises(NotSupported, match="minima, which GPTQ has not"):
        export_gptq(tmp_path / "back", tmp_path / "g")


@pytest.mark.parametrize("kind", ["Q4_K", "Q5_K"])
def test_q_and_k_with_minima_as_well(tmp_path: Path, kind: str) -> None:
    """Rows that llama.cpp has in another order, with all that belongs to them."""
    file, checkpoint, _ = imported(tmp_path, {"*": kind}, **WIDE)
    for part in ("q_proj", "k_proj", "v_proj"):
        name = f"model.layers.0.self_attn.{part}"
        assert checkpoint.form(name) == (AFFINE[kind][0], 32, 256)
        assert np.array_equal(checkpoint.matrix(name), meant(file, checkpoint, name))
    export_gguf(tmp_path / "back", tmp_path / "y.gguf")
    assert np.array_equal(GgufFile(tmp_path / "y.gguf").raw("blk.0.attn_q.weight"), file.raw("blk.0.attn_q.weight"))


@pytest.mark.parametrize(
    ("part", "kind", "shape", "words"),
    [
        ("weight_scale", "F16", (512, 2), r"weight_scale` is \[512, 2\] for a matrix \[512, 256\] with minima"),
        ("weight_min", "F16", (512, 8), r"weight_min` is \[512, 8\]"),
        ("weight_factors", "U8", (512, 16), r"weight_factors` is \[512, 16\]"),
        ("weight_packed", "I32", (512, 31), r"weight_packed` is \[512, 31\]"),
        ("weight_factors", "", (), "weight_factors` is missing"),
    ],
)
def test_minima_that_do_not_fit(tmp_path: Path, part: str, kind: str, shape: tuple[int, ...], words: str) -> None:
    imported(tmp_path, {"*": "Q4_K"}, **WIDE)
    path = tmp_path / "back" / "model.safetensors"
    stored = SafetensorsFile(path)
    tensors = {name: (info.dtype, stored.read(name)) for name, info in stored.tensors.items()}
    name = f"model.layers.0.mlp.up_proj.{part}"
    tensors.pop(name)
    write_safetensors(path, tensors | ({name: (kind, np.zeros(shape, FLAT[kind]))} if kind else {}))
    with pytest.raises(Corrupt, match=words):
        Checkpoint(tmp_path / "back")


@pytest.mark.parametrize("kind", ROUNDED)
def test_the_rest_is_rounded_to_8_bits_and_says_so(tmp_path: Path, kind: str) -> None:
    file, checkpoint, told = imported(tmp_path, {"*ffn*": kind, "*": "Q8_0"}, **WIDE)
    name = "model.layers.1.mlp.up_proj"
    assert checkpoint.form(name) == (8, 32)
    matrix = meant(file, checkpoint, name)
    error = np.sqrt(np.square(checkpoint.matrix(name) - matrix, dtype=np.float64).mean())
    error /= np.sqrt(np.square(matrix, dtype=np.float64).mean())
    assert 0 < error < 0.01
    assert told["error"][f"{name}.weight"] == pytest.approx(error, rel=1e-4)
    assert any(note.startswith(f"{kind} became INT8 by groups of 32: a relative error of 0.") for note in told["notes"])


def test_matrices_that_are_loaded_as_one_get_the_widest_form(tmp_path: Path) -> None:
    kinds = {"*attn_v*": "Q6_K", "*ffn_up*": "F16", "output.weight": "Q6_K", "token_embd.weight": "Q4_0", "*": "Q4_0"}
    file, checkpoint, _ = imported(tmp_path, kinds, **WIDE)
    at = "model.layers.0"
    assert checkpoint.form(f"{at}.self_attn.v_proj") == checkpoint.form(f"{at}.self_attn.q_proj") == (8, 32)
    assert checkpoint.form(f"{at}.mlp.gate_proj") == checkpoint.form(f"{at}.mlp.up_proj") == (16, 0)
    assert checkpoint.form(f"{at}.mlp.down_proj") == checkpoint.form("model.embed_tokens") == (4, 32)
    assert checkpoint.form("lm_head") == (8, 32)
    exact = f"{at}.self_attn.q_proj"
    assert np.array_equal(checkpoint.matrix(exact), meant(file, checkpoint, exact))
    load(tmp_path / "back")


@pytest.mark.parametrize("bits", [8, 5, 4])
@pytest.mark.parametrize(("family", "config"), EXPORTED)
def test_what_was_exported_comes_back_bit_for_bit(
    tmp_path: Path, family: Family, config: dict[str, Any], bits: Literal[8, 5, 4]
) -> None:
    source = quantized(make_checkpoint(tmp_path / "m", family, seed=3, **config), tmp_path / "q", bits, 32)
    export_gguf(source, tmp_path / "x.gguf")
    GgufImporter().write(tmp_path / "x.gguf", tmp_path / "back")
    before, after = Checkpoint(source), Checkpoint(tmp_path / "back")
    for linear in before.graph.linears():
        one, other = before.linear(linear.name), after.linear(linear.name)
        assert isinstance(one, IntLinear)
        assert isinstance(other, IntLinear)
        assert np.array_equal(unpack(one.packed, one.bits, one.cols), unpack(other.packed, other.bits, other.cols))
        assert np.array_equal(one.scales, other.scales)
    for name, _ in before.graph.vectors():
        np.testing.assert_allclose(after.vector(name), before.vector(name), rtol=1e-6, atol=1e-7)
    tokens = [BOS, 72, 101, 108, 108, 111]
    ours, theirs = run(load(tmp_path / "back"), tokens), run(load(source), tokens)
    np.testing.assert_allclose(ours, theirs, atol=1e-4 * np.abs(theirs).max())


@pytest.mark.parametrize(("kinds", "tolerance"), [({"*": "Q8_0"}, 0.01), ({"*": "Q4_0"}, 0.05), ({"*": "Q5_K"}, 0.03)])
def test_scores_are_those_of_the_dequantized_model(tmp_path: Path, kinds: Kinds, tolerance: float) -> None:
    """Against transformers in float32 on the file's own weights; what is left is our rounding of activations."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    file, checkpoint, _ = imported(tmp_path, kinds, **WIDE)
    config = {key: value for key, value in checkpoint.config.items() if key != "quantization_config"}
    model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**config)).float().eval()
    state = {one.name: in_order(file.dequantize(one.source), one) for one in _plan(file)}
    model.load_state_dict({name: torch.from_numpy(np.array(values)) for name, values in state.items()})
    tokens = Tokenizer(tmp_path / "back").encode_text("Hello world, this is text")
    with torch.no_grad():
        theirs = model(torch.tensor([tokens])).logits[0].numpy()
    ours = run(load(tmp_path / "back"), tokens)
    assert np.abs(ours - theirs).max() < tolerance * np.abs(theirs).max()


@pytest.mark.parametrize("kind", ["Q8_0", "Q4_0", "Q5_0", "Q5_1", "Q5_K"])
def test_llama_cpp_says_the_same(tmp_path: Path, kind: str) -> None:
    llama_cpp = pytest.importorskip("llama_cpp")
    imported(tmp_path, {"*": kind}, **WIDE)
    model = llama_cpp.Llama(str(tmp_path / "x.gguf"), verbose=False, n_ctx=96, logits_all=True, seed=0)
    tokens = [72, 101, 108, 108, 111, 32, 119, 111]
    model.eval(tokens)
    theirs = np.array(model.scores[: len(tokens)])
    model.close()
    ours = run(load(tmp_path / "back"), tokens)
    assert np.abs(ours - theirs).max() < 0.08 * np.abs(theirs).max()
    margin = np.sort(theirs, axis=1)
    clear = margin[:, -1] - margin[:, -2] > 0.16 * np.abs(theirs).max()
    assert (ours.argmax(axis=1) == theirs.argmax(axis=1))[clear].all()


def test_16_bits_as_before(tmp_path: Path) -> None:
    source = make_checkpoint(tmp_path / "source", dtype="float32")
    path = write(tmp_path / "x.gguf", gguf_of(source, kinds={"*": "Q8_0"}))
    assert GgufImporter(16).bits_of(path) == 16
    assert GgufImporter().bits_of(path) == 8
    GgufImporter(16).write(path, tmp_path / "back")
    assert {Checkpoint(tmp_path / "back").form(one.name) for one in Checkpoint(source).graph.linears()} == {(16, 0)}


def test_floats_stay_floats(tmp_path: Path) -> None:
    _, checkpoint, told = imported(tmp_path, {"*": "F16"})
    assert "quantization_config" not in checkpoint.config
    assert any(note.startswith("F16 became bf16: a relative error of 0.1") for note in told["notes"])


@pytest.mark.parametrize("kind", ["Q8_0", "Q4_0", "Q5_0", "Q4_1", "Q4_K", "Q5_1", "Q5_K"])
@pytest.mark.parametrize("scale", [b"\x00\x7c", b"\x00\xfc", b"\x01\x7e"])
def test_scales_that_are_no_numbers(tmp_path: Path, kind: str, scale: bytes) -> None:
    source = make_checkpoint(tmp_path / "source", dtype="float32", **WIDE)
    data = bytearray(gguf_of(source, kinds={"*": kind}))
    place = GgufFile(write(tmp_path / "x.gguf", bytes(data))).tensors["blk.1.ffn_up.weight"]
    data[place.begin : place.begin + 2] = scale
    with pytest.raises(Corrupt, match=r"`blk\.1\.ffn_up\.weight` holds NaN or infinite weights"):
        GgufImporter().write(write(tmp_path / "y.gguf", bytes(data)), tmp_path / "back")
    assert not (tmp_path / "back" / "config.json").exists()


def test_a_model_that_cannot_speak_is_refused(tmp_path: Path) -> None:
    source = make_checkpoint(tmp_path / "source", dtype="float32")
    data = bytearray(gguf_of(source))
    place = GgufFile(write(tmp_path / "x.gguf", bytes(data))).tensors["output_norm.weight"]
    data[place.begin : place.end] = np.full(64, 3e38, "<f4").tobytes()
    with pytest.raises(Corrupt, match="scores that are no finite numbers at token 1"):
        GgufImporter().write(write(tmp_path / "y.gguf", bytes(data)), tmp_path / "back")


def test_what_the_graph_cannot_do_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    source = make_checkpoint(tmp_path / "source", dtype="float32", head_dim=24)
    path = write(tmp_path / "x.gguf", gguf_of(source))
    for work in (lambda: GgufImporter().bits_of(path), lambda: GgufImporter().write(path, tmp_path / "back")):
        with pytest.raises(NotSupported, match="heads of 24 values"):
            work()
    assert not (tmp_path / "back").exists()


def test_a_model_larger_than_memory_is_not_tried(tmp_path: Path) -> None:
    source = make_checkpoint(tmp_path / "source")
    assert try_out(source) == []
    assert "was not tried" in try_out(source, free=1000)[0]


def test_damage_is_clean(tmp_path: Path) -> None:
    """Flipped bytes anywhere, weights too: a model, or an error that says what is wrong."""
    good = gguf_of(make_checkpoint(tmp_path / "source", dtype="float32"), kinds={"*ffn*": "Q4_0", "*": "Q8_0"})
    rng = np.random.default_rng(7)
    errors = 0
    for number in range(60):
        data = bytearray(good)
        for _ in range(3):
            data[rng.integers(24, len(data))] = rng.integers(256)
        path = write(tmp_path / "y.gguf", bytes(data))
        try:
            GgufImporter().bits_of(path)
            GgufImporter().write(path, tmp_path / f"{number}")
        except LocalInferError:
            errors += 1
    assert errors < 60


def test_forms_are_decided_by_the_header(tmp_path: Path) -> None:
    source = make_checkpoint(tmp_path / "source", dtype="float32", num_hidden_layers=3)
    kinds = {"blk.1.ffn_down*": "Q8_0", "output.weight": "Q8_0", "token_embd*": "F16", "*": "Q4_0"}
    file = GgufFile(write(tmp_path / "x.gguf", gguf_of(source, kinds=kinds)))
    said = StoredBits(file, _plan(file)).quantization
    assert said is not None
    groups = {group["weights"]["num_bits"]: group["targets"] for group in said["config_groups"].values()}
    assert r"re:.*mlp\.gate_proj$" in groups[4]
    assert r"re:.*model\.layers\.0\.mlp\.down_proj$" in groups[4]
    assert groups[8] == [r"re:.*model\.layers\.1\.mlp\.down_proj$", r"re:.*lm_head$"]
    assert said["ignore"] == ["model.embed_tokens"]
