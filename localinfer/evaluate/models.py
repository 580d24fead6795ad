"""Models as this room sees them: tokens in, logits out, row by row in order. Our own engine's kernels, or llama.cpp."""

from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from localinfer.config import EngineConfig, KvBits
from localinfer.errors import Corrupt, UsageError
from localinfer.evaluate.measures import Logits

BLOCK = 32
"""Tokens in a block of the KV cache."""


class Words(Protocol):
    """What is asked of a tokenizer."""

    @property
    def adds_bos(self) -> bool: ...

    @property
    def bos_id(self) -> int | None: ...

    def encode_text(self, text: str) -> list[int]: ...

    def decode(self, ids: list[int], *, specials: bool = False) -> str: ...


class Reader(Protocol):
    """One model that reads texts of at most so many tokens, one at a time."""

    @property
    def vocab(self) -> int: ...

    @property
    def words(self) -> Words: ...

    def start(self, tokens: NDArray[np.int32]) -> None:
        """Begin another text."""
        ...

    def logits(self, first: int, last: int) -> Logits:
        """Scores after positions `first` to `last` - 1, asked for in ascending order; valid until the next call."""
        ...

    def close(self) -> None:
        """Give the memory back."""
        ...


@dataclass(frozen=True, slots=True)
class Size:
    """What a model takes as it is stored."""

    bits_per_weight: float
    body_bits_per_weight: float
    nbytes: int


def open_reader(path: Path, *, ctx: int, kv_bits: KvBits, threads: int = 0) -> Reader:
    """Load the model at `path`: a checkpoint directory, or a GGUF file for llama.cpp."""
    return NativeReader(path, ctx, kv_bits, threads) if path.is_dir() else LlamaReader(path, ctx, kv_bits, threads)


def size_of(path: Path) -> Size:
    """From the headers alone."""
    if not path.is_dir():
        return _gguf_size(path)
    from localinfer.graph.weights import Checkpoint

    checkpoint = Checkpoint(path)
    body = [linear for linear in checkpoint.graph.linears() if linear not in checkpoint.graph.tables]
    held = sum(checkpoint.stored_bytes(linear.name) for linear in body)
    return Size(
        8 * checkpoint.nbytes / checkpoint.graph.parameters(),
        8 * held / sum(linear.rows * linear.cols for linear in body),
        checkpoint.nbytes,
    )


def _gguf_size(path: Path) -> Size:
    from localinfer.formats.gguf import GgufFile

    tensors = GgufFile(path).tensors
    body = [tensor for name, tensor in tensors.items() if name.startswith("blk.") and len(tensor.shape) > 1]
    held = sum(tensor.end - tensor.begin for tensor in tensors.values())
    inside = sum(tensor.end - tensor.begin for tensor in body)
    weights = sum(prod(tensor.shape) for tensor in tensors.values())
    return Size(8 * held / max(1, weights), 8 * inside / max(1, sum(prod(tensor.shape) for tensor in body)), held)


class NativeReader:
    """A program of our own, with the cache of one text."""

    def __init__(self, path: Path, ctx: int, kv_bits: KvBits, threads: int = 0) -> None:
        from localinfer.formats.tokenizer import Tokenizer
        from localinfer.graph.program import load_program
        from localinfer.graph.weights import Checkpoint

        checkpoint = Checkpoint(path)
        self.words = Tokenizer(path)
        _must_be_long_enough(path, checkpoint.spec.max_context, ctx)
        blocks = -(-ctx // BLOCK)
        self._program = load_program(checkpoint, threads=threads, context=ctx, kv_blocks=blocks, kv_bits=kv_bits)
        self.vocab = self._program.vocab
        self.kv_layers: tuple[int, ...] = tuple(self._program.kv_bits)
        """Bits of each layer's cache."""
        self._blocks = np.arange(blocks, dtype=np.int32)[None]
        self._tokens = np.zeros(0, np.int32)
        self._at = 0
        self._out = np.empty((0, self.vocab), np.float32)

    def start(self, tokens: NDArray[np.int32]) -> None:
        self._tokens, self._at = tokens, 0

    def logits(self, first: int, last: int) -> Logits:
        if len(self._out) < last - first:
            self._out = np.empty((last - first, self.vocab), np.float32)
        positions = np.arange(self._at, last, dtype=np.int32)
        wanted = np.arange(first - self._at, last - self._at, dtype=np.int32)
        out = self._out[: last - first]
        self._program.step(
            self._tokens[self._at : last], positions, np.zeros(len(positions), np.int32), self._blocks, wanted, out
        )
        self._at = last
        return out

    def close(self) -> None:
        del self._program
        self._out = np.empty((0, self.vocab), np.float32)


class LlamaReader:
    """A GGUF file in llama.cpp. A text is read whole, as llama-perplexity does: its results depend on the batch."""

    def __init__(self, path: Path, ctx: int, kv_bits: KvBits, threads: int = 0) -> None:
        from localinfer.engine.llamacpp_library import Llama, load_library
        from localinfer.engine.llamacpp_text import LlamaTokenizer
        from localinfer.formats.gguf import GgufFile

        load_library()
        file = GgufFile(path)  # llama.cpp trusts a header more than it should
        _must_be_long_enough(path, file.integer(f"{file.text('general.architecture')}.context_length"), ctx)
        config = EngineConfig(context=ctx, kv_bits=kv_bits, threads=threads or None, prefill_chunk=ctx)
        self._llama = Llama(file.path, config, ctx, None)
        self.vocab = self._llama.vocab
        self.words = LlamaTokenizer(self._llama.lib, self._llama.model)
        self._first = -1

    def start(self, tokens: NDArray[np.int32]) -> None:
        batch, n = self._llama.batch, len(tokens)
        self._llama.forget_after(0, 0)
        np.ctypeslib.as_array(batch.token, (n,))[:] = tokens
        np.ctypeslib.as_array(batch.pos, (n,))[:] = range(n)
        np.ctypeslib.as_array(batch.n_seq_id, (n,))[:] = 1
        for row in range(n):
            batch.seq_id[row][0] = 0
        self._wanted = np.ctypeslib.as_array(batch.logits, (n,))
        self._first = -1

    def logits(self, first: int, last: int) -> Logits:
        n = len(self._wanted)
        if self._first < 0:
            self._first = first
            self._wanted[:first] = 0
            self._wanted[first:] = 1
            self._llama.decode(n)
        return self._llama.logits(n - self._first)[first - self._first : last - self._first]

    def close(self) -> None:
        self._llama.close()


def _must_be_long_enough(path: Path, longest: int, ctx: int) -> None:
    if ctx > longest:
        raise UsageError(
            f"texts of {ctx} tokens are too long for `{path.name}`, which was made for {longest}",
            hint=f"use `--ctx {longest}` or less",
        )


def require_same_words(one: Reader, other: Reader, names: tuple[str, str], ids: list[int]) -> None:
    """Raise `UsageError` unless both models mean the same by a token: as many, and these `ids` the same text."""
    if one.vocab != other.vocab:
        raise UsageError(
            f"`{names[0]}` has {one.vocab} tokens and `{names[1]}` has {other.vocab}: they cannot be compared",
            hint="compare a model with the one it was made from",
        )
    if one.words.decode(ids, specials=True) != other.words.decode(ids, specials=True):
        raise UsageError(
            f"`{names[0]}` and `{names[1]}` have vocabularies of {one.vocab} different tokens",
            hint="compare a model with the one it was made from",
        )


def require_finite(logits: Logits, name: str, where: str) -> None:
    """Raise `Corrupt` when a model's scores are not numbers: every figure after them would be worthless."""
    bad = np.flatnonzero(~np.isfinite(logits).all(axis=1))
    if len(bad):
        values = logits[bad[0]]
        raise Corrupt(
            f"`{name}` gives {np.count_nonzero(~np.isfinite(values))} scores that are no finite numbers {where}",
            hint="its weights are damaged, or too large for its arithmetic; make or download it again",
        )
