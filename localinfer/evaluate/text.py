"""From a text to chunks of tokens, as llama.cpp's perplexity tool cuts it; and a text of our own for reports."""

from importlib.resources import files
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from localinfer.config import in_range
from localinfer.errors import NotFound, UsageError
from localinfer.evaluate.models import Words

LONGEST_FILE = 1 << 28


def held_out_text() -> str:
    """A text that was written for reports and is never calibrated with: prose, code, a chat, other languages."""
    return (files("localinfer.evaluate") / "held_out.txt").read_text(encoding="utf-8")


def read_text(path: Path) -> str:
    """The file as it is. Raises `NotFound`, and `UsageError` when it is not UTF-8 or beyond belief."""
    try:
        if path.stat().st_size > LONGEST_FILE:
            raise UsageError(f"{path} is larger than {LONGEST_FILE >> 20} MiB", hint="give a part of it")
        data = path.read_bytes()
    except OSError as error:
        raise NotFound(f"{path}: {(error.strerror or str(error)).lower()}", hint="check the path of `--text`") from None
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is not UTF-8 at byte {error.start}", hint="give the text as UTF-8") from None


def cut(text: str, words: Words, *, ctx: int, chunks: int) -> NDArray[np.int32]:
    """The first `chunks` (0: all) whole chunks of `ctx` tokens of `text`, int32 [chunks, ctx], none overlapping.

    Where the tokenizer begins a text with BOS, the first token of every chunk is BOS. Raises `UsageError` when the text
    has not one whole chunk.
    """
    in_range("ctx", ctx, 8, 1 << 20)
    bos = words.bos_id if words.adds_bos else None
    ids = ([] if bos is None else [bos]) + words.encode_text(text)
    count = len(ids) // ctx
    if count == 0:
        raise UsageError(
            f"the text has {len(ids)} tokens, but one chunk takes {ctx}",
            hint="give a longer text, or a smaller `--ctx`",
        )
    count = min(count, chunks) if chunks else count
    found = np.array(ids[: count * ctx], np.int32).reshape(count, ctx)
    if bos is not None:
        found[:, 0] = bos
    return found
