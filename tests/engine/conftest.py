"""Tiny models, made once."""

from pathlib import Path
from typing import Literal

import pytest

from localinfer.quantize.checkpoint import quantize_checkpoint
from tests.tiny import Family, make_checkpoint, random_weights, tiny_config, write_weights


@pytest.fixture(scope="session")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("llama"), "llama", seed=1)


@pytest.fixture(scope="session")
def circling(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Attention that whispers: nearly a map from one token to the next, so that its text soon runs in circles."""
    path = make_checkpoint(
        tmp_path_factory.mktemp("circling"), "llama", seed=1, head_dim=32
    )  # what a 4-bit cache needs
    weights = random_weights(tiny_config("llama", head_dim=32), seed=1)
    quiet = {name: value * 0.02 if "o_proj" in name else value for name, value in weights.items()}
    write_weights(path, quiet, "bfloat16")
    return path


MODELS: dict[str, tuple[Family, Literal[8, 4, 3] | None]] = {
    "llama": ("llama", None),
    "gemma3": ("gemma3_text", None),
    "llama-int8": ("llama", 8),
    "qwen2-int4": ("qwen2", 4),
    "qwen3-int3": ("qwen3", 3),
}


@pytest.fixture(scope="session", params=MODELS)
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Grouped heads, biases, head norms, sliding windows; bf16 and every kind of integer weights."""
    family, bits = MODELS[request.param]
    path = make_checkpoint(tmp_path_factory.mktemp(request.param) / "BF16", family, seed=2)
    if bits is None:
        return path
    quantize_checkpoint(path, path.parent / f"INT{bits}", bits=bits, group=32, threads=1)
    return path.parent / f"INT{bits}"
