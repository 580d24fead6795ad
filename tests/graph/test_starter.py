"""The starter model, imported, against transformers on the same directory: real weights, in float32."""

from pathlib import Path

import numpy as np

from localinfer.formats.gguf_import import import_gguf
from localinfer.formats.tokenizer import Tokenizer
from localinfer.graph.weights import Checkpoint
from localinfer.reference.executor import logits
from tests.graph.oracle import assert_close, run_transformers
from tests.graph.running import load, run

TEXT = "The reason why the sky is blue is that"


def test_says_what_transformers_says(tmp_path: Path, starter_gguf: Path) -> None:
    path = tmp_path / "starter"
    import_gguf(starter_gguf, path)
    prompt = Tokenizer(path).encode_text(TEXT)
    tokens, said, _ = run_transformers(path, prompt, 24)

    native = run(load(path), tokens)
    assert np.array_equal(native[len(prompt) - 1 : -1].argmax(1), tokens[len(prompt) :])
    assert_close(native, said, 0.01)  # the cache's f16, over 30 layers
    assert_close(logits(Checkpoint(path), tokens).numpy(), said, 1e-4)
