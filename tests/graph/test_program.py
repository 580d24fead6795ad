"""The native program against transformers and the torch executor: every family, every kind of weight, both caches."""

import json
from pathlib import Path
from typing import Literal

import numpy as np
import pytest

from localinfer import native
from localinfer.errors import Corrupt, DoesNotFit, NotSupported
from localinfer.formats.safetensors import SafetensorsFile, write_safetensors
from localinfer.graph.packing import activation_bits
from localinfer.graph.program import load_program
from localinfer.graph.weights import Checkpoint
from localinfer.quantize import quantize_checkpoint
from tests.graph.emulated import Emulated
from tests.graph.oracle import assert_close, oracle
from tests.graph.packed import quantized
from tests.graph.running import CONTEXT, greedy, load, run, run_apart
from tests.graph.variants import VARIANTS
from tests.tiny import make_checkpoint

# Against an executor with the same roundings, sums are in another order, and now and then that order decides how a
# value is rounded: one of at least 16 values that are summed is then off by 2^-11 (f16) or 2^-7 (int8) of itself, and
# rows that see it differ too.
CLOSE = {16: 2e-3, 8: 0.1}


@pytest.mark.parametrize("variant", VARIANTS)
def test_writes_what_transformers_writes(variant: str) -> None:
    """Weights are bf16 in both, so that only the cache's f16 and the order of sums differ."""
    said = oracle(variant)
    said.decides()
    assert greedy(load(said.path)) == said.greedy
    # Keys in f16 move scores of about 10 by 2^-11 each, sums of 16 or more of them and two or three layers later.
    assert_close(run(load(said.path), said.tokens), said.logits, 0.03)


@pytest.mark.parametrize("kv_bits", [16, 8])
@pytest.mark.parametrize("variant", VARIANTS)
def test_means_what_the_reference_means(variant: str, kv_bits: Literal[8, 16]) -> None:
    said = oracle(variant)
    meant = Emulated(Checkpoint(said.path), kv_bits).logits(said.tokens).numpy()
    assert_close(run(load(said.path, kv_bits), said.tokens), meant, CLOSE[kv_bits])


def assert_mostly_equal(path: Path, tokens: list[int]) -> None:
    """Three tokens at a time, so that a value that was rounded the other way is seen by few rows."""
    threes = np.array(tokens[:78], np.int32).reshape(-1, 3)
    emulated = Emulated(Checkpoint(path), 8)
    meant = np.stack([emulated.logits(three.tolist()).numpy() for three in threes])
    error = np.abs(run_apart(load(path, 8), threes) - meant).max(axis=(1, 2)) / meant.std()
    # Most agree to float32's rounding; with 256 times as many borders between integers, to a few 16-bit steps.
    assert np.median(error) < (1e-4 if activation_bits(Checkpoint(path)) == 8 else 1e-3)
    assert error.max() < 0.5, f"sequence {error.argmax()}"


@pytest.mark.parametrize(("bits", "group"), [(8, 64), (8, 32), (4, 32), (4, 64), (3, 32), (3, 64)])
@pytest.mark.parametrize("variant", ["llama", "qwen2", "qwen3", "gemma3_text", "gemma3_text-untied-mqa"])
def test_integer_weights_mean_what_the_reference_means(tmp_path: Path, variant: str, bits: int, group: int) -> None:
    assert_mostly_equal(quantized(oracle(variant).path, tmp_path / "packed", bits, group), oracle(variant).tokens)


@pytest.mark.parametrize(("variant", "bits"), [("gemma3", 4), ("llama-tied", 3), ("mistral-window", 8)])
def test_what_quantize_writes_means_the_same(tmp_path: Path, variant: str, bits: Literal[8, 4, 3]) -> None:
    quantize_checkpoint(oracle(variant).path, tmp_path / "packed", bits=bits)
    assert_mostly_equal(tmp_path / "packed", oracle(variant).tokens)


@pytest.mark.parametrize("variant", ["llama-biases", "mistral-window", "qwen3", "gemma3_text-new"])
def test_one_at_a_time_is_all_at_once_to_the_bit(variant: str) -> None:
    said = oracle(variant)
    whole, single = run(load(said.path, 8), said.tokens), load(said.path, 8)
    for i, token in enumerate(said.tokens):
        assert np.array_equal(run(single, [token], i)[0], whole[i]), f"position {i}"


@pytest.mark.parametrize("bits", [16, 8, 4, 3])
def test_every_instruction_set_gives_the_same_bits(tmp_path: Path, bits: int) -> None:
    said = oracle("gemma3_text")
    path = said.path if bits == 16 else quantized(said.path, tmp_path / "packed", bits, 64)
    seen = [run(load(path, 8, isa), said.tokens) for isa in native.supported_isas()]
    assert all(np.array_equal(one, seen[0]) for one in seen)


@pytest.mark.parametrize(("bits", "expected"), [(8, 16), (4, 8), (3, 8)])
def test_layers_of_8_bits_get_activations_of_16(tmp_path: Path, bits: int, expected: int) -> None:
    """The head of 8 bits follows the layers."""
    plain = make_checkpoint(tmp_path / "plain")
    assert activation_bits(Checkpoint(plain)) == 8
    assert activation_bits(Checkpoint(quantized(plain, tmp_path / "packed", bits, 64))) == expected


def test_a_tied_head_is_stored_once(tmp_path: Path) -> None:
    tied = load(make_checkpoint(tmp_path / "tied", tie_word_embeddings=True))
    untied = load(make_checkpoint(tmp_path / "untied"))
    assert untied.weight_bytes - tied.weight_bytes == 320 * 64 * 2


def test_progress_ends_at_all_bytes(tmp_path: Path) -> None:
    checkpoint = Checkpoint(make_checkpoint(tmp_path, shards=2))
    seen: list[tuple[int, int]] = []
    load_program(checkpoint, context=CONTEXT, kv_blocks=1, on_progress=lambda done, total: seen.append((done, total)))
    total = sum(checkpoint.stored_bytes(linear.name) for linear in checkpoint.graph.linears())
    assert seen == sorted(seen)
    assert seen[-1] == (total, total)


def test_one_nan_stops_the_load(tmp_path: Path) -> None:
    path = make_checkpoint(tmp_path)
    file = SafetensorsFile(path / "model.safetensors")
    tensors = {name: (info.dtype, file.read(name)) for name, info in file.tensors.items()}
    tensors["model.layers.1.mlp.down_proj.weight"][1][9, 9] = 0x7FC1
    write_safetensors(path / "model.safetensors", tensors)
    with pytest.raises(
        Corrupt, match=r"`model.layers.1.mlp.down_proj.weight` holds NaN or infinity, first at \[9, 9\]"
    ):
        load(path)


def test_an_infinite_scale_stops_the_load(tmp_path: Path) -> None:
    path = quantized(make_checkpoint(tmp_path / "plain"), tmp_path / "packed", 4, 32)
    file = SafetensorsFile(path / "model.safetensors")
    tensors = {name: (info.dtype, file.read(name)) for name, info in file.tensors.items()}
    tensors["model.layers.1.self_attn.v_proj.weight_scale"][1][31, 1] = -np.inf
    write_safetensors(path / "model.safetensors", tensors)
    with pytest.raises(Corrupt, match=r"v_proj.weight_scale` holds NaN or infinity, first at \[31, 1\]"):
        load(path)


@pytest.mark.parametrize("bits", [16, 8, 4, 3])
def test_from_files_is_from_arrays(tmp_path: Path, bits: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The two ways into the kernels' panels give the same program."""
    said = oracle("gemma3_text")
    path = said.path if bits == 16 else quantized(said.path, tmp_path / "packed", bits, 64)
    read = run(load(path, 8), said.tokens)
    asked: list[str] = []
    monkeypatch.setattr(Checkpoint, "on_disk", lambda self, name: asked.append(name))
    assert np.array_equal(run(load(path, 8), said.tokens), read)
    assert asked


def test_weights_that_change_under_the_load(tmp_path: Path) -> None:
    checkpoint = Checkpoint(make_checkpoint(tmp_path))
    with (tmp_path / "model.safetensors").open("r+b") as file:
        file.truncate(20_000)
    with pytest.raises(Corrupt, match="changed while it was in use"):
        load_program(checkpoint, context=CONTEXT, kv_blocks=1)


def test_a_cache_beyond_all_memory(tmp_path: Path) -> None:
    checkpoint = Checkpoint(make_checkpoint(tmp_path, head_dim=512))
    with pytest.raises(DoesNotFit, match="memory") as caught:  # more than 2^48 bytes: beyond any address space
        load_program(checkpoint, context=CONTEXT, kv_blocks=1 << 31)
    assert caught.value.hint


def test_parts_of_one_product_in_different_kinds(tmp_path: Path) -> None:
    path = quantized(make_checkpoint(tmp_path / "plain"), tmp_path / "packed", 4, 64)
    mixed = quantized(tmp_path / "plain", tmp_path / "other", 8, 64)
    name = "model.layers.0.self_attn.k_proj"
    tensors = {}
    for at, wanted in ((path, False), (mixed, True)):
        file = SafetensorsFile(at / "model.safetensors")
        tensors.update({n: (i.dtype, file.read(n)) for n, i in file.tensors.items() if n.startswith(name) is wanted})
    write_safetensors(path / "model.safetensors", tensors)
    assert json.loads((path / "config.json").read_text())["quantization_config"]
    with pytest.raises(
        NotSupported, match=r"`model.layers.0.self_attn.q_proj` int4 by 64, `.*k_proj` int8 by 64, `.*v_proj`"
    ):
        load(path)
