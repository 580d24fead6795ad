"""GGUF files of mixtures whose numbers do not go together: named, and nothing is written."""

import json
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest

from localinfer.errors import Corrupt, NotSupported
from localinfer.formats.channels import MARKS
from localinfer.formats.gguf import GgufFile
from localinfer.formats.gguf_config import plan_import
from localinfer.formats.gguf_import import import_gguf
from localinfer.formats.gguf_pretokenizers import PRE_TOKENIZERS
from localinfer.formats.gguf_writing import Written, write_gguf
from localinfer.formats.tokenizer import Tokenizer
from localinfer.graph.weights import Checkpoint
from localinfer.quantize.export import export_gguf
from localinfer.quantize.from_gguf import GgufImporter
from tests.quantize.beside_llamacpp import clear_ones, scores_of_both
from tests.quantize.test_export_families import GPT_OSS
from tests.tiny import BOS, Family, make_checkpoint, write_json

CONFIG: dict[Family, dict[str, Any]] = {"gpt_oss": GPT_OSS, "ernie4_5_moe": {}, "glm4_moe": {}}
ARCH: dict[Family, str] = {"gpt_oss": "gpt-oss", "ernie4_5_moe": "ernie4_5-moe", "glm4_moe": "glm4moe"}


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> dict[Family, GgufFile]:
    found = {}
    for family, config in CONFIG.items():
        at = tmp_path_factory.mktemp(family)
        export_gguf(make_checkpoint(at / "m", family, seed=3, **config), at / "x.gguf")
        found[family] = GgufFile(at / "x.gguf")
    return found


def rewritten(file: GgufFile, dest: Path, keys: dict[str, Any], tensors: dict[str, Any] | None = None) -> Path:
    """The file with other metadata (None: left out), and with other tensors of float32 (None: left out)."""
    arch = file.text("general.architecture")
    metadata = file.metadata | {f"{arch}.{key}": value for key, value in keys.items()}
    del metadata["general.architecture"]  # the writer says it
    kept = [
        Written(name, one.shape, one.type, partial(file.raw, name))
        for name, one in file.tensors.items()
        if name not in (tensors or {})
    ]
    more = [
        Written(name, values.shape, "F32", partial(np.asarray, values))
        for name, values in (tensors or {}).items()
        if values is not None
    ]
    write_gguf(dest, arch, {k: v for k, v in metadata.items() if v is not None}, [*kept, *more], lambda count: None)
    return dest


REFUSED: dict[str, tuple[Family, dict[str, Any], type[Exception], str]] = {
    "fewer experts": ("gpt_oss", {"expert_count": 4}, Corrupt, r"ffn_gate_inp\.weight` has the shape \[8, 64\]"),
    "more experts": ("glm4_moe", {"expert_count": 9}, Corrupt, r"ffn_gate_inp\.weight` has the shape"),
    "more chosen than there are": ("ernie4_5_moe", {"expert_used_count": 9}, Corrupt, "expert_used_count` is 9"),
    "none chosen": ("gpt_oss", {"expert_used_count": 0}, Corrupt, "expert_used_count` is 0"),
    "no number": ("gpt_oss", {"expert_count": None}, Corrupt, "expert_count` is missing"),
    "unbelievably many": ("glm4_moe", {"expert_count": 1 << 20}, Corrupt, "expert_count` is 1048576"),
    "narrower experts": ("gpt_oss", {"expert_feed_forward_length": 64}, Corrupt, r"ffn_gate_exps\.weight` has the sha"),
    "no window": ("gpt_oss", {"attention.sliding_window": None}, Corrupt, "sliding_window` is missing"),
    "windows of few layers": ("gpt_oss", {"attention.sliding_window_pattern": [True]}, Corrupt, "sliding_window_patte"),
    "weights that are scaled": ("gpt_oss", {"expert_weights_scale": 2.0}, NotSupported, "expert_weights_scale` is 2"),
    "sigmoids": ("gpt_oss", {"expert_gating_func": 2}, NotSupported, "expert_gating_func` is 2"),
    "shared experts of gpt-oss": ("gpt_oss", {"expert_shared_count": 1}, NotSupported, "expert_shared_count` is 1"),
    "a key of next year": ("gpt_oss", {"swiglu_limit": 3.0}, NotSupported, "swiglu_limit` is 3"),
    "every other layer": ("ernie4_5_moe", {"interleave_moe_layer_step": 2}, NotSupported, "layer_step` is 2"),
    "other shared experts": ("ernie4_5_moe", {"expert_shared_count": 3}, Corrupt, "expert_shared_count` is 3"),
    "shared experts in part": ("ernie4_5_moe", {"expert_shared_feed_forward_length": 100}, Corrupt, "length` is 100"),
    "more dense layers": ("ernie4_5_moe", {"leading_dense_block_count": 2}, Corrupt, r"blk\.1\.ffn_gate\.weight` is"),
    "dense layers beyond all": ("glm4_moe", {"leading_dense_block_count": 99}, Corrupt, "block_count` is 99"),
    "no shared experts": ("glm4_moe", {"expert_shared_count": 0}, Corrupt, "expert_shared_count` is 0"),
    "softmax": ("glm4_moe", {"expert_gating_func": 1}, NotSupported, "expert_gating_func` is 1"),
    "groups of unequal size": ("glm4_moe", {"expert_group_count": 3}, Corrupt, "expert_group_count` is 3"),
    "groups of too few": (
        "glm4_moe",
        {"expert_group_count": 4, "expert_group_used_count": 1},
        Corrupt,
        "does not go with 3 of 8 experts",
    ),
    "axes of a picture": ("glm4_moe", {"rope.dimension_sections": [4, 2, 2, 0]}, NotSupported, "dimension_sections`"),
}  # fmt: skip


@pytest.mark.parametrize(("family", "keys", "error", "words"), REFUSED.values(), ids=REFUSED.keys())
def test_refused_before_anything_is_written(
    tmp_path: Path,
    exported: dict[Family, GgufFile],
    family: Family,
    keys: dict[str, Any],
    error: type[Exception],
    words: str,
) -> None:
    path = rewritten(exported[family], tmp_path / "x.gguf", keys)
    with pytest.raises(error, match=words):
        import_gguf(path, tmp_path / "back")
    assert not (tmp_path / "back").exists()


MISSING: list[tuple[Family, str]] = [
    ("gpt_oss", "blk.0.attn_sinks.weight"),
    ("gpt_oss", "blk.1.ffn_down_exps.bias"),
    ("gpt_oss", "blk.1.attn_k.bias"),
    ("ernie4_5_moe", "blk.1.exp_probs_b.bias"),
    ("ernie4_5_moe", "blk.2.ffn_up_shexp.weight"),
    ("glm4_moe", "blk.1.exp_probs_b.bias"),
]


@pytest.mark.parametrize(("family", "name"), MISSING)
def test_a_tensor_that_is_missing(tmp_path: Path, exported: dict[Family, GgufFile], family: Family, name: str) -> None:
    path = rewritten(exported[family], tmp_path / "x.gguf", {}, {name: None})
    with pytest.raises(Corrupt, match=f"`{name}` is missing"):
        import_gguf(path, tmp_path / "back")


@pytest.mark.parametrize("family", CONFIG)
def test_what_may_be_left_out(tmp_path: Path, exported: dict[Family, GgufFile], family: Family) -> None:
    """As llama.cpp's loader has it: gating, groups and windows have defaults, and the number of shared experts or their
    width will do."""
    left = ["attention.sliding_window_pattern", "expert_gating_func", "expert_shared_feed_forward_length"]
    path = rewritten(exported[family], tmp_path / "x.gguf", dict.fromkeys(left))
    assert plan_import(GgufFile(path)).config == plan_import(exported[family]).config


def test_gpt_oss_without_yarn_has_none(tmp_path: Path, exported: dict[Family, GgufFile]) -> None:
    """config.json that says nothing of RoPE would mean YaRN."""
    names = ("type", "factor", "original_context_length", "yarn_beta_fast", "yarn_beta_slow")
    keys = dict.fromkeys(f"rope.scaling.{name}" for name in names)
    import_gguf(rewritten(exported["gpt_oss"], tmp_path / "x.gguf", keys), tmp_path / "back")
    rope = Checkpoint(tmp_path / "back").spec.ropes[0]
    np.testing.assert_allclose(rope.inv_freq, 150000.0 ** (-np.arange(16) / 16))
    assert rope.attention_factor == 1.0


def test_layers_that_guess_ahead_are_left_out_and_told(tmp_path: Path, exported: dict[Family, GgufFile]) -> None:
    file = exported["glm4_moe"]
    more = {
        "blk.3.attn_norm.weight": np.ones(64, np.float32),
        "blk.3.nextn.eh_proj.weight": np.ones((64, 128), np.float32),
    }
    path = rewritten(file, tmp_path / "x.gguf", {"block_count": 4, "nextn_predict_layers": 1}, more)
    plan = plan_import(GgufFile(path))
    assert plan.config == plan_import(file).config
    (note,) = plan.notes
    assert "blk.3.attn_norm.weight" in note
    assert note.endswith("the head that guesses tokens ahead is not run")
    more["blk.4.nextn.eh_proj.weight"] = more.pop("blk.3.nextn.eh_proj.weight")
    path = rewritten(file, tmp_path / "y.gguf", {"block_count": 4, "nextn_predict_layers": 1}, more)
    with pytest.raises(NotSupported, match=r"`blk\.4\.nextn\.eh_proj\.weight` is not part of a glm4moe"):
        plan_import(GgufFile(path))


def test_harmony_comes_along(tmp_path: Path) -> None:
    """The marks of channels, o200k's pieces of text, and that `<|end|>` ends a message and not the reply."""
    source = make_checkpoint(tmp_path / "m", "gpt_oss", seed=3, vocab_size=352, **GPT_OSS)
    document = json.loads((source / "tokenizer.json").read_text(encoding="utf-8"))
    like, marks = document["added_tokens"][0], (*MARKS, "<|return|>", "<|constrain|>")
    document["added_tokens"] += [like | {"id": 320 + i, "content": mark} for i, mark in enumerate(marks)]
    steps = PRE_TOKENIZERS["gpt-4o"].steps()
    document["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": steps}
    write_json(source / "tokenizer.json", document)
    write_json(source / "generation_config.json", {"bos_token_id": BOS, "eos_token_id": [325, 324]})
    export_gguf(source, tmp_path / "x.gguf")
    file = GgufFile(tmp_path / "x.gguf")
    assert file.metadata["tokenizer.ggml.pre"] == "gpt-4o"
    import_gguf(tmp_path / "x.gguf", tmp_path / "back")
    theirs, ours = Tokenizer(source), Tokenizer(tmp_path / "back")
    text = (
        "<|channel|>analysis<|message|>HelloThere, it's 12345<|end|><|start|>assistant<|channel|>final<|message|>Yes."
    )
    assert ours.encode_rendered(text) == theirs.encode_rendered(text)
    assert {324, 325} <= {*ours.eos_ids}
    assert 323 not in ours.eos_ids
    stream = ours.stream(continues=True)
    said = "".join([stream.push(token) for token in ours.encode_rendered(text)]) + stream.finish()
    assert said == "<think>\nHelloThere, it's 12345\n</think>\n\nYes."


@pytest.mark.parametrize("family", CONFIG)
@pytest.mark.parametrize("kind", ["Q8_0", "Q4_0"])
def test_rounded_ones_say_what_llama_cpp_says(tmp_path: Path, family: Family, kind: Literal["Q8_0", "Q4_0"]) -> None:
    """But where a router's choice is near, too: there the two, which round activations in different ways, part."""
    source = make_checkpoint(tmp_path / "m", family, seed=4, **CONFIG[family])
    export_gguf(source, tmp_path / "x.gguf", kind)
    types = {name: one.type for name, one in GgufFile(tmp_path / "x.gguf").tensors.items()}
    assert types["blk.1.ffn_up_exps.weight"] == types["blk.1.ffn_down_exps.weight"] == kind
    GgufImporter().write(tmp_path / "x.gguf", tmp_path / "back")
    after = Checkpoint(tmp_path / "back")
    assert after.form("model.layers.1.mlp.experts.3.up_proj") == (8 if kind == "Q8_0" else 4, 32)
    ours, theirs = scores_of_both(tmp_path / "back", tmp_path / "x.gguf")
    assert np.median(np.abs(ours - theirs).max(axis=1)) < 0.3 * theirs.std()
    clear = clear_ones(theirs, 0.2)
    assert clear.sum() > 40
    assert (ours.argmax(axis=1) == theirs.argmax(axis=1))[clear].mean() > 0.9
