"""KV blocks on disk, found by their content, so that a chat is taken up without reading it anew.

A block's name is a hash of the name before it and of its tokens, and the first name one of the model, the bits, the
context and the build: what is found is what would be computed, bit for bit. Files are private, written by a thread of
their own, and the least recently used go when there are too many bytes. Trouble with the disk costs time, no answer.
"""

import hashlib
import os
import queue
import secrets
import threading
import time
import zlib
from array import array
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from localinfer.config import BLOCK_TOKENS

if TYPE_CHECKING:
    from numpy.typing import NDArray

MAGIC = b"LIKVBLK1"
NAME_BYTES = 16
WAITING_BYTES = 256 << 20
"""Blocks that wait to be written take so much memory at most; more are not kept."""
CLOSING_S = 10.0
"""When the engine is closed, what waits is written for so long at most."""
ABANDONED_S = 3600.0
"""A half-written file of this age belongs to nobody."""
ROOM = 0.9
"""When there are too many bytes, the oldest go until this share is left."""

_HEADER = len(MAGIC) + 8
_Job = tuple[bytes, "NDArray[np.uint8]"]


class Blocks(Protocol):
    """What holds the cache: a native program."""

    @property
    def kv_block_bytes(self) -> int: ...
    def read_kv(self, block: int, out: "NDArray[np.uint8]", /) -> None: ...
    def write_kv(self, block: int, values: "NDArray[np.uint8]", /) -> None: ...


class DiskShelf:
    """A `Shelf` in `folder`, at most `limit_bytes` for all models together; `identity` says what the blocks are of.

    Several processes may use the same folder. All but the writing thread's own work is for the engine's thread.
    """

    def __init__(self, folder: Path, blocks: Blocks, *, identity: str, limit_bytes: int) -> None:
        self._blocks = blocks
        self._root = hashlib.blake2b(identity.encode(), digest_size=NAME_BYTES).digest()
        self._folder = folder / self._root.hex()
        self._size = _HEADER + blocks.kv_block_bytes
        self._buffer = np.empty(blocks.kv_block_bytes, np.uint8)
        self._known = {name for name, _ in _files(self._folder)}
        self._waiting: queue.Queue[_Job | None] = queue.Queue(max(1, WAITING_BYTES // self._size))
        self._pending: set[bytes] = set()
        # The thread must not hold the program: an engine that nobody closes is freed all the same.
        self._writer = _Writer(folder, self._folder, limit_bytes, self._waiting, self._known, self._pending)
        self._writer.start()

    @property
    def count(self) -> int:
        """Blocks of this model on disk."""
        return len(self._known)

    @property
    def problem(self) -> str:
        """Why nothing more is kept; empty while all is well."""
        return self._writer.problem

    def names(self, tokens: Sequence[int], count: int) -> list[bytes]:
        """The names of the first `count` blocks; see `Shelf.names`."""
        data = array("I", tokens[: count * BLOCK_TOKENS]).tobytes()
        step = BLOCK_TOKENS * array("I").itemsize
        before, found = self._root, list[bytes]()
        for at in range(0, len(data), step):
            before = hashlib.blake2b(data[at : at + step], digest_size=NAME_BYTES, key=before).digest()
            found.append(before)
        return found

    def __contains__(self, name: object) -> bool:
        return name in self._known

    def fetch(self, name: bytes, block: int) -> bool:
        """Bring a block back; one that is not whole is deleted. See `Shelf.fetch`."""
        path = _path(self._folder, name)
        try:
            with os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), "rb") as file:
                header = file.read(_HEADER)
                whole = os.fstat(file.fileno()).st_size == self._size and header[: len(MAGIC)] == MAGIC
                whole = whole and file.readinto(self._buffer.data) == len(self._buffer)
            if whole and _header(self._buffer) == header:
                self._blocks.write_kv(block, self._buffer)
                os.utime(path)
                return True
            path.unlink(missing_ok=True)
        except OSError:
            pass  # gone, or not to be read: then it is computed
        self._known.discard(name)
        return False

    def keep(self, name: bytes, block: int) -> None:
        """Copy a block, to be written soon; see `Shelf.keep`."""
        if name in self._known or name in self._pending or self.problem or self._waiting.full():
            return
        copy = np.empty(self._blocks.kv_block_bytes, np.uint8)
        self._blocks.read_kv(block, copy)
        self._pending.add(name)
        self._waiting.put((name, copy))

    def close(self) -> None:
        """Write what waits, for `CLOSING_S` at most."""
        if self._writer.is_alive():
            with suppress(queue.Full):
                self._waiting.put(None, timeout=CLOSING_S)
                self._writer.join(CLOSING_S)


class _Writer(threading.Thread):
    """Writes blocks, and deletes the oldest ones."""

    def __init__(
        self,
        root: Path,
        folder: Path,
        limit_bytes: int,
        jobs: "queue.Queue[_Job | None]",
        known: set[bytes],
        pending: set[bytes],
    ) -> None:
        super().__init__(name="kv-disk", daemon=True)
        self.problem = ""
        self._root = root
        self._folder = folder
        self._limit = limit_bytes
        self._jobs = jobs
        self._known = known
        self._pending = pending
        self._bytes = 0

    def run(self) -> None:
        self._guarded(self._tidy)
        while (job := self._jobs.get()) is not None:
            name, values = job
            if not self.problem and self._guarded(partial(self._write, name, values)):
                self._known.add(name)
            self._pending.discard(name)

    def _guarded(self, work: Callable[[], None]) -> bool:
        """Do it; the first failure ends all writing."""
        try:
            work()
        except OSError as error:
            self.problem = error.strerror or str(error)
            return False
        return True

    def _write(self, name: bytes, values: "NDArray[np.uint8]") -> None:
        path = _path(self._folder, name)
        for folder in (self._root, self._folder, path.parent):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        part = path.with_name(f".{secrets.token_hex(8)}.tmp")
        try:
            with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as file:
                file.write(_header(values))
                file.write(values.data)
            part.replace(path)
        except OSError:
            part.unlink(missing_ok=True)
            raise
        self._bytes += _HEADER + len(values)
        if self._bytes > self._limit:
            self._tidy()

    def _tidy(self) -> None:
        """Count all bytes, and delete the least recently used blocks where they are too many."""
        found: list[tuple[float, int, Path]] = []
        for folder in self._root.glob("*"):
            for _, path in _files(folder):
                with suppress(OSError):
                    told = path.lstat()
                    found.append((told.st_mtime, told.st_size, path))
            for path in folder.glob("*/.*.tmp"):
                with suppress(OSError):
                    if time.time() - path.lstat().st_mtime > ABANDONED_S:
                        path.unlink()
        self._bytes = sum(size for _, size, _ in found)
        if self._bytes <= self._limit:
            return
        for _, size, path in sorted(found):
            if self._bytes <= ROOM * self._limit:
                break
            path.unlink(missing_ok=True)
            self._bytes -= size


def _path(folder: Path, name: bytes) -> Path:
    return folder / name.hex()[:2] / name.hex()


def _files(folder: Path) -> Iterator[tuple[bytes, Path]]:
    """The blocks in `folder`; whatever else lies there is nobody's business."""
    for path in folder.glob("[0-9a-f][0-9a-f]/*"):
        with suppress(ValueError):
            name = bytes.fromhex(path.name)
            if len(name) == NAME_BYTES and path.name == name.hex() and path.parent.name == path.name[:2]:
                yield name, path


def _header(values: "NDArray[np.uint8]") -> bytes:
    """Says that what follows is whole."""
    return MAGIC + zlib.crc32(values.data).to_bytes(4, "little") + len(values).to_bytes(4, "little")
