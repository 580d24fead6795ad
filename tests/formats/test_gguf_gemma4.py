"""Gemma 4 as GGUF: names and keys of the `gguf` package, what real files have besides, and what is refused by name."""

from functools import partial
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest

from localinfer.errors import Corrupt, LocalInferError, NotSupported
from localinfer.formats.gguf import GgufFile
from localinfer.formats.gguf_config import plan_import
from localinfer.formats.gguf_import import import_gguf
from localinfer.formats.gguf_writing import Written, write_gguf
from localinfer.graph.weights import Checkpoint
from localinfer.quantize import quantize_checkpoint
from localinfer.quantize.export import export_gguf
from localinfer.quantize.from_gguf import GgufImporter
from tests.tiny import make_checkpoint

Changes = dict[str, Any]
"""By metadata key or tensor name: another value or array, None leaves it out."""


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("gemma4")
    export_gguf(make_checkpoint(folder / "m", "gemma4_text", seed=3), folder / "x.gguf")
    return folder / "x.gguf"


def changed(source: Path, dest: Path, changes: Changes) -> Path:
    """The file with other keys and tensors, these as float32."""
    file = GgufFile(source)
    keys = {key: value for key, value in changes.items() if not key.endswith(".weight")}
    arrays = {name: file.dequantize(name) for name in file.tensors}
    arrays |= {name: value for name, value in changes.items() if name.endswith(".weight")}
    metadata = {key: value for key, value in (file.metadata | keys).items() if value is not None}
    arch = metadata.pop("general.architecture")
    tensors = [
        Written(name, array.shape, "F32", partial(np.asarray, array, np.float32))
        for name, array in arrays.items()
        if array is not None
    ]
    write_gguf(dest, arch, metadata, tensors, lambda count: None)
    return dest


def test_names_and_keys_are_those_of_the_package(source: Path) -> None:
    file = GgufFile(source)
    known = {gguf.TENSOR_NAMES[one] for one in gguf.MODEL_TENSORS[gguf.MODEL_ARCH.GEMMA4]}
    names = {name.removesuffix(".weight") for name in file.tensors}
    assert {".".join("{bid}" if part.isdecimal() else part for part in name.split(".")) for name in names} <= known
    assert {"per_layer_token_embd", "per_layer_model_proj", "per_layer_proj_norm", "rope_freqs"} <= names
    keys = gguf.Keys
    wanted = {
        keys.LLM.EMBD_LENGTH_PER_LAYER_INP: 64,
        keys.LLM.FEED_FORWARD_LENGTH: [128, 128, 128, 128, 256, 256],
        keys.LLM.FINAL_LOGIT_SOFTCAPPING: 10.0,
        keys.Attention.SHARED_KV_LAYERS: 2,
        keys.Attention.KEY_LENGTH: 64,
        keys.Attention.KEY_LENGTH_SWA: 32,
        keys.Attention.VALUE_LENGTH_SWA: 32,
        keys.Attention.SLIDING_WINDOW: 8,
        keys.Attention.SLIDING_WINDOW_PATTERN: [True, False] * 3,
        keys.Rope.DIMENSION_COUNT: 64,
        keys.Rope.DIMENSION_COUNT_SWA: 32,
        keys.Rope.FREQ_BASE: 1e6,
        keys.Rope.FREQ_BASE_SWA: 1e4,
    }
    for key, value in wanted.items():
        assert file.metadata[key.format(arch="gemma4")] == value, key
    assert file.dequantize("rope_freqs.weight").tolist() == pytest.approx([1.0] * 8 + [1e30] * 24)


def test_keys_of_layers_that_read_others_are_passed_over_and_said(tmp_path: Path, source: Path) -> None:
    """Converted checkpoints have them."""
    copies = {f"blk.5.{name}.weight": np.ones((4, 4), np.float32) for name in ("attn_k", "attn_v", "attn_k_norm")}
    path = changed(source, tmp_path / "x.gguf", copies)
    notes = GgufImporter().convert(path, tmp_path / "back")["notes"]
    assert any("blk.5.attn_k.weight" in note for note in notes)
    assert Checkpoint(tmp_path / "back").graph == Checkpoint(source.parent / "m").graph


def test_a_stretched_full_rope_comes_back(tmp_path: Path, source: Path) -> None:
    divisors = np.array([8.0] * 8 + [1e30] * 24, np.float32)
    plan = plan_import(GgufFile(changed(source, tmp_path / "x.gguf", {"rope_freqs.weight": divisors})))
    full = plan.config["rope_parameters"]["full_attention"]
    assert (full["factor"], int(full["partial_rotary_factor"] * 32)) == (8.0, 8)


def test_what_quantize_writes_comes_back_with_its_bits(tmp_path: Path, source: Path) -> None:
    """Integers as they are, small matrices of inputs by layer as bfloat16, the table of inputs in 8 bits."""
    quantize_checkpoint(source.parent / "m", tmp_path / "q", bits=4, method="rtn")
    export_gguf(tmp_path / "q", tmp_path / "x.gguf")
    GgufImporter().write(tmp_path / "x.gguf", tmp_path / "back")
    types = {name: one.type for name, one in GgufFile(tmp_path / "x.gguf").tensors.items()}
    assert types["blk.0.attn_q.weight"] == "Q4_0"
    assert types["per_layer_token_embd.weight"] == "Q8_0"
    assert types["blk.0.inp_gate.weight"] == types["per_layer_model_proj.weight"] == "BF16"
    before, after = Checkpoint(tmp_path / "q"), Checkpoint(tmp_path / "back")
    for linear in before.graph.linears():
        assert np.array_equal(after.matrix(linear.name), before.matrix(linear.name)), linear.name


A = "gemma4.attention"
REFUSED: dict[str, tuple[Changes, type[LocalInferError], str]] = {
    "no pattern": ({f"{A}.sliding_window_pattern": None}, Corrupt, "sliding_window_pattern` does not say"),
    "a period": ({f"{A}.sliding_window_pattern": 2}, Corrupt, "sliding_window_pattern` does not say"),
    "a short pattern": (
        {f"{A}.sliding_window_pattern": [True, False]},
        Corrupt,
        "sliding_window_pattern` does not say",
    ),
    "numbers for flags": ({f"{A}.sliding_window_pattern": [1, 0] * 3}, Corrupt, "sliding_window_pattern` does not say"),
    "the last slides": ({f"{A}.sliding_window_pattern": [True] * 6}, NotSupported, "the last layer has a window"),
    "other lenders": (
        {f"{A}.sliding_window_pattern": [True, False, False, True, True, False]},
        NotSupported,
        "layers from 4 on read keys of layer",
    ),
    "all share": ({f"{A}.shared_kv_layers": 6}, Corrupt, "shared_kv_layers` is 6"),
    "one more shares": ({f"{A}.shared_kv_layers": 3}, NotSupported, "layers from 3 on read keys of layer 2"),
    "no window": ({f"{A}.sliding_window": None}, Corrupt, "sliding_window` is missing"),
    "heads": ({f"{A}.head_count_kv": [2, 2, 1, 2, 2, 2]}, NotSupported, "head_count_kv` differs"),
    "few heads": ({f"{A}.head_count_kv": [2, 2]}, Corrupt, "head_count_kv` does not have a number"),
    "no heads": ({f"{A}.head_count_kv": [0] * 6}, Corrupt, "head_count_kv` does not have a number"),
    "head sizes": ({f"{A}.key_length_swa": 16}, NotSupported, "keys and values differ"),
    "a part of heads": ({"gemma4.rope.dimension_count_swa": 16}, NotSupported, "a part of each head"),
    "no base": ({"gemma4.rope.freq_base_swa": None}, Corrupt, "freq_base_swa` is missing"),
    "scaled": ({"gemma4.rope.scaling.type": "linear", "gemma4.rope.scaling.factor": 2.0}, NotSupported, "is scaled"),
    "widths": ({"gemma4.feed_forward_length": [96] * 4 + [96, 192]}, NotSupported, "feed_forward_length` differs"),
    "huge": ({"gemma4.feed_forward_length": [1 << 30] * 6}, Corrupt, "feed_forward_length` does not have a number"),
    "large inputs": ({"gemma4.embedding_length_per_layer_input": 1 << 20}, Corrupt, "per_layer_input` is 1048576"),
    "other inputs": (
        {"gemma4.embedding_length_per_layer_input": 32},
        Corrupt,
        r"`blk\.0\.inp_gate\.weight` has the shape",
    ),
    "no divisors": ({"rope_freqs.weight": None}, Corrupt, r"`rope_freqs\.weight` is missing"),
    "short divisors": ({"rope_freqs.weight": np.ones(8)}, Corrupt, r"`rope_freqs\.weight` has the wrong shape"),
    "odd divisors": ({"rope_freqs.weight": np.linspace(1, 2, 32)}, NotSupported, "divides in another way"),
    "divisors between": ({"rope_freqs.weight": np.array([1, 1e30] * 16)}, NotSupported, "divides in another way"),
    "no number": ({"rope_freqs.weight": np.full(32, np.nan)}, NotSupported, "divides in another way"),
    "experts": ({"gemma4.expert_count": 8}, NotSupported, "expert_count` is 8"),
    "a negative cap": ({"gemma4.final_logit_softcapping": -1.0}, Corrupt, "must not be negative"),
    "values of some": ({"blk.1.attn_v.weight": None}, NotSupported, "some full layers have values"),
    "no values in a window": ({"blk.0.attn_v.weight": None}, Corrupt, r"`blk\.0\.attn_v\.weight` is missing"),
    "no scale": (
        {"blk.2.layer_output_scale.weight": None},
        Corrupt,
        r"`blk\.2\.layer_output_scale\.weight` is missing",
    ),
}


@pytest.mark.parametrize(("changes", "error", "words"), REFUSED.values(), ids=REFUSED.keys())
def test_refused_before_anything_is_written(
    tmp_path: Path, source: Path, changes: Changes, error: type[LocalInferError], words: str
) -> None:
    path = changed(source, tmp_path / "x.gguf", changes)
    with pytest.raises(error, match=words) as caught:
        import_gguf(path, tmp_path / "back")
    assert caught.value.hint
    assert not (tmp_path / "back").exists()
