"""GGUF files of mixtures whose numbers do not go together: named, and nothing is written."""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from localinfer.errors import Corrupt, NotSupported
from localinfer.formats.gguf import GgufFile
from localinfer.formats.gguf_config import plan_import
from localinfer.formats.gguf_import import import_gguf
from localinfer.formats.gguf_writing import Written, write_gguf
from localinfer.graph.weights import Checkpoint
from localinfer.quantize.export import export_gguf
from tests.quantize.test_export_families import GPT_OSS
from tests.tiny import Family, make_checkpoint

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
