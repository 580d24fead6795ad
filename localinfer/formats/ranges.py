"""Byte ranges of one file: its size is known before anything is allocated, and it may not change while it is used."""

import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from localinfer.errors import Corrupt
from localinfer.formats.json_files import file_error

T = TypeVar("T")
_PIECE = 1 << 30


class RangedFile:
    """A regular file that is opened anew for each read. Holds no handle; safe to use from many threads.

    Read, not mapped: a file that shrinks under a map kills the process. Raises `NotFound` or `Corrupt`.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.size = 0
        self._identity: tuple[int, ...] | None = None
        self.size = self.with_handle(lambda handle: os.fstat(handle).st_size)

    @property
    def modified_ns(self) -> int:
        """When it was last written, as it was opened first; nanoseconds since 1970."""
        return self._identity[3] if self._identity else 0

    def with_handle(self, work: Callable[[int], T]) -> T:
        """Run `work` with an open handle of the same, unchanged file."""
        with self.opened() as handle:
            return work(handle)

    @contextmanager
    def opened(self) -> Iterator[int]:
        """A handle of the same, unchanged file, for as long as the block lasts."""
        try:
            if not stat.S_ISREG(self.path.stat().st_mode):  # asked first: opening a pipe would wait for ever
                raise Corrupt(f"{self.path}: is not a regular file", hint="give the path of a file")
            with self.path.open("rb", buffering=0) as file:
                status = os.fstat(file.fileno())
                identity = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
                self._identity = self._identity or identity
                if identity != self._identity:
                    raise Corrupt(f"{self.path}: changed while it was in use", hint="start again")
                yield file.fileno()
        except OSError as error:
            raise file_error(self.path, error) from error

    def read_into(self, out: NDArray[Any], begin: int, what: str) -> None:
        """Fill the contiguous array `out` with the bytes from `begin` on; `what` names them in messages."""
        view = out.reshape(-1).view(np.uint8).data

        def work(handle: int) -> None:
            done = 0
            while done < len(view):
                got = os.preadv(handle, [view[done : done + _PIECE]], begin + done)
                if got == 0:
                    raise Corrupt(f"{self.path}: {what} is cut short", hint="download the file again")
                done += got

        self.with_handle(work)
