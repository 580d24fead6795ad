"""The scale of Muse Glimmer's scores, which GGUF has as a norm of queries: what is no such scale is named."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from localinfer.errors import Corrupt, NotSupported
from localinfer.formats.gguf import GgufFile
from localinfer.formats.gguf_config import plan_import
from localinfer.quantize.export import export_gguf
from tests.quantize.test_gguf_mixtures import rewritten
from tests.tiny import make_checkpoint

Q, K = "blk.2.attn_q_norm.weight", "blk.2.attn_k_norm.weight"


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> GgufFile:
    at = tmp_path_factory.mktemp("muse")
    export_gguf(make_checkpoint(at / "m", "muse_glimmer", seed=3), at / "x.gguf")
    return GgufFile(at / "x.gguf")


def test_the_scale_is_in_the_norms(exported: GgufFile) -> None:
    assert (exported.dequantize(Q) == np.float32(1.7)).all()
    assert (exported.dequantize(K) == 1).all()
    config = plan_import(exported).config
    assert config["qk_scale_factor"] == 1.7
    assert config["layer_rope_theta"] == [0, 10000.0, 10000.0, 10000.0, 0]


@pytest.mark.parametrize(
    ("tensors", "error", "words"),
    [
        ({Q: None}, Corrupt, f"`{Q}` is missing"),
        ({K: np.ones(31, np.float32)}, Corrupt, f"`{K}` has the wrong shape"),
        ({K: np.full(32, 1.5, np.float32)}, NotSupported, f"`{K}` is no norm of ones"),
        ({Q: np.full(32, 1.5, np.float32)}, NotSupported, "not one number"),
        ({Q: np.linspace(1.7, 2, 32, dtype=np.float32)}, NotSupported, "not one number"),
        ({Q: np.full(32, np.nan, np.float32)}, NotSupported, "not one number"),
    ],
)
def test_other_norms_are_refused(
    tmp_path: Path, exported: GgufFile, tensors: dict[str, Any], error: type[Exception], words: str
) -> None:
    path = rewritten(exported, tmp_path / "x.gguf", {}, tensors)
    with pytest.raises(error, match=words):
        plan_import(GgufFile(path))


@pytest.mark.parametrize("key", ["logit_scale", "attention.sliding_window", "final_logit_softcapping"])
def test_a_key_that_is_missing(tmp_path: Path, exported: GgufFile, key: str) -> None:
    path = rewritten(exported, tmp_path / "x.gguf", {key: None})
    with pytest.raises(Corrupt, match=f"{key}` is missing"):
        plan_import(GgufFile(path))
