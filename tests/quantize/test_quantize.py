"""Quantizing whole directories: what is written, how good it is, and what is refused."""

import hashlib
import json
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest

from localinfer.errors import Corrupt, LocalInferError, NotFound, NotSupported, UsageError
from localinfer.formats.checkpoint_files import open_tensors
from localinfer.formats.tokenizer import Tokenizer
from localinfer.graph.stored import widen
from localinfer.graph.weights import Checkpoint
from localinfer.quantize import quantize_checkpoint
from localinfer.quantize.plan import make_plan
from tests.quantize.trees import read_tensor, record, replace_tensor, tree
from tests.tiny import Family, make_checkpoint

Bits = Literal[8, 5, 4, 3]
# Of the body, relative root mean square, groups of 32.
LARGEST_ERROR = {8: 0.006, 5: 0.046, 4: 0.09, 3: 0.18}


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    return make_checkpoint(tmp_path / "tiny", "llama")


@pytest.mark.parametrize("bits", [8, 5, 4, 3])
@pytest.mark.parametrize("family", ["llama", "qwen2", "qwen3", "mistral", "gemma3_text", "gemma3"])
def test_every_family_and_width(tmp_path: Path, family: Family, bits: Bits) -> None:
    source = make_checkpoint(tmp_path / "source", family)
    seen: list[tuple[int, int]] = []
    report = quantize_checkpoint(
        source, tmp_path / "q", bits=bits, group=32, on_progress=lambda done, total: seen.append((done, total))
    )
    before, after = Checkpoint(source), Checkpoint(tmp_path / "q")
    assert after.spec == before.spec
    for linear in before.graph.linears():
        table = linear.name in ("model.embed_tokens", "lm_head")
        assert after.form(linear.name) == ((8, 64) if table and bits != 8 else (bits, 32))
        original, rounded = before.matrix(linear.name), after.matrix(linear.name)
        error = np.linalg.norm(original - rounded) / np.linalg.norm(original)
        assert error < (0.006 if table else LARGEST_ERROR[bits]), linear.name
    for name, _ in before.graph.vectors():
        np.testing.assert_array_equal(after.vector(name), before.vector(name))
    assert seen[-1] == (report.weights, report.weights)
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert report.error < LARGEST_ERROR[bits]
    assert report.bits == bits
    assert report.size_bytes == sum(len(data) for data in tree(tmp_path / "q").values())
    assert report.body_bits_per_weight == pytest.approx(bits + 16 / 32, abs=0.1)
    assert Tokenizer(tmp_path / "q").encode_text("hi") == Tokenizer(source).encode_text("hi")


def test_the_folder(tmp_path: Path, tiny: Path) -> None:
    quantize_checkpoint(tiny, tmp_path / "q", bits=4)
    names = set(tree(tmp_path / "q"))
    shards = {f"model-{i:05d}-of-00005.safetensors" for i in range(1, 6)}  # embedding, two layers, norm, head
    small = {"config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "localinfer.json"}
    assert names == shards | small | {"model.safetensors.index.json"}
    written = record(tmp_path / "q")
    assert written["kind"] == "quantized"
    assert written["recipe"]["bits"] == 4
    assert set(written["source"]["files"]) == {path.name for path in tiny.iterdir()}
    for name in names - {"localinfer.json", "config.json"}:
        assert written["files"][name] == hashlib.sha256((tmp_path / "q" / name).read_bytes()).hexdigest()
    config = json.loads((tmp_path / "q" / "config.json").read_text())
    original = json.loads((tiny / "config.json").read_text())
    assert {key: value for key, value in config.items() if key != "quantization_config"} == original
    assert {path.name for path in tmp_path.iterdir()} == {"tiny", "q"}


def test_all_chat_templates_are_taken_over(tmp_path: Path, tiny: Path) -> None:
    (tiny / "additional_chat_templates").mkdir()
    (tiny / "additional_chat_templates" / "tool_use.jinja").write_text("T")
    (tiny / "chat_template.jinja").write_text("J")
    quantize_checkpoint(tiny, tmp_path / "q", bits=4)
    assert Tokenizer(tmp_path / "q").chat_templates == {"default": "J", "tool_use": "T"}
    assert "additional_chat_templates/tool_use.jinja" in record(tmp_path / "q")["files"]


def test_threads_do_not_change_a_byte(tmp_path: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("localinfer.quantize.layer.PIECE", 1024)  # many tasks, though the model is tiny
    quantize_checkpoint(tiny, tmp_path / "one", bits=3, threads=1)
    quantize_checkpoint(tiny, tmp_path / "four", bits=3, threads=4)
    assert tree(tmp_path / "one") == tree(tmp_path / "four")


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_other_source_types(tmp_path: Path, dtype: Literal["float16", "float32"]) -> None:
    source = make_checkpoint(tmp_path / "source", "llama", dtype=dtype)
    quantize_checkpoint(source, tmp_path / "q", bits=8)
    Checkpoint(tmp_path / "q")


def test_tied_heads_stay_tied(tmp_path: Path) -> None:
    source = make_checkpoint(tmp_path / "source", "llama", tie_word_embeddings=True)
    replace_tensor(source, "lm_head.weight", widen(read_tensor(source, "model.embed_tokens.weight")))
    assert "lm_head.weight" in open_tensors(source)  # a copy, as some exports have
    quantize_checkpoint(source, tmp_path / "q", bits=4)
    assert not [name for name in open_tensors(tmp_path / "q") if name.startswith("lm_head")]
    assert Checkpoint(tmp_path / "q").spec.tied


def test_shards_and_other_parts_of_a_model(tmp_path: Path) -> None:
    """A picture tower is carried along untouched."""
    source = make_checkpoint(tmp_path / "source", "gemma3")
    name = "vision_tower.vision_model.encoder.layers.0.self_attn.q_proj.weight"
    replace_tensor(source, name, np.ones((3, 5), np.float32))
    quantize_checkpoint(source, tmp_path / "q", bits=4)
    np.testing.assert_array_equal(read_tensor(tmp_path / "q", name), np.ones((3, 5), np.float32))
    Checkpoint(tmp_path / "q")
    sharded = make_checkpoint(tmp_path / "sharded", "llama", shards=3)
    quantize_checkpoint(sharded, tmp_path / "q3", bits=4)
    quantize_checkpoint(make_checkpoint(tmp_path / "whole", "llama"), tmp_path / "q1", bits=4)
    weights = {name: data for name, data in tree(tmp_path / "q3").items() if name.startswith("model-")}
    assert weights == {name: data for name, data in tree(tmp_path / "q1").items() if name.startswith("model-")}


def groups_of(tmp_path: Path, bits: int, group: int | None, **config: Any) -> tuple[int, int, tuple[str, ...]]:
    source = make_checkpoint(tmp_path / "source", "llama", **config)
    plan = make_plan(source, bits, group)
    return plan.group, plan.table_group, plan.notes


def test_groups_chosen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert groups_of(tmp_path, 8, None) == (32, 32, ())
    assert groups_of(tmp_path, 4, None) == (32, 64, ())
    assert groups_of(tmp_path, 3, 64) == (64, 64, ())
    monkeypatch.setattr("localinfer.quantize.plan.LARGE_MODEL", 1000)
    assert groups_of(tmp_path, 4, None) == (64, 64, ())
    group, table, notes = groups_of(tmp_path, 8, None, hidden_size=96, head_dim=16)
    assert (group, table) == (32, 32)
    assert notes == ("groups of 32: 64 does not divide the 96 columns of `model.layers.0.self_attn.q_proj`",)


@pytest.mark.parametrize(
    ("config", "group", "words", "hint"),
    [
        ({}, 128, "groups of 128 do not divide the 64 columns of `model.layers.0.self_attn.q_proj`", "--group 64"),
        ({"intermediate_size": 160}, 64, "groups of 64 do not divide the 160 columns of `.*down_proj`", "--group 32"),
        ({"intermediate_size": 100}, None, "groups of 32 do not divide the 100 columns", "cannot be quantized"),
        ({"hidden_size": 80, "head_dim": 16}, 32, "groups of 32 do not divide the 80 columns", "cannot be quantized"),
        ({}, 16, "group is 16, but must be one of 32, 64, 128", "--group"),
        ({}, 0, "group is 0", "--group"),
    ],
)
def test_groups_refused(tmp_path: Path, config: dict[str, Any], group: int | None, words: str, hint: str) -> None:
    source = make_checkpoint(tmp_path / "source", "llama", **config)
    with pytest.raises(UsageError, match=words) as caught:
        quantize_checkpoint(source, tmp_path / "q", bits=4, group=group)
    assert hint in str(caught.value.hint)
    assert {path.name for path in tmp_path.iterdir()} == {"source"}


def test_quantized_already(tmp_path: Path, tiny: Path) -> None:
    quantize_checkpoint(tiny, tmp_path / "q", bits=8)
    with pytest.raises(NotSupported, match="is quantized already"):
        quantize_checkpoint(tmp_path / "q", tmp_path / "q2", bits=4)


def test_dest_is_there(tmp_path: Path, tiny: Path) -> None:
    (tmp_path / "q").mkdir()
    with pytest.raises(UsageError, match="is there already"):
        quantize_checkpoint(tiny, tmp_path / "q", bits=4)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize(
    "name", ["model.layers.1.mlp.up_proj.weight", "model.norm.weight", "model.embed_tokens.weight"]
)
def test_nan_is_named(tmp_path: Path, name: str, value: float) -> None:
    source = make_checkpoint(tmp_path / "source", "llama", dtype="float32")
    values = read_tensor(source, name)
    values.reshape(-1)[-3] = value
    replace_tensor(source, name, values)
    with pytest.raises(Corrupt, match=f"`{name}` holds NaN or infinity"):
        quantize_checkpoint(source, tmp_path / "q", bits=4)
    assert {path.name for path in tmp_path.iterdir()} == {"source"}


def test_absurdly_large_weights_are_named(tmp_path: Path) -> None:
    source = make_checkpoint(tmp_path / "source", "llama", dtype="float32")
    values = read_tensor(source, "model.layers.0.mlp.up_proj.weight")
    values[3, 3] = 1e38
    replace_tensor(source, "model.layers.0.mlp.up_proj.weight", values)
    with pytest.raises(Corrupt, match=r"`model\.layers\.0\.mlp\.up_proj\.weight` holds weights too large"):
        quantize_checkpoint(source, tmp_path / "q", bits=4)


def test_sources_that_are_no_models(tmp_path: Path, tiny: Path) -> None:
    def refused(error: type[LocalInferError], words: str) -> None:
        with pytest.raises(error, match=words):
            quantize_checkpoint(tiny, tmp_path / "q", bits=4)

    whole = (tiny / "model.safetensors").read_bytes()
    (tiny / "model.safetensors").write_bytes(whole[:-1])
    refused(Corrupt, r"model\.safetensors")
    (tiny / "model.safetensors").write_bytes(whole)
    replace_tensor(tiny, "model.layers.1.mlp.up_proj.weight", None)
    refused(Corrupt, r"`model\.layers\.1\.mlp\.up_proj\.weight` is missing")
    (tiny / "model.safetensors").unlink()
    refused(NotFound, r"no model\.safetensors")
    (tiny / "pytorch_model.bin").write_bytes(b"\x80\x02")
    refused(NotSupported, "pickled weights only")
    config = json.loads((tiny / "config.json").read_text())
    (tiny / "config.json").write_text(json.dumps(config | {"model_type": "mamba"}))
    refused(NotSupported, "mamba")
    (tiny / "config.json").unlink()
    refused(NotFound, r"config\.json")
    assert {path.name for path in tmp_path.iterdir()} == {"tiny"}


def test_a_hub_snapshot_tells_its_commit(tmp_path: Path) -> None:
    commit = "0123456789abcdef0123456789abcdef01234567"
    source = make_checkpoint(tmp_path / "models--org--name" / "snapshots" / commit, "llama")
    quantize_checkpoint(source, tmp_path / "q", bits=4)
    assert record(tmp_path / "q")["source"]["revision"] == commit
    assert record(tmp_path / "q")["source"]["repository"] == "org/name"
