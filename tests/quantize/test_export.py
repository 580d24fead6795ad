"""Exported models: every weight as it was, read back by second readers; and llama.cpp answers like our engine."""

from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest

from localinfer.errors import DoesNotFit, NotSupported, UsageError
from localinfer.evaluate import evaluate, held_out_text
from localinfer.formats.bf16 import to_bf16
from localinfer.formats.checkpoint_files import open_tensors
from localinfer.formats.gguf import GgufFile
from localinfer.formats.gguf_import import import_gguf
from localinfer.formats.tokenizer import Tokenizer
from localinfer.graph.stored import narrow, widen
from localinfer.graph.weights import Checkpoint
from localinfer.quantize.export import export_gguf
from localinfer.quantize.export_folders import DTYPES, Head, export_compressed, export_gptq
from tests.graph.foreign import decoded_words
from tests.graph.packed import quantized
from tests.tiny import LLAMA3_ROPE, Family, make_checkpoint

GEMMA: dict[str, Any] = {"num_hidden_layers": 7, "sliding_window_pattern": 6, "query_pre_attn_scalar": 32}
MODELS: list[tuple[Family, dict[str, Any]]] = [
    ("llama", {}),
    ("llama", {"attention_bias": True, "tie_word_embeddings": True, "head_dim": 32}),
    ("llama", {"rope_scaling": LLAMA3_ROPE | {"original_max_position_embeddings": 8192}, "head_dim": 64}),
    ("llama", {"rope_scaling": {"rope_type": "linear", "factor": 4.0}}),
    ("mistral", {}),
    ("qwen2", {}),
    ("qwen3", {}),
    ("gemma3_text", GEMMA),
    ("gemma3_text", GEMMA | {"final_logit_softcapping": 2.0}),
]


@pytest.mark.parametrize(("family", "config"), MODELS)
@pytest.mark.parametrize("bits", [16, 8, 4, 3])
def test_a_gguf_file_comes_back_as_it_was(tmp_path: Path, family: Family, config: dict[str, Any], bits: int) -> None:
    source = make_checkpoint(tmp_path / "m", family, seed=3, **config)
    if bits != 16:
        source = quantized(source, tmp_path / "q", bits, 32)
    seen: list[tuple[int, int]] = []
    kind = export_gguf(source, tmp_path / "x.gguf", None, lambda done, total: seen.append((done, total)))
    assert kind == {16: "F16", 8: "Q8_0", 4: "Q4_0", 3: "Q4_0"}[bits]
    assert seen[-1][0] == seen[-1][1] == sum(t.end - t.begin for t in GgufFile(tmp_path / "x.gguf").tensors.values())
    import_gguf(tmp_path / "x.gguf", tmp_path / "back")
    before, after = Checkpoint(source), Checkpoint(tmp_path / "back")
    for linear in before.graph.linears():
        matrix = before.matrix(linear.name)
        matrix = matrix.astype(np.float16).astype(np.float32) if bits == 16 else matrix
        assert np.array_equal(after.matrix(linear.name), widen(narrow("w", matrix)))
    for name, _ in before.graph.vectors():
        np.testing.assert_allclose(after.vector(name), before.vector(name), rtol=2**-8, atol=2**-8)
    ropes = [getattr(op, "rope", None) for op in before.graph.ops]
    for one, op in zip(ropes, after.graph.ops, strict=True):
        assert one is None or np.allclose(one.inv_freq, getattr(op, "rope").inv_freq, rtol=1e-6)  # noqa: B009
    assert after.spec.windows == before.spec.windows
    assert after.spec.logit_softcap == before.spec.logit_softcap
    theirs, ours = Tokenizer(source), Tokenizer(tmp_path / "back")
    text = "Hello there, the 日本 <|im_end|>"
    assert ours.encode_text(text) == theirs.encode_text(text)
    assert (ours.bos_id, ours.eos_ids, ours.adds_bos) == (theirs.bos_id, theirs.eos_ids, theirs.adds_bos)
    assert ours.chat_template == theirs.chat_template


@pytest.mark.parametrize("kind", ["Q8_0", "Q4_0"])
def test_plain_weights_are_rounded_when_asked(tmp_path: Path, kind: Literal["Q8_0", "Q4_0"]) -> None:
    source = make_checkpoint(tmp_path / "m", "qwen2")
    export_gguf(source, tmp_path / "x.gguf", kind)
    file = GgufFile(tmp_path / "x.gguf")
    assert file.tensors["blk.0.ffn_up.weight"].type == kind
    assert file.tensors["token_embd.weight"].type == "Q8_0"
    matrix = Checkpoint(source).matrix("model.layers.0.mlp.up_proj")
    error = np.square(file.dequantize("blk.0.ffn_up.weight") - matrix).sum() / np.square(matrix).sum()
    assert error < {"Q8_0": 1e-4, "Q4_0": 1e-2}[kind]


@pytest.mark.parametrize("bits", [16, 8, 4])
@pytest.mark.parametrize(("family", "config"), [MODELS[0], MODELS[2], *MODELS[5:]])
def test_llama_cpp_answers_like_our_engine(tmp_path: Path, family: Family, config: dict[str, Any], bits: int) -> None:
    source = make_checkpoint(tmp_path / "m", family, seed=3, **config)
    if bits != 16:
        source = quantized(source, tmp_path / "q", bits, 32)
    export_gguf(source, tmp_path / "x.gguf")
    quality = evaluate([tmp_path / "x.gguf"], source, held_out_text(), ctx=32, chunks=4, kv_bits=16)[0]
    assert quality.kld_mean is not None
    # Activations of INT8 models have 16 bits here and 8 there. Another model would be whole nats away.
    assert quality.kld_mean < {16: 1e-4, 8: 1e-2, 4: 1e-2}[bits]


@pytest.mark.parametrize("bits", [8, 4, 3])
def test_gptq_as_a_second_reader_sees_it(tmp_path: Path, bits: int) -> None:
    source = quantized(make_checkpoint(tmp_path / "m", "qwen2"), tmp_path / "q", bits, 32)
    assert export_gptq(source, tmp_path / "g") == (bits, 32)
    before, after, files = Checkpoint(source), Checkpoint(tmp_path / "g"), open_tensors(tmp_path / "g")
    assert after.scheme.method == "gptq"
    assert {f.name for f in (tmp_path / "g").iterdir()} >= {"tokenizer.json", "config.json", "generation_config.json"}
    for linear in before.graph.linears():
        if not linear.name.startswith("model.layers"):
            halves = before.matrix(linear.name).astype(np.float16).astype(np.float32)
            assert np.array_equal(after.matrix(linear.name), halves)
            continue
        parts = {part: files[f"{linear.name}.{part}"].read() for part in ("qweight", "qzeros", "scales", "g_idx")}
        q = decoded_words(parts["qweight"].T, bits)
        zero = decoded_words(parts["qzeros"], bits).T + 1
        groups = parts["g_idx"]
        meant = (q - zero[:, groups]).astype(np.float32) * parts["scales"].T[:, groups].astype(np.float32)
        assert np.array_equal(meant, before.matrix(linear.name))
        assert np.array_equal(meant, after.matrix(linear.name))


@pytest.mark.parametrize("family", ["llama", "granitemoehybrid", "qwen2"])
def test_compressed_tensors_with_plain_tables(tmp_path: Path, family: Family) -> None:
    """Layers to the byte, embedding and head as the nearest bfloat16; what is no integer stays a float."""
    source = quantized(make_checkpoint(tmp_path / "m", family), tmp_path / "q", 4, 32)
    assert export_compressed(source, tmp_path / "c") == "4 bits by 32"
    before, after, files = Checkpoint(source), Checkpoint(tmp_path / "c"), open_tensors(tmp_path / "c")
    floats = {one.name for one in before.graph.unquantized}
    for linear in before.graph.linears():
        wanted, got = before.matrix(linear.name), after.matrix(linear.name)
        if linear.name.startswith("model.layers"):
            assert (f"{linear.name}.weight_packed" in files) == (linear.name not in floats)
            assert np.array_equal(got, wanted)
        else:
            assert files[f"{linear.name}.weight"].info.dtype == "BF16"
            assert np.array_equal(got, widen(to_bf16(wanted)))
    for name, _ in before.graph.vectors():
        assert np.array_equal(before.vector(name), after.vector(name))


@pytest.mark.parametrize("head", ["bf16", "f16"])
@pytest.mark.parametrize("export", [export_compressed, export_gptq])
def test_embedding_and_head_as_they_are_asked_for(tmp_path: Path, head: Head, export: Any) -> None:
    source = quantized(make_checkpoint(tmp_path / "m", "qwen2"), tmp_path / "q", 4, 32)
    export(source, tmp_path / "e", head=head)
    tables = [tensor for name, tensor in open_tensors(tmp_path / "e").items() if "embed" in name or "lm_head" in name]
    assert {tensor.info.dtype for tensor in tables} == {head.upper()}
    assert Checkpoint(tmp_path / "e").config["torch_dtype"] == DTYPES[head]


def test_what_cannot_be_exported(tmp_path: Path) -> None:
    source = make_checkpoint(tmp_path / "m", "llama")
    eight = quantized(source, tmp_path / "q", 8, 32)
    with pytest.raises(UsageError, match="weights of 8 bits do not fit into Q4_0"):
        export_gguf(eight, tmp_path / "x.gguf", "Q4_0")
    with pytest.raises(UsageError, match="is there already"):
        export_gguf(eight, eight)
    with pytest.raises(UsageError, match="no such folder"):
        export_gguf(eight, tmp_path / "nowhere" / "x.gguf")
    for export in (export_gptq, export_compressed):
        with pytest.raises(NotSupported, match="are no integers"):
            export(source, tmp_path / "g")
    with pytest.raises(NotSupported, match="GPTQ has no words for 5 bits"):
        export_gptq(quantized(source, tmp_path / "five", 5, 32), tmp_path / "g")
    sliding = make_checkpoint(tmp_path / "s", "mistral", sliding_window=8)
    with pytest.raises(NotSupported, match="sliding windows"):
        export_gguf(sliding, tmp_path / "x.gguf")
    scaled = make_checkpoint(tmp_path / "c", "gemma3_text", query_pre_attn_scalar=24)
    with pytest.raises(NotSupported, match="attention scale"):
        export_gguf(scaled, tmp_path / "x.gguf")
    assert not [file for file in tmp_path.iterdir() if file.name.startswith(("x", "g"))]


def test_a_full_disk_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = quantized(make_checkpoint(tmp_path / "m", "llama"), tmp_path / "q", 4, 32)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("localinfer.formats.gguf_writing.sync", full)
    monkeypatch.setattr("localinfer.quantize.export_folders.write_json", full)
    with pytest.raises(DoesNotFit):
        export_gguf(source, tmp_path / "x.gguf")
    with pytest.raises(DoesNotFit):
        export_gptq(source, tmp_path / "g")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["m", "q"]
