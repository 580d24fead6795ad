"""A folder of ours and its GGUF file: what both engines say."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from localinfer.formats.tokenizer import Tokenizer
from tests.graph.running import load, run
from tests.tiny import BOS

STEPS = 24


def says_the_same(source: Path, file: Path, near: float = 0.1) -> None:
    """Every token is llama.cpp's too, but where its two best are `near`, as a part of how far scores spread."""
    ours, theirs = scores_of_both(source, file)
    spread = float(theirs.std())
    assert np.abs(ours - theirs).max() < near / 2 * (np.abs(theirs).max() + spread)
    clear = clear_ones(theirs, near)
    assert clear.sum() > len(theirs) // 2
    assert (ours.argmax(axis=1) == theirs.argmax(axis=1))[clear].all()


def clear_ones(scores: NDArray[np.float32], near: float) -> NDArray[np.bool_]:
    """Where the two best are not near."""
    best = np.sort(scores, axis=1)
    clear: NDArray[np.bool_] = best[:, -1] - best[:, -2] > near * float(scores.std())
    return clear


def scores_of_both(source: Path, file: Path) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Our engine's and llama.cpp's, greedy, teacher-forced on our own text."""
    llama_cpp = pytest.importorskip("llama_cpp")
    text = Tokenizer(source).encode_text("Hello there, this is a text of some length, and then there is more. " * 2)
    program = load(source)
    tokens = [BOS, *text][: 3 * STEPS]
    for _ in range(STEPS):
        tokens.append(int(run(program, tokens)[-1].argmax()))
    ours = run(program, tokens)
    model = llama_cpp.Llama(str(file), verbose=False, n_ctx=128, logits_all=True, seed=0)
    model.eval(tokens)
    theirs = np.array(model.scores[: len(tokens)])
    model.close()
    return ours, theirs
