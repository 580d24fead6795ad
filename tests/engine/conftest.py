"""Tiny models, made once."""

from pathlib import Path

import pytest

from tests.tiny import Family, make_checkpoint, random_weights, tiny_config, write_weights


@pytest.fixture(scope="session")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("llama"), "llama", seed=1)


@pytest.fixture(scope="session")
def circling(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Attention that whispers: nearly a map from one token to the next, so that its text soon runs in circles."""
    path = make_checkpoint(tmp_path_factory.mktemp("circling"), "llama", seed=1)
    weights = random_weights(tiny_config("llama"), seed=1)
    quiet = {name: value * 0.02 if "o_proj" in name else value for name, value in weights.items()}
    write_weights(path, quiet, "bfloat16")
    return path


@pytest.fixture(scope="session", params=["llama", "qwen3", "gemma3_text"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Grouped heads, head norms, sliding windows."""
    family: Family = request.param
    return make_checkpoint(tmp_path_factory.mktemp(family), family, seed=2)
