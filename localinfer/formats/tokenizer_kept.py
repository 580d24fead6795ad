"""Tokenizers as they were put together before, so that opening a model need not read and check its files' text again.

One file a tokenizer, named after the hash of all that it was made of: files that change give another name. It begins
with the hash of itself, so that a damaged one counts for nothing, as one of another version does.
"""

import json
import os
from array import array
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, fields
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from localinfer import __version__
from localinfer.formats.chat_templates import FOLDER
from localinfer.formats.json_files import CONFIG_LIMIT, TOKENIZER_LIMIT, read_bytes
from localinfer.formats.tokenizer_json import AddedToken
from localinfer.formats.tokenizer_parts import TokenizerParts, read_parts
from localinfer.paths import tokenizers_dir

FORMAT = 1
"""Counts the changes of what is kept, and of how it is made."""

MOST_KEPT = 32
WORTH_BYTES = 1 << 18
"""Of `tokenizer.json`; a smaller one is read as quickly as what would be kept of it."""

LARGEST = 4 * TOKENIZER_LIMIT
_SMALL = (
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "config.json",
    "generation_config.json",
    "chat_template.jinja",
    "chat_template.json",
    "processor_config.json",
)
_TEXTS = ("first", "later", "full")
_HASH = 32
_MISSING = -1


class Vocabulary(Mapping[int, str]):
    """Texts by id, in one run of bytes; looked up in place, since an answer needs few of them."""

    def __init__(self, lengths: "array[int]", data: memoryview) -> None:
        self._lengths, self._data = lengths, data
        self._starts: NDArray[np.int64] | None = None

    def __getitem__(self, token: int) -> str:
        if not 0 <= token < len(self._lengths) or self._lengths[token] == _MISSING:
            raise KeyError(token)
        if self._starts is None:
            ends = np.cumsum(np.maximum(np.frombuffer(self._lengths, np.intc), 0), dtype=np.int64)
            self._starts = np.concatenate(([0], ends))
        start = int(self._starts[token])
        return str(self._data[start : start + self._lengths[token]], "utf-8")

    def __iter__(self) -> Iterator[int]:
        return (token for token, length in enumerate(self._lengths) if length != _MISSING)

    def __len__(self) -> int:
        return len(self._lengths) - self._lengths.count(_MISSING)


def kept_or_read(directory: Path) -> TokenizerParts:
    """The parts of the tokenizer in `directory`, kept from an earlier time or read, and then kept. Raises as
    `read_parts`."""
    name = _name(directory)
    if name is None:
        return read_parts(directory)
    path = tokenizers_dir() / f"{name}.bin"
    with suppress(Exception):  # whatever is wrong with it: it can be made again
        return _unpacked(path.read_bytes())
    parts = read_parts(directory)
    with suppress(OSError):  # a home that cannot be written only means to read it again
        _keep(path, _packed(parts))
    return parts


def _name(directory: Path) -> str | None:
    """The hash of all files that are read; None where nothing is worth keeping, or a file cannot be read."""
    try:
        if (directory / "tokenizer.json").stat().st_size < WORTH_BYTES:
            return None
    except OSError:
        return None
    import tokenizers

    templates = sorted(f"{FOLDER}/{path.name}" for path in (directory / FOLDER).glob("*.jinja"))
    found = sha256(f"{FORMAT} {__version__} {tokenizers.__version__}".encode())
    for name in ("tokenizer.json", *_SMALL, *templates):
        path = directory / name
        if path.exists():
            data = read_bytes(path, TOKENIZER_LIMIT if name == "tokenizer.json" else CONFIG_LIMIT)
            found.update(f"\0{name}\0{len(data)}\0".encode())
            found.update(data)
    return found.hexdigest()[:40]


def _packed(parts: TokenizerParts) -> bytes:
    """Its own hash, the length of what is JSON, that, the lengths of the tokens, their texts, the documents."""
    highest = max(parts.tokens)
    texts = {token: text.encode() for token, text in parts.tokens.items()}
    lengths = array("i", [len(texts[token]) if token in texts else _MISSING for token in range(highest + 1)])
    spelled = b"".join(texts[token] for token in sorted(texts))
    documents = [text.encode() for name in _TEXTS if (text := getattr(parts, name)) is not None]
    plain = {one.name: getattr(parts, one.name) for one in fields(parts) if one.name not in (*_TEXTS, "tokens")}
    head: dict[str, Any] = plain | {
        "added": [asdict(token) for token in parts.added],
        "text_ids": sorted(parts.text_ids),
        "same_as": sorted(parts.same_as.items()),
        "sizes": [len(lengths), len(spelled), *map(len, documents)],
        "texts": [name for name in _TEXTS if getattr(parts, name) is not None],
    }
    text = json.dumps(head).encode()
    body = b"".join([len(text).to_bytes(8, "little"), text, lengths.tobytes(), spelled, *documents])
    return sha256(body).digest() + body


def _unpacked(data: bytes) -> TokenizerParts:
    """The reverse. Raises `ValueError` for anything but what was packed."""
    body = memoryview(data)[_HASH:]
    if len(data) > LARGEST or sha256(body).digest() != data[:_HASH]:
        raise ValueError("damaged")
    end = 8 + int.from_bytes(body[:8], "little")
    head = json.loads(bytes(body[8:end]))
    count, *sizes = head.pop("sizes")
    lengths = array("i")
    lengths.frombytes(body[end : end + count * lengths.itemsize])
    end += count * lengths.itemsize
    pieces = []
    for length in sizes:
        pieces.append(body[end : end + length])
        end += length
    head |= dict.fromkeys(_TEXTS)
    head |= {name: str(piece, "utf-8") for name, piece in zip(head.pop("texts"), pieces[1:], strict=True)}
    head["added"] = tuple(AddedToken(**token) for token in head["added"])
    head["text_ids"], head["same_as"] = frozenset(head["text_ids"]), dict(head["same_as"])
    head |= {name: tuple(head[name]) for name in ("eos_ids", "after", "notes")}
    return TokenizerParts(tokens=Vocabulary(lengths, pieces[0]), **head)


def _keep(path: Path, data: bytes) -> None:
    """Write it whole, for its owner alone, and let the oldest go."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        with open(part, "wb", opener=lambda name, flags: os.open(name, flags | os.O_CLOEXEC, 0o600)) as file:
            file.write(data)
        part.replace(path)
    except OSError:
        part.unlink(missing_ok=True)
        raise
    others = sorted(path.parent.glob("*.bin"), key=lambda one: one.stat().st_mtime, reverse=True)
    for old in others[MOST_KEPT:]:
        old.unlink(missing_ok=True)
