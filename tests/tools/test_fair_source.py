"""The fair source: moved, but never beyond half a step, and the same numbers in every form."""

from pathlib import Path

import numpy as np
import pytest
from gguf import GGMLQuantizationType
from gguf.quants import dequantize, quantize

from localinfer.errors import NotSupported, UsageError
from localinfer.evaluate import evaluate, held_out_text
from localinfer.formats.gguf import GgufFile
from localinfer.graph.weights import Checkpoint
from tools.quality.fair_source import dithered, make, steps

KINDS = ["Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_step_is_what_lies_between_two_values(kind: str) -> None:
    values = np.random.default_rng(0).standard_normal((4, 64)).astype(np.float32)
    raw = quantize(values, GGMLQuantizationType[kind])
    back = dequantize(raw, GGMLQuantizationType[kind]).reshape(-1, 32)
    step = steps(kind, raw, (4, 64)).reshape(-1, 32)
    for block, distance in zip(back, step, strict=True):
        assert (distance == distance[0]).all()
        apart = np.diff(np.unique(block)) / distance[0]
        np.testing.assert_allclose(apart, np.rint(apart), atol=1e-3)
        assert apart.min() == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize(("kind", "size"), [("Q4_K", 144), ("Q5_K", 176), ("Q6_K", 210)])
def test_the_steps_of_super_blocks(kind: str, size: int) -> None:
    """Random bits with sane scales: every value is a whole number of steps from the others of its small block."""
    raw = np.random.default_rng(1).integers(0, 256, (8, size)).astype(np.uint8)
    one = np.array([0.01], np.float16).view(np.uint8)
    raw[:, slice(208, 210) if kind == "Q6_K" else slice(0, 2)] = one
    if kind != "Q6_K":
        raw[:, 2:4] = one
    small = 16 if kind == "Q6_K" else 32
    back = dequantize(raw, GGMLQuantizationType[kind]).reshape(-1, small).astype(np.float64)
    step = steps(kind, raw, (8, 256)).reshape(-1, small).astype(np.float64)
    used = step[:, 0] > 0
    apart = (back - back[:, :1])[used] / step[used]
    np.testing.assert_allclose(apart, np.rint(apart), atol=1e-3)
    assert np.diff(np.unique(np.rint(apart))).min() == 1


def test_unknown_types_are_named() -> None:
    with pytest.raises(NotSupported, match="IQ2_XS"):
        steps("IQ2_XS", np.zeros(1, np.uint8), (1,))


def test_moves_stay_within_half_a_step() -> None:
    values = np.full((64, 64), 0.5, np.float32)
    step = np.full((64, 64), 0.25, np.float32)
    moved = dithered("a", values, step, 0)
    assert np.abs(moved - values).max() <= 0.125 * (1 + 2**-8)
    assert np.abs(moved - values).mean() == pytest.approx(0.0625, rel=0.1)
    assert (moved == dithered("a", values, step, 0)).all()
    assert (moved != dithered("a", values, step, 1)).any()
    assert (moved != dithered("b", values, step, 0)).any()
    assert dithered("a", values, np.zeros_like(step), 0) is values


def test_all_forms_hold_the_same_numbers(starter_gguf: Path, tmp_path: Path) -> None:
    make(starter_gguf, tmp_path / "fair", 0)
    source = GgufFile(starter_gguf)
    bf16, f16 = GgufFile(tmp_path / "fair" / "bf16.gguf"), GgufFile(tmp_path / "fair" / "f16.gguf")
    checkpoint = Checkpoint(tmp_path / "fair" / "model")
    kept = {key: value for key, value in source.metadata.items() if key != "general.file_type"}
    assert {key: value for key, value in bf16.metadata.items() if key != "general.file_type"} == kept
    for theirs, ours in (
        ("token_embd", "model.embed_tokens"),
        ("blk.3.ffn_down", "model.layers.3.mlp.down_proj"),
        ("blk.29.attn_v", "model.layers.29.self_attn.v_proj"),
    ):
        moved = bf16.dequantize(f"{theirs}.weight")
        assert (moved == checkpoint.matrix(ours)).all()
        np.testing.assert_allclose(moved, f16.dequantize(f"{theirs}.weight"), atol=2**-24)
        assert 0.7 < (moved != source.dequantize(f"{theirs}.weight")).mean() < 1
    norm = checkpoint.vector("model.norm.weight")
    assert (norm == bf16.dequantize("output_norm.weight")).all()
    assert (norm == source.dequantize("output_norm.weight")).all()
    read_alike(tmp_path / "fair")
    with pytest.raises(UsageError, match="is there already"):
        make(starter_gguf, tmp_path / "fair", 0)


def read_alike(fair: Path) -> None:
    """The same weights in two engines: what is left is the order of float sums and llama.cpp's float16 activations."""
    gguf, model = fair / "f16.gguf", fair / "model"
    theirs, ours = evaluate([gguf, model], model, held_out_text(), ctx=64, chunks=3, kv_bits=16)
    assert theirs.tokens == ours.tokens == 93
    assert 0 < (theirs.kld_mean or 0) < 1e-4
    assert theirs.ppl == pytest.approx(ours.ppl, rel=1e-3)
    assert theirs.body_bits_per_weight == 16
    swapped = evaluate([model], gguf, held_out_text(), ctx=64, chunks=3, kv_bits=16)[0]
    assert swapped.reference == "f16.gguf"
    assert swapped.kld_mean == pytest.approx(theirs.kld_mean, rel=0.1)
