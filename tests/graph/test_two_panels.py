"""Matrices of so many long panels that one row reads two of them by turns: the bits of the plain kernels, also of the
last panel, which is alone and of `lm_head` not full."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from localinfer import native
from tests.graph.packed import quantized
from tests.graph.running import load, run
from tests.graph.variants import make_variant

SIZES: dict[str, Any] = {"hidden_size": 2048, "intermediate_size": 544, "vocab_size": 1040}


@pytest.mark.parametrize("variant", ["llama", "gemma2", "lfm2", "qwen3_5", "qwen3_moe"])
@pytest.mark.parametrize("bits", [4, 8])
def test_the_bits_of_the_plain_kernels(tmp_path: Path, variant: str, bits: int) -> None:
    sizes = SIZES | ({"moe_intermediate_size": 256} if "moe" in variant else {})
    path = quantized(make_variant(variant, tmp_path / "source", **sizes), tmp_path / "made", bits, 32)
    isa = "avx2" if "avx2" in native.supported_isas() else ""  # the set that takes two
    plain, fast = load(path, isa="scalar"), load(path, isa=isa)
    for position, token in enumerate([3, 1, 4, 1, 5]):
        expected, found = (run(program, [token], position) for program in (plain, fast))
        assert np.array_equal(expected.view(np.uint32), found.view(np.uint32)), fast.isa
