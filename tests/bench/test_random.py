"""Random weights of a known shape: whole models, the same for ever, run by the engine like any other."""

import json
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from localinfer.bench import shapes
from localinfer.bench.measure import random_tokens
from localinfer.bench.plan import parse_tests, with_streams
from localinfer.bench.random_gguf import LAYOUTS, head_type, is_random, random_gguf
from localinfer.bench.random_model import find_random, make_random, parse_form, planned_bytes
from localinfer.bench.random_values import RandomValues
from localinfer.bench.report import table
from localinfer.bench.run import run_bench
from localinfer.bench.shapes import known_shapes, shape_config
from localinfer.config import EngineConfig, SamplingParams
from localinfer.engine.opening import open_engine
from localinfer.engine.protocol import Request
from localinfer.errors import DoesNotFit, UsageError
from localinfer.events import Finished
from localinfer.formats.gguf import GgufFile
from localinfer.graph.registry import read_graph
from localinfer.graph.weights import Checkpoint
from localinfer.hub.cache import list_models
from localinfer.hub.removal import remove
from localinfer.hub.resolve import resolve
from localinfer.paths import models_dir

SMALL: dict[str, dict[str, Any]] = {
    "common": {"torch_dtype": "bfloat16", "tie_word_embeddings": True, "rms_norm_eps": 1e-6},
    "small": {
        "model_type": "qwen2",
        "hidden_size": 128,
        "intermediate_size": 192,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "vocab_size": 300,
        "max_position_embeddings": 512,
        "rope_theta": 10000.0,
    },
}


@pytest.fixture(autouse=True)
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One shape, `small`, and a home of its own."""
    monkeypatch.setenv("LOCALINFER_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(shapes, "_tables", lambda: SMALL)


def test_the_table_holds_shapes_that_families_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    sizes = {name: read_graph(shape_config(name)).parameters() for name in known_shapes()}
    assert list(sizes.values()) == sorted(sizes.values())
    assert sizes["qwen2-1.5b"] == 1543714304
    assert sizes["smollm2-135m"] == 134515008


@pytest.mark.parametrize("word", ["small", "small:INT8", "small:int3", "small:INT5", "small:BF16"])
def test_it_runs_like_any_model(word: str) -> None:
    form = parse_form(word)
    heard: list[tuple[int, int]] = []
    model = make_random(form, lambda done, total: heard.append((done, total)))
    assert model.ref == f"random/small:{word.partition(':')[2].upper() or 'INT4'}"
    assert heard[-1] == (planned_bytes(form),) * 2
    assert list_models() == [model] == [resolve(model.ref)]
    with open_engine(model.path, EngineConfig(threads=1, context=64)) as engine:
        assert engine.info.bits == model.variant
        prompt = random_tokens(engine, 20, "0")
        sampling = SamplingParams(temperature=0.0, max_tokens=8, ignore_eos=True)
        ended = [event for event in engine.stream(Request(prompt, sampling)) if isinstance(event, Finished)]
    assert len(ended[0].token_ids) == 8


def test_the_same_bytes_for_ever() -> None:
    def tensors() -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in sorted(make_random(parse_form("small")).path.iterdir())}

    first = tensors()
    remove(resolve("random/small:INT4"))
    assert find_random(parse_form("small")) is None
    assert not (models_dir() / "random--small").exists()
    assert tensors() == first


def test_activations_stay_sane() -> None:
    for word in ("small:INT4", "small:INT3", "small:INT8", "small:BF16"):
        checkpoint = Checkpoint(make_random(parse_form(word)).path)
        matrix = checkpoint.matrix("model.layers.0.mlp.down_proj")
        assert 0.5 < float(np.std(matrix)) * 192**0.5 < 2
        assert np.unique(matrix).size > 100


def test_forms_are_what_quantize_makes_unless_asked() -> None:
    usual = parse_form("small")
    assert (usual.group, usual.head_bits, usual.head_group, usual.name) == (32, 8, 64, "random/small")
    assert parse_form("small", 32, 8) == usual
    odd = parse_form("small", 64, 4)
    assert (odd.ref, planned_bytes(odd) < planned_bytes(usual)) == ("random/small-g64-h4:INT4", True)
    checkpoint = Checkpoint(make_random(odd).path)
    assert checkpoint.form("model.embed_tokens") == (4, 64)
    assert checkpoint.form("model.layers.1.self_attn.q_proj") == (4, 64)
    record = json.loads((find_random(odd).path / "localinfer.json").read_text())  # type: ignore[union-attr]
    assert record["kind"] == "random"


@pytest.mark.parametrize(
    ("word", "group", "head", "words"),
    [
        ("large", None, None, "no known shape"),
        ("small:INT6", None, None, "no form of weights"),
        ("small:BF16", 32, None, "no groups"),
        ("small", 128, None, "do not divide the 192 columns"),
    ],
)
def test_what_cannot_be(word: str, group: int | None, head: int | None, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        parse_form(word, group, head)


def test_a_full_disk_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    class Full:
        free = 1000

    monkeypatch.setattr("localinfer.bench.random_model.shutil.disk_usage", lambda path: Full)
    with pytest.raises(DoesNotFit, match=r"1\.0 kB is free"):
        make_random(parse_form("small"))
    assert not list(models_dir().glob("random*/*"))


def test_half_a_model_is_made_again(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(path: Path, value: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("localinfer.bench.random_model.write_json", fail)
        with pytest.raises(KeyboardInterrupt):
            make_random(parse_form("small"))
    assert not list(models_dir().glob("random*/*"))
    assert make_random(parse_form("small")).variant == "INT4"


@pytest.mark.parametrize(
    ("word", "types"), [("small", {"Q4_0", "Q8_0"}), ("small:INT8", {"Q8_0"}), ("small:BF16", {"BF16"})]
)
def test_the_same_shape_for_the_other_engine(word: str, types: set[str]) -> None:
    pytest.importorskip("llama_cpp")
    model = make_random(parse_form(word))
    assert is_random(model.path)
    path = random_gguf(model.path)
    assert path.parent == model.path
    assert random_gguf(model.path) == path
    found = GgufFile(path).tensors.values()
    assert {tensor.type for tensor in found} == types | {"F32"}
    ours = Checkpoint(model.path).graph.parameters()
    assert sum(prod(tensor.shape) for tensor in found) == ours
    with open_engine(path, EngineConfig(threads=1, context=64), backend="llamacpp") as engine:
        assert engine.tokenizer.vocab_size == 300
        prompt = random_tokens(engine, 9, "0")
        sampling = SamplingParams(temperature=0.0, max_tokens=4, ignore_eos=True)
        ended = [event for event in engine.stream(Request(prompt, sampling)) if isinstance(event, Finished)]
    assert len(ended[0].token_ids) == 4
    assert not list(model.path.glob("*.tmp"))
    remove(model)
    assert not path.exists()


def test_embedding_and_head_are_as_the_other_quantizer_makes_them() -> None:
    assert [head_type("Q4_0", hidden) for hidden in (1536, 576)] == ["Q6_K", "Q8_0"]
    assert head_type("Q8_0", 1536) == "Q8_0"


def test_blocks_of_the_other_engine_are_sane() -> None:
    from gguf import GGMLQuantizationType
    from gguf.quants import dequantize

    for word, (block, layout, spread) in LAYOUTS.items():
        raw = RandomValues(3).blocks("x", 4096, layout, 1 / spread)
        values = dequantize(raw.view(np.uint8).reshape(4096, -1), GGMLQuantizationType[word])
        assert values.size == 4096 * block
        assert 0.5 < float(np.std(values)) < 2


def test_all_engines_on_random_weights() -> None:
    pytest.importorskip("llama_cpp")
    pytest.importorskip("ik_llama_cpp")
    model = make_random(parse_form("small"))
    config = EngineConfig(threads=1)
    report = run_bench(
        model.path,
        config,
        with_streams(parse_tests(["pp40", "tg4"]), [3]),
        name=model.ref,
        repetitions=1,
        against=random_gguf(model.path),
        peers=("llamacpp", "ik_llamacpp"),
        refresh=False,
    )
    assert [row.test for row in report.rows] == ["pp40", "tg4", "tg4x3"]
    theirs = [(row.test, row.backend, row.batch) for row in report.peers]
    tests = (("pp40", 1), ("tg4", 1), ("tg4x3", 3))
    assert theirs == [(test, who, batch) for test, batch in tests for who in ("llamacpp", "ik_llamacpp")]
    assert 4.5 < report.rows[0].bits_per_weight < 9
    assert 4.5 < report.peers[0].bits_per_weight < 9
    assert report.rows[0].peak_share is not None
    assert report.machine.int8_tops is not None
    assert report.model.load_s > 0
    said = table(report)
    assert all(f"x {who}" in said for who in ("llamacpp", "ik_llamacpp"))
    assert "tg4x3: " in said
