"""Columns of the keys that stand out: powers of two go from keys to queries, and no score changes."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file

from localinfer import native
from localinfer.evaluate.measures import measure
from localinfer.graph import key_powers
from localinfer.graph.stored import Bf16Linear, IntLinear, Mxfp4Linear, StoredLinear
from localinfer.graph.weights import Checkpoint
from tests.graph.packed import quantized
from tests.graph.running import load, run
from tests.graph.variants import make_variant

TOKENS = [int(token) for token in np.random.default_rng(5).integers(0, 256, 80)]
BIASES = ["qwen2", "seed_oss", "glm4", "ernie4_5-biases", "starcoder2", "llama-biases"]
GAINS = ["qwen3", "gemma3_text", "olmo2", "hunyuan", "exaone4", "gemma4_text", "qwen3_5_text"]


def loud(path: Path, variant: str, size: float, **config: int) -> Path:
    """Of each key head a column of the slowest pair is `size` larger, by its bias, or so many times as large as the
    others, by the gain of its norm; then that of the queries is as much smaller, so that scores are as before."""
    made = make_variant(variant, path, **config)
    (file,) = made.glob("*.safetensors")
    weights = load_file(file)
    dim = Checkpoint(made).spec.head_dim
    for name, values in weights.items():
        if name.endswith("k_proj.bias"):
            values.reshape(-1, dim)[:, dim // 2 - 1] += size
        if name.endswith(("k_norm.weight", "key_layernorm.weight", "q_norm.weight", "query_layernorm.weight")):
            offset = 1 if variant.startswith(("gemma3", "qwen3_5")) else 0
            column = values.reshape(-1, min(dim, values.numel()))[:, dim // 2 - 1 :: dim // 2]
            factor = size if "k" in name.rpartition("self_attn.")[2][:3] else 1 / size
            column.copy_((column + offset) * factor - offset)
    save_file(weights, file)
    return made


WIDE = {"qwen2": {"head_dim": 64}, "qwen3": {"head_dim": 64}}


def kept(program: native.Program) -> NDArray[np.uint8]:
    """The cache's first block."""
    out = np.empty(program.kv_group_bytes[0], np.uint8)
    program.read_kv(0, out, 0)
    return out


def lost(path: Path) -> float:
    """Mean KL divergence through a cache of 8 bits, in nats."""
    exact, cached = run(load(path, 16), TOKENS), run(load(path, 8), TOKENS)
    return float(measure(cached, exact, np.array(TOKENS, np.int32)).kld.mean())


@pytest.mark.parametrize("variant", BIASES + GAINS)
def test_no_score_changes(tmp_path: Path, variant: str) -> None:
    """Through a cache of 16 bits the same model gives the same bits, though its keys are others."""
    path = loud(tmp_path / "m", variant, 64.0)
    plain, even = load(path, 16), load(path, 8)
    even.make_kv([3] * len(even.kv_windows), 16)
    apart = np.abs(run(even, TOKENS) - run(plain, TOKENS)).max(axis=1)
    assert (apart == 0).mean() > 0.9
    assert apart.max() < 2e-6  # keys below 2^-14, where float16 has fewer digits
    assert not np.array_equal(kept(even), kept(plain))


@pytest.mark.parametrize("bits", [8, 4, 3])
def test_integers_keep_their_scores(tmp_path: Path, bits: int) -> None:
    path = quantized(loud(tmp_path / "m", "qwen2", 64.0), tmp_path / "q", bits, 32)
    plain, even = load(path, 16), load(path, 8)
    even.make_kv([3] * len(even.kv_windows), 16)
    assert np.array_equal(run(even, TOKENS), run(plain, TOKENS))
    assert not np.array_equal(kept(even), kept(plain))


def test_models_without_such_columns_are_left_alone(tmp_path: Path) -> None:
    path = make_variant("qwen2", tmp_path / "m")
    plain, even = load(path, 16), load(path, 8)
    even.make_kv([3] * len(even.kv_windows), 16)
    run(even, TOKENS)
    run(plain, TOKENS)
    assert np.array_equal(kept(even), kept(plain))


@pytest.mark.parametrize(("variant", "more"), [("qwen3", 1.01), ("gemma4_text", 1.1), ("olmo2", 1.01), ("qwen2", 2.0)])
def test_a_cache_of_8_bits_loses_hardly_more(tmp_path: Path, variant: str, more: float) -> None:
    """Than of the same model without such columns; without powers and rotation it was 40 to 500 times as much."""
    config = WIDE.get(variant, {})
    plain = lost(make_variant(variant, tmp_path / "plain", **config))
    assert lost(loud(tmp_path / "m", variant, 64.0, **config)) < more * plain


def test_powers_lower_what_is_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = loud(tmp_path / "m", "qwen2", 400.0, head_dim=64)
    even = lost(path)
    monkeypatch.setattr(key_powers, "LARGE_BIAS", np.inf)
    assert even < lost(path) / 2


@pytest.mark.parametrize("power", [-9, 0, 9])
@pytest.mark.parametrize(
    "matrix",
    [
        Bf16Linear(np.array([[0x3F80, 0xC2F7, 0]], np.uint16)),
        IntLinear(8, 32, 32, np.full((1, 8), 0x01020304, np.int32), np.full((1, 1), 2e-3, np.float16)),
        Mxfp4Linear(32, np.full((1, 4), 0x12345678, np.int32), np.array([[120]], np.uint8)),
    ],
    ids=["bf16", "int8", "mxfp4"],
)
def test_rows_times_a_power(matrix: StoredLinear, power: int) -> None:
    """What is said to be exact is; scales of float16 end above 2^-24."""
    times, same = matrix.times(np.array([power], np.int32))
    assert np.array_equal(times.float32(), np.ldexp(matrix.float32(), power)) == bool(same.all())
    assert bool(same.all()) == (not (isinstance(matrix, IntLinear) and power == -9))
