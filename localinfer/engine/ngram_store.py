"""Earlier texts, as tokens, for guessing: a private file for each tokenizer, and an index of it in memory.

Only what is new of a text is added, and the oldest goes when there is too much. Trouble with the file costs guesses and
nothing else: a folder that cannot be written, a torn end and tokens that do not exist are passed over.
"""

import contextlib
import hashlib
import os
from array import array
from collections import deque
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from localinfer.formats.durable import write_bytes
from localinfer.formats.json_files import TOKENIZER_LIMIT, read_bytes
from localinfer.paths import texts_dir
from localinfer.speculation.suffix import ORDERS, Location

MOST_TOKENS = 400_000
"""Tokens that are looked at, and kept when the file is made smaller; it may grow to twice as many before."""

LEAST_TOKENS = 16
"""Shorter texts are not worth keeping."""

END = -1
"""Between two texts."""

_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)


class NgramStore:
    """The texts of one tokenizer. `remember` adds to the file; what is added is found from the next opening on."""

    def __init__(self, path: Path, vocab: int) -> None:
        self._path = path
        tokens = _read(path, vocab)
        self._tokens = array("i", tokens.tolist())
        self._index = {order: _sorted(tokens, order) for order in ORDERS}
        self._latest: deque[tuple[int, ...]] = deque(maxlen=8)

    def __len__(self) -> int:
        return len(self._tokens)

    def locations(self, gram: Sequence[int], most: int) -> list[Location]:
        """Where these tokens, one of `ORDERS` long, were followed by something; the latest ones, oldest first."""
        order = len(gram)
        hashes, ends = self._index[order]
        if not len(hashes):
            return []
        wanted = _hashes(np.array(gram, np.int64), order)[0]
        first, last = np.searchsorted(hashes, wanted, "left"), np.searchsorted(hashes, wanted, "right")
        found: list[Location] = []
        for end in ends[max(first, last - most) : last].tolist():
            if tuple(self._tokens[end - order : end]) == tuple(gram) and self._tokens[end] != END:
                found.append((self._tokens, end))
        return found

    def remember(self, tokens: Sequence[int]) -> None:
        """Keep a text for later, but for the beginning that it shares with one of the last."""
        same = max((_common(tokens, text) for text in self._latest), default=0)
        self._latest.append(tuple(tokens))
        fresh = tokens[max(0, same - max(ORDERS)) :]
        if len(tokens) - same >= LEAST_TOKENS:
            with contextlib.suppress(OSError):
                _append(self._path, np.array([*fresh, END], "<i4").tobytes())


def open_ngram_store(model: Path, vocab: int) -> NgramStore:
    """The texts that models with the tokenizer of the one at `model` have read and written."""
    key = hashlib.sha256(read_bytes(model / "tokenizer.json", TOKENIZER_LIMIT)).hexdigest()[:24]
    return NgramStore(texts_dir() / f"{key}.i32", vocab)


def forget_all() -> int:
    """Delete all earlier texts, and say how many bytes that were."""
    files = [path for path in texts_dir().glob("*.i32") if path.is_file()]
    total = sum(path.stat().st_size for path in files)
    for path in files:
        path.unlink(missing_ok=True)
    return total


def _append(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        os.write(handle, data)  # one call: two programs do not mix their texts
    finally:
        os.close(handle)


def _read(path: Path, vocab: int) -> NDArray[np.int32]:
    """The latest tokens; a file that has grown too long is cut."""
    nothing = np.empty(0, np.int32)
    try:
        size = path.stat().st_size // 4
        first = max(0, size - MOST_TOKENS)
        data = np.fromfile(path, "<i4", count=min(size, MOST_TOKENS), offset=4 * first)
        if size > 2 * MOST_TOKENS:
            write_bytes(path, data.tobytes())
            path.chmod(0o600)
    except OSError:
        return nothing
    return np.where((data >= 0) & (data < vocab), data, END).astype(np.int32)


def _sorted(tokens: NDArray[np.int32], order: int) -> tuple[NDArray[np.uint64], NDArray[np.int32]]:
    """Hashes of all runs of `order` tokens that something follows, ascending, and where each ends."""
    if len(tokens) <= order:
        return np.empty(0, np.uint64), np.empty(0, np.int32)
    hashes = _hashes(tokens[:-1].astype(np.int64), order)
    by_hash = np.argsort(hashes, kind="stable")
    return hashes[by_hash], (by_hash + order).astype(np.int32)


def _hashes(tokens: NDArray[np.int64], order: int) -> NDArray[np.uint64]:
    count, found = len(tokens) - order + 1, np.zeros(len(tokens) - order + 1, np.uint64)
    with np.errstate(over="ignore"):
        for i in range(order):
            found = (found ^ (tokens[i : i + count].astype(np.uint64) + np.uint64(1))) * _MULTIPLIER
            found ^= found >> np.uint64(29)
    return found


def _common(one: Sequence[int], other: Sequence[int]) -> int:
    count = 0
    for a, b in zip(one, other, strict=False):
        if a != b:
            break
        count += 1
    return count
