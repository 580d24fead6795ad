"""What is Gemma 4's alone: keys and values that layers share, rows that stop early, inputs by layer, and towers."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from localinfer import native
from localinfer.formats.safetensors import SafetensorsFile, write_safetensors
from localinfer.graph.program import load_program
from localinfer.graph.weights import Checkpoint
from localinfer.quantize import quantize_checkpoint
from tests.graph.emulated import Emulated
from tests.graph.oracle import assert_close, oracle
from tests.graph.packed import quantized
from tests.graph.running import greedy, load, run

VARIANTS = [
    "gemma4_text",
    "gemma4-biases",
    "gemma4-no-inputs",
    "gemma4_unified",
    "gemma4-experts",
    "gemma4-experts-inputs",
]


@pytest.mark.parametrize("variant", VARIANTS)
def test_its_distribution_is_that_of_transformers(variant: str) -> None:
    """Mean KL of at most 1e-6 nats a token, with float weights and a cache of 16 bits."""
    said = oracle(variant)
    ours, theirs = run(load(said.path), said.tokens).astype(np.float64), said.logits.astype(np.float64)
    p, q = (
        x - np.log(np.exp(x - x.max(-1, keepdims=True)).sum(-1, keepdims=True)) - x.max(-1, keepdims=True)
        for x in (theirs, ours)
    )
    assert (np.exp(p) * (p - q)).sum(-1).mean() <= 1e-6


@pytest.mark.parametrize("rows", [[77], [0], [3, 7, 8, 40, 77], [], [*range(60, 78)]])
@pytest.mark.parametrize("piece", [256, 16])
def test_rows_without_logits_stop_where_nothing_is_kept(rows: list[int], piece: int) -> None:
    """Whatever rows are asked for, in whatever pieces, theirs are the bits; what comes later sees the same cache."""
    said = oracle("gemma4-biases")
    whole = run(load(said.path, 8), said.tokens)
    program = load_program(Checkpoint(said.path), threads=2, max_rows=piece, context=96, kv_blocks=3, kv_bits=8)
    assert np.array_equal(step(program, said.tokens[:-1], rows), whole[rows])
    last = step(program, said.tokens[-1:], [0], first=78)
    assert np.array_equal(last[0], whole[78])


@pytest.mark.parametrize("rows", [[], [77], [3, 7, 8, 40]])
def test_upper_layers_run_for_the_rows_that_are_asked_for_and_no_more(rows: list[int]) -> None:
    """Counted by what their matrices are multiplied with: the squares of these rows, and of no other."""
    said = oracle("gemma4_text")

    def sums(wanted: list[int], layer: int) -> NDArray[np.float64]:
        packed: dict[str, native.Weight] = {}
        program = load_program(Checkpoint(said.path), threads=2, context=96, kv_blocks=3, kv_bits=8, packed=packed)
        weight = packed[f"model.layers.{layer}.mlp.down_proj"]
        program.watch(weight)
        step(program, said.tokens[:-1], wanted)
        return program.squares(weight)

    assert np.array_equal(sums(rows, 3), sums([], 3)), "what keeps keys and values runs for all rows"
    assert sums(rows, 3).all()
    apart = [sums([row], 5) for row in rows]
    np.testing.assert_allclose(sums(rows, 5), np.sum(apart, axis=0) if rows else 0.0)


def step(program: native.Program, tokens: list[int], rows: list[int], first: int = 0) -> NDArray[np.float32]:
    """Logits of some rows of one step."""
    n = np.arange(len(tokens), dtype=np.int32)
    logits = np.full((len(rows), program.vocab), np.nan, np.float32)
    table = np.array([[2, 0, 1]], np.int32)
    program.step(np.array(tokens, np.int32), n + np.int32(first), 0 * n, table, np.array(rows, np.int32), logits)
    return logits


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("bits", [16, 8, 4, 3])
def test_every_instruction_set_gives_the_same_bits(tmp_path: Path, variant: str, bits: int) -> None:
    """And so does one row at a time."""
    said = oracle(variant)
    path = said.path if bits == 16 else quantized(said.path, tmp_path / "packed", bits, 32)
    seen = [run(load(path, 8, isa), said.tokens) for isa in native.supported_isas()]
    assert all(np.array_equal(one, seen[0]) for one in seen)
    single = load(path, 8)
    for i, token in enumerate(said.tokens):
        assert np.array_equal(run(single, [token], i)[0], seen[0][i]), f"position {i}"


@pytest.mark.parametrize("bits", [8, 4])
def test_what_quantize_writes_means_what_the_reference_means(tmp_path: Path, bits: Any) -> None:
    """Small matrices of inputs by layer stay floats, the table has 8 bits."""
    said = oracle("gemma4")
    quantize_checkpoint(said.path, tmp_path / "packed", bits=bits, method="rtn")
    made = Checkpoint(tmp_path / "packed")
    assert made.form("model.embed_tokens_per_layer")[0] == 8
    assert made.form("model.layers.0.per_layer_input_gate") == (16, 0)
    assert made.form("model.layers.0.self_attn.q_proj")[0] == bits
    meant = Emulated(made, 8).logits(said.tokens[:3]).numpy()
    assert_close(run(load(tmp_path / "packed", 8), said.tokens[:3]), meant, 0.1)


def test_towers_and_copies_of_shared_keys_are_passed_over_and_said(tmp_path: Path) -> None:
    """Checkpoints carry keys and values also for layers that read others'."""
    said = oracle("gemma4")
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).write_bytes((said.path / name).read_bytes())
    file = SafetensorsFile(said.path / "model.safetensors")
    tensors: dict[str, Any] = {name: ("BF16", file.read(name)) for name in file.tensors}
    unused = np.zeros((4, 4), np.uint16)
    shared = "model.language_model.layers.5.self_attn.k_proj.weight"
    for name in ("model.vision_tower.patch.weight", "model.audio_tower.conv.weight", "model.embed_vision.x", shared):
        tensors[name] = ("BF16", unused)
    write_safetensors(tmp_path / "model.safetensors", tensors)
    assert greedy(load(tmp_path)) == said.greedy
    towers, copies = Checkpoint(tmp_path).notes
    assert "vision_tower" in towers
    assert "layers.5.self_attn.k_proj" in copies


@pytest.mark.parametrize(
    "more",
    [
        {"kv_of": 0, "window": 8},
        {"kv_of": 0, "head_dim": 16},
        {"kv_of": 1},
        {"kv_of": 0, "v_norm": np.ones(32, np.float32)},
    ],
)
def test_a_cache_that_is_not_like_the_layer_is_refused(more: dict[str, Any]) -> None:
    ones = np.ones(64, np.float32)
    program = native.Program(64, threads=1)
    rope = program.rope_table(np.ones(8), 32)
    program.embed(native.pack_bf16([np.zeros((64, 64), np.uint16)]))

    def attend(*parts: int, head_dim: int = 32, **given: Any) -> None:
        qkv = native.pack_bf16([np.zeros((rows, 64), np.uint16) for rows in parts])
        out = native.pack_bf16([np.zeros((64, parts[0]), np.uint16)])
        said = {"bias": None, "q_norm": None, "k_norm": None, "o_bias": None, "post_norm": None, "scale": 1.0}
        program.attend(
            norm=ones, eps=1e-6, qkv=qkv, o=out, heads=2, kv_heads=1, head_dim=head_dim, rope=rope, **(said | given)
        )

    attend(64, 32)
    with pytest.raises(ValueError, match=r"layer|keys"):
        attend(2 * more.get("head_dim", 32), **more)


def test_a_table_of_too_few_tokens_is_refused(tmp_path: Path) -> None:
    from localinfer.errors import Corrupt

    said = oracle("gemma4_text")
    config = json.loads((said.path / "config.json").read_text()) | {"vocab_size_per_layer_input": 319}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(Corrupt, match="vocab_size_per_layer_input"):
        Checkpoint(tmp_path)
