"""A 4-bit cache: how a text is computed still never changes it, and layers that do not bear 4 bits keep 8."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from localinfer.config import EngineConfig
from localinfer.engine.opening import open_engine
from localinfer.errors import NotSupported
from localinfer.graph import kv_bits
from tests.engine.running import SAMPLED, make_prompts, open_tiny, rows_of, run_all, run_one
from tests.engine.test_invariance import alone
from tests.tiny import make_checkpoint, random_weights, tiny_config, write_weights

PROMPTS = make_prompts()


@pytest.fixture(scope="session", params=["qwen3", "gemma3_text"])
def wide(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("wide") / request.param, request.param, seed=2)


@pytest.fixture
def all_bear_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kv_bits, "LIMIT", math.inf)


@pytest.mark.usefixtures("all_bear_it")
@pytest.mark.parametrize(("chunk", "parallel", "threads"), [(1, 1, 1), (7, 3, 2), (32, 5, 1)])
def test_chunks_company_and_threads(wide: Path, chunk: int, parallel: int, threads: int) -> None:
    plain = alone(wide, SAMPLED, prefill_chunk=512, kv_bits=4)
    config: dict[str, Any] = {"prefill_chunk": chunk, "parallel": parallel, "threads": threads, "kv_bits": 4}
    with open_tiny(wide, reuse=False, **config) as engine:
        assert set(engine.info.kv_layers) == {4}
        plain.check(engine, run_all(engine, PROMPTS, SAMPLED))


@pytest.mark.usefixtures("all_bear_it")
def test_cold_is_from_the_prefix_cache(wide: Path) -> None:
    plain = alone(wide, SAMPLED, kv_bits=4)
    with open_tiny(wide, kv_bits=4, parallel=4) as engine:
        run_all(engine, PROMPTS, SAMPLED)
        again = [run_one(engine, prompt, SAMPLED) for prompt in PROMPTS]
        assert sum(text.finished.stats.cached_tokens for text in again) >= 32 + 32 + 96
        assert [t.token_ids for t in again] == [t.token_ids for t in plain.texts]
        assert all(rows_of(engine).get(text, bits) == bits for text, bits in plain.rows.items())


def biased(path: Path) -> Path:
    """Three layers that hardly look at anything; the keys of the second have two columns that are far too large."""
    config: dict[str, Any] = {"head_dim": 32, "num_hidden_layers": 3}
    make_checkpoint(path, "qwen2", seed=1, **config)
    weights = random_weights(tiny_config("qwen2", **config), seed=1)
    for name in weights:
        if "q_proj" in name or "k_proj" in name:
            weights[name] = weights[name] * np.float32(0.1)
    weights["model.layers.1.self_attn.k_proj.bias"] += np.tile(300 * np.isin(np.arange(32), [15, 31]), 2)
    for name in ("q_proj", "k_proj"):
        weights[f"model.layers.1.self_attn.{name}.weight"] *= np.float32(10)
    write_weights(path, weights, "bfloat16")
    return path


def test_a_layer_with_a_large_key_bias_keeps_8_bits(tmp_path: Path) -> None:
    path = biased(tmp_path / "m")
    for context in (1, 64, 300):  # the choice does not depend on it
        with open_engine(path, EngineConfig(threads=1, kv_bits=4, context=context)) as engine:
            assert (engine.info.kv_bits, engine.info.kv_layers) == (4, (4, 8, 4))
    with open_engine(path, EngineConfig(threads=1, kv_bits=8)) as engine:
        assert engine.info.kv_layers == (8, 8, 8)


def test_heads_that_cannot_be_grouped(llama: Path) -> None:
    with pytest.raises(NotSupported, match="this model's have 16") as caught:
        open_engine(llama, EngineConfig(threads=1, kv_bits=4))
    assert "--kv-bits 8" in str(caught.value.hint)


def test_an_error_that_is_no_number_is_too_large() -> None:
    assert kv_bits.choose_bits([0.0, math.nan, math.inf, kv_bits.LIMIT]) == [4, 8, 8, 8]
