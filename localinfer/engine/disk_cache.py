"""KV blocks on disk, found by their content, so that a chat is taken up without reading it anew.

A block's name is a hash of the name before it and of its tokens, and the first name one of the model, the bits, the
context and the build: what is found is what would be computed, bit for bit. Files are private, written by a thread of
their own, and the least recently used go when there are too many bytes. Trouble with the disk costs time, no answer.
"""

import hashlib
import os
import queue
import secrets
import stat
import struct
import threading
import time
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

MAGIC = b"LIKVBLK2"
NAME_BYTES = 16
SHORT = BLOCK_TOKENS - 1
"""Tokens of a block that lacks only the last one of a text, which is never computed."""
WAITING_BYTES = 256 << 20
"""Blocks that wait to be written take so much memory at most; more are not kept."""
CLOSING_S = 10.0
"""When the engine is closed, what waits is written for so long at most."""
ABANDONED_S = 3600.0
"""A half-written file of this age belongs to nobody."""
ROOM = 0.9
"""When there are too many bytes, the oldest go until this share is left."""
LOOKS = 16
"""Others write too: after each so-manieth part of the limit it is counted again what is there."""
MOST_STAMPS = 1 << 20
"""Nanoseconds between two uses: each block of a text has a stamp of its own."""

_START = struct.Struct(f"<8s{NAME_BYTES}s{NAME_BYTES}sQ")  # magic, model, name, bytes of the block; then the checksum
_HEADER = _START.size + NAME_BYTES
_Job = tuple[bytes, "NDArray[np.uint8]", int] | tuple[list[bytes], int]  # a block to write, or a text that was used


class Blocks(Protocol):
    """What holds the cache: a native program."""

    @property
    def kv_block_bytes(self) -> int: ...
    def read_kv(self, block: int, out: "NDArray[np.uint8]", /) -> None: ...
    def write_kv(self, block: int, values: "NDArray[np.uint8]", /) -> None: ...


class States(Protocol):
    """What holds recurrent states: a native program."""

    @property
    def state_bytes(self) -> int: ...
    def read_state(self, place: int, out: "NDArray[np.uint8]", /) -> None: ...
    def write_state(self, place: int, values: "NDArray[np.uint8]", /) -> None: ...


class Program(Protocol):
    """What holds the cache of several groups of layers."""

    @property
    def kv_group_bytes(self) -> Sequence[int]: ...
    def read_kv(self, block: int, out: "NDArray[np.uint8]", group: int) -> None: ...
    def write_kv(self, block: int, values: "NDArray[np.uint8]", group: int) -> None: ...


class GroupBlocks:
    """The blocks of one group of layers."""

    def __init__(self, program: Program, group: int) -> None:
        self.kv_block_bytes = program.kv_group_bytes[group]
        self.read_kv, self.write_kv = partial(program.read_kv, group=group), partial(program.write_kv, group=group)


class StateBlocks:
    """States as if they were blocks, so that they are kept as blocks are."""

    def __init__(self, states: States) -> None:
        self._states = states
        self.kv_block_bytes = states.state_bytes
        self.read_kv, self.write_kv = states.read_state, states.write_state


class DiskCache:
    """A `BlockStore` in `folder`, at most `limit_bytes` for all models together; `identity` says whose blocks they are.

    Several processes may use the same folder. All but the writing thread's own work is for the engine's thread.
    """

    def __init__(self, folder: Path, blocks: Blocks, *, identity: str, limit_bytes: int) -> None:
        self._blocks = blocks
        self._root = hashlib.blake2b(identity.encode(), digest_size=NAME_BYTES).digest()
        self._folder = folder / self._root.hex()
        self._size = _HEADER + blocks.kv_block_bytes
        self._buffer = np.empty(blocks.kv_block_bytes, np.uint8)
        self._known = {name for name, _ in _files(self._folder)}
        self._most_waiting = max(1, WAITING_BYTES // self._size)
        self._waiting: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()  # Ctrl-C in `put` leaves no other one whole
        self._pending: set[bytes] = set()
        self._dropped: set[bytes] = set()
        self._doubted = False  # a block was broken, so others may be: what is kept anew is looked at
        self._stamp = time.time_ns()
        # The thread must not hold the program: an engine that nobody closes is freed all the same.
        self._writer = _Writer(
            folder, self._folder, limit_bytes, self._waiting, self._known, self._pending, self._dropped
        )
        self._writer.start()

    @property
    def count(self) -> int:
        """Blocks of this model on disk."""
        return len(self._known)

    @property
    def count_bytes(self) -> int:
        """What these take."""
        return self.count * self._size

    @property
    def problem(self) -> str:
        """Why nothing more is kept; empty while all is well."""
        return self._writer.problem

    def names(self, tokens: Sequence[int], count: int) -> list[bytes]:
        """The names of the first `count` blocks; see `BlockStore.names`."""
        data = array("I", tokens[: count * BLOCK_TOKENS]).tobytes()
        step = BLOCK_TOKENS * array("I").itemsize
        before, found = self._root, list[bytes]()
        for at in range(0, len(data), step):
            before = hashlib.blake2b(data[at : at + step], digest_size=NAME_BYTES, key=before).digest()
            found.append(before)
        return found

    def short(self, tokens: Sequence[int], count: int) -> bytes:
        """The name of the block after the first `count` ones that holds all but one of its tokens."""
        before = self.names(tokens, count)[-1] if count else self._root
        data = array("I", tokens[count * BLOCK_TOKENS :][:SHORT]).tobytes()
        return hashlib.blake2b(data, digest_size=NAME_BYTES, key=before).digest()

    def __contains__(self, name: object) -> bool:
        return name in self._known

    def fetch(self, name: bytes, block: int) -> bool:
        """Bring a block back; what is not this block, whole, is deleted. See `BlockStore.fetch`."""
        path = _path(self._folder, name)
        if self._read(path, name):
            self._blocks.write_kv(block, self._buffer)
            with suppress(OSError):
                os.utime(path)
            return True
        self._doubted = True
        self._forget(path, name)
        return False

    def _forget(self, path: Path, name: bytes) -> None:
        _remove(path)
        self._known.discard(name)

    def _read(self, path: Path, name: bytes) -> bool:
        """Fill the buffer; False unless `path` is a file with all of this block."""
        try:  # a pipe must not keep us waiting
            handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            return False
        try:
            told = os.fstat(handle)
            if not stat.S_ISREG(told.st_mode) or told.st_size != self._size:
                return False
            header, left = os.read(handle, _HEADER), self._buffer.data
            while left and (count := os.readv(handle, [left])):
                left = left[count:]
            return not left and header == _header(self._root, name, self._buffer)
        except OSError:
            return False
        finally:
            os.close(handle)

    def used(self, names: Sequence[bytes]) -> None:
        """These first blocks of a text are in use; see `BlockStore.used`."""
        self._stamp = max(self._stamp + MOST_STAMPS, time.time_ns())
        if not self._is_full:
            self._waiting.put((list(names), self._stamp))  # those that wait are written by then

    def drop(self, name: bytes) -> None:
        """Delete a block, or do not write it; see `BlockStore.drop`."""
        if name in self._pending:
            self._dropped.add(name)
        self._forget(_path(self._folder, name), name)

    def keep(self, name: bytes, block: int, at: int = 0) -> None:
        """Copy a block, to be written soon; see `BlockStore.keep`."""
        if self._doubted and name in self._known and not self._read(path := _path(self._folder, name), name):
            self._forget(path, name)
        if name in self._known or name in self._pending or self.problem or self._is_full:
            return
        copy = np.empty(self._blocks.kv_block_bytes, np.uint8)
        self._blocks.read_kv(block, copy)
        self._pending.add(name)
        self._waiting.put((name, copy, self._stamp - at))

    def close(self) -> None:
        """Write what waits, for `CLOSING_S` at most."""
        if self._writer.is_alive():
            self._waiting.put(None)
            self._writer.join(CLOSING_S)

    @property
    def _is_full(self) -> bool:
        return self._waiting.qsize() >= self._most_waiting


class _Writer(threading.Thread):
    """Writes blocks, and deletes the oldest ones."""

    def __init__(
        self,
        root: Path,
        folder: Path,
        limit_bytes: int,
        jobs: "queue.SimpleQueue[_Job | None]",
        known: set[bytes],
        pending: set[bytes],
        dropped: set[bytes],
    ) -> None:
        super().__init__(name="kv-disk", daemon=True)
        self.problem = ""
        self._root = root
        self._folder = folder
        self._limit = limit_bytes
        self._jobs = jobs
        self._known = known
        self._pending = pending
        self._dropped = dropped
        self._bytes = self._fresh = 0  # in all, and of these written since all were counted

    def run(self) -> None:
        self._guarded(self._tidy)
        while (job := self._jobs.get()) is not None:
            if len(job) == 2:
                self._touch(*job)
                continue
            name, values, stamp = job
            if not self.problem and name not in self._dropped:
                self._guarded(partial(self._write, name, values, stamp))
            self._pending.discard(name)
            if name in self._dropped:  # perhaps while it was written
                self._dropped.discard(name)
                self._known.discard(name)
                _remove(_path(self._folder, name))

    def _guarded(self, work: Callable[[], None]) -> None:
        """Do it; the first failure ends all writing, unless others empty the folder meanwhile."""
        try:
            work()
        except FileNotFoundError:
            return
        except OSError as error:
            self.problem = error.strerror or str(error)

    def _touch(self, names: list[bytes], stamp: int) -> None:
        """The blocks of one text: its end is deleted first, since nothing is found without the beginning."""
        for at, name in enumerate(names):
            try:
                os.utime(_path(self._folder, name), ns=(stamp - at, stamp - at), follow_symlinks=False)
            except OSError:
                self._known.discard(name)

    def _write(self, name: bytes, values: "NDArray[np.uint8]", stamp: int) -> None:
        path = _path(self._folder, name)
        part = path.with_name(f".{secrets.token_hex(8)}.tmp")
        for folder in (self._root, self._folder, path.parent):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as file:
                file.write(_header(bytes.fromhex(self._folder.name), name, values))
                file.write(values.data)
                file.flush()
                os.utime(file.fileno(), ns=(stamp, stamp))
            part.replace(path)
        except OSError:
            part.unlink(missing_ok=True)
            raise
        self._known.add(name)
        self._bytes += _HEADER + len(values)
        self._fresh += _HEADER + len(values)
        if self._bytes > self._limit or self._fresh > self._limit // LOOKS:
            self._tidy()

    def _tidy(self) -> None:
        """Count all bytes, and delete the least recently used blocks where they are too many."""
        found: list[tuple[int, int, Path]] = []
        for folder in _found(self._root, "*"):
            for _, path in _files(folder):
                with suppress(OSError):
                    told = path.lstat()
                    found.append((told.st_mtime_ns, told.st_size, path))
            for path in _found(folder, "*/.*.tmp"):
                with suppress(OSError):
                    if time.time() - path.lstat().st_mtime > ABANDONED_S:
                        path.unlink()
        self._bytes = sum(size for _, size, _ in found)
        self._fresh = 0
        if self._bytes <= self._limit:
            return
        for _, size, path in sorted(found):
            if self._bytes <= ROOM * self._limit:
                break
            _remove(path)
            self._bytes -= size
            if path.parent.parent == self._folder:
                self._known.discard(bytes.fromhex(path.name))


def _path(folder: Path, name: bytes) -> Path:
    return folder / name.hex()[:2] / name.hex()


def _files(folder: Path) -> Iterator[tuple[bytes, Path]]:
    """The blocks in `folder`; whatever else lies there is nobody's business."""
    for path in _found(folder, "[0-9a-f][0-9a-f]/*"):
        with suppress(ValueError):
            name = bytes.fromhex(path.name)
            if len(name) == NAME_BYTES and path.name == name.hex() and path.parent.name == path.name[:2]:
                yield name, path


def _found(folder: Path, pattern: str) -> Iterator[Path]:
    """As `glob`; what others delete while it is listed ends the list (`cache prune`, another process)."""
    with suppress(FileNotFoundError):
        yield from folder.glob(pattern)


def _remove(path: Path) -> None:
    """Delete what has a block's name, whatever it is; a link, not what it leads to."""
    with suppress(OSError):
        if path.is_dir() and not path.is_symlink():
            path.rmdir()
        else:
            path.unlink()


def _header(root: bytes, name: bytes, values: "NDArray[np.uint8]") -> bytes:
    """Says whose block follows, and that it is whole."""
    start = _START.pack(MAGIC, root, name, len(values))
    digest = hashlib.blake2b(start, digest_size=NAME_BYTES)
    digest.update(values.data)
    return start + digest.digest()
