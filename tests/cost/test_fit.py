"""Estimates against what the native program really takes, from headers alone."""

import json
from pathlib import Path
from typing import Any

import pytest

from localinfer.config import DEFAULT_CONTEXT
from localinfer.cost.fit import estimate
from localinfer.cost.roofline import fastest, gguf_traffic, share, traffic
from localinfer.errors import LocalInferError
from localinfer.formats.gguf import GgufFile
from localinfer.graph.memory import kv_bytes, weights_bytes
from localinfer.graph.program import load_program
from localinfer.graph.weights import Checkpoint
from localinfer.quantize.export import export_gguf
from tests.hub.test_starter import write_gguf
from tests.tiny import make_checkpoint

FAMILIES = ["llama", "qwen2", "qwen3", "gemma3_text"]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("kv_bits", [8, 16])
def test_the_estimate_is_what_the_program_takes(tmp_path: Path, family: Any, kv_bits: Any) -> None:
    path = make_checkpoint(tmp_path / "m", family)
    checkpoint = Checkpoint(path)
    fit = estimate(path, context=100, parallel=2, kv_bits=kv_bits)
    program = load_program(checkpoint, threads=1, context=100, kv_blocks=8, kv_bits=kv_bits)
    assert fit.kv_bytes == program.kv_bytes
    vectors = 4 * checkpoint.graph.vector_values()
    assert fit.weights_bytes - vectors <= program.weight_bytes <= fit.weights_bytes
    assert fit.total_bytes == fit.weights_bytes + fit.kv_bytes + fit.other_bytes
    assert fit.context == 100


def test_a_4_bit_cache(tmp_path: Path) -> None:
    path = make_checkpoint(tmp_path / "m", head_dim=64, num_hidden_layers=3)
    for bits in ([4, 4, 4], [4, 8, 4]):
        program = load_program(Checkpoint(path), threads=1, context=100, kv_blocks=4, kv_bits=bits)
        assert program.kv_bits == bits
        assert estimate(path, context=100, kv_bits=bits).kv_bytes == program.kv_bytes
        assert traffic(path, bits).bytes_per_token(32) - traffic(path, bits).weights == program.kv_bytes // 4
    assert estimate(path, context=100, kv_bits=4).kv_bytes == estimate(path, context=100, kv_bits=[4, 4, 4]).kv_bytes


def test_no_context_is_the_engines_own_choice(tmp_path: Path) -> None:
    path = make_checkpoint(tmp_path / "m")
    longest = Checkpoint(path).spec.max_context
    assert estimate(path).context == min(longest, DEFAULT_CONTEXT)
    assert estimate(path, free_bytes=1) == estimate(path, context=min(longest, DEFAULT_CONTEXT), free_bytes=1)


def test_it_grows_with_context_and_sequences(tmp_path: Path) -> None:
    path = make_checkpoint(tmp_path / "m")
    small, long, wide = estimate(path, context=64), estimate(path, context=128), estimate(path, context=64, parallel=4)
    assert long.kv_bytes == 2 * small.kv_bytes
    assert wide.kv_bytes == 4 * small.kv_bytes
    assert small.weights_bytes == long.weights_bytes == wide.weights_bytes
    assert estimate(path, context=64, kv_bits=16).kv_bytes < 2 * small.kv_bytes


def test_fits_or_not(tmp_path: Path) -> None:
    path = make_checkpoint(tmp_path / "m")
    need = estimate(path, context=64).total_bytes
    assert estimate(path, context=64, free_bytes=need).fits
    assert not estimate(path, context=64, free_bytes=need - 1).fits


def test_weights_are_never_read(tmp_path: Path) -> None:
    """A header that promises terabytes is judged by the header: the file behind it has holes, not bytes."""
    path = make_checkpoint(tmp_path / "m")
    config = json.loads((path / "config.json").read_text())
    config |= {"num_hidden_layers": 1 << 40}
    (path / "config.json").write_text(json.dumps(config))
    with pytest.raises(LocalInferError, match="num_hidden_layers"):
        estimate(path)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_token_reads_all_weights_but_one_embedding(tmp_path: Path, family: Any) -> None:
    path = make_checkpoint(tmp_path / "m", family)
    checkpoint = Checkpoint(path)
    read = traffic(path, 8)
    table = checkpoint.graph.embed.table
    saved = 0 if checkpoint.spec.tied else table.rows * table.cols * 2 - table.cols * 2
    assert read.weights == weights_bytes(checkpoint) - saved
    assert read.bytes_per_token() == read.weights
    per_token = sum(kv_bytes(checkpoint.graph, 8))
    assert read.bytes_per_token(1) == read.weights + per_token
    window = max(checkpoint.spec.windows)
    full = checkpoint.spec.windows.count(0)
    deep = 10_000
    layers = len(checkpoint.spec.windows)
    assert read.bytes_per_token(deep) == read.weights + per_token // layers * (full * deep + (layers - full) * window)


def test_a_gguf_file_reads_its_tensors(tmp_path: Path) -> None:
    write_gguf(tmp_path / "m.gguf")
    read = gguf_traffic(tmp_path / "m.gguf", 16)
    one = 2 * 16 * 1 * 2
    assert read.kv_per_token == ((one, 0),)
    assert 0 < read.weights <= (tmp_path / "m.gguf").stat().st_size


def test_of_experts_a_gguf_file_reads_those_that_are_chosen(tmp_path: Path) -> None:
    source = make_checkpoint(tmp_path / "m", "olmoe", num_key_value_heads=4)
    export_gguf(source, tmp_path / "m.gguf")
    of = Checkpoint(source).spec.mixture
    assert of is not None
    assert of.chosen < of.experts
    sizes = {name: one.end - one.begin for name, one in GgufFile(tmp_path / "m.gguf").tensors.items()}
    experts = sum(nbytes for name, nbytes in sizes.items() if "_exps." in name)
    table = sizes["token_embd.weight"] if "output.weight" in sizes else 0
    read = gguf_traffic(tmp_path / "m.gguf", 16).weights
    assert read == sum(sizes.values()) - table - experts + experts * of.chosen // of.experts


def test_of_gemma4_a_gguf_file_reads_no_table_and_keeps_what_layers_keep(tmp_path: Path) -> None:
    source = make_checkpoint(tmp_path / "m", "gemma4_text")
    export_gguf(source, tmp_path / "m.gguf")
    sizes = {name: one.end - one.begin for name, one in GgufFile(tmp_path / "m.gguf").tensors.items()}
    read = gguf_traffic(tmp_path / "m.gguf", 16)
    assert read.weights == sum(sizes.values()) - sizes["per_layer_token_embd.weight"]
    ours = traffic(source, 16).kv_per_token
    assert [window for _, window in read.kv_per_token] == [window for _, window in ours] == [8, 0, 8, 0]
    assert [one for one, _ in read.kv_per_token] == [2 * 2 * size * 2 for size in (32, 64, 32, 64)]


def test_shares() -> None:
    assert share(10**9, 10.0, 2e10) == 0.5
    assert share(10**9, 10.0, 0.0) == 0.0
    assert fastest(10**9, 2e10) == 20.0
    assert fastest(0, 2e10) == 0.0
