"""One process at a time: advisory file locks that die with the process that holds them."""

import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from localinfer.errors import NotFound


@contextmanager
def locked(path: Path, *, on_wait: Callable[[], None] | None = None, poll: float = 0.1) -> Iterator[None]:
    """Hold an exclusive lock on `path` (made when absent, never deleted). Waits; `on_wait` is called once if it must.

    A link planted at `path` is not followed. Raises `NotFound` when the folder cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
    except OSError as error:
        raise NotFound(
            f"{path}: cannot be written: {error.strerror}", hint="check the folder and its permissions"
        ) from error
    try:
        _take(handle, on_wait, poll)
        yield
    finally:
        os.close(handle)


def _take(handle: int, on_wait: Callable[[], None] | None, poll: float) -> None:
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            # Polled, not blocking: Ctrl-C must end the wait at once, on every platform.
            if on_wait is not None:
                on_wait()
                on_wait = None
            time.sleep(poll)
        except OSError:
            return  # a file system without locks: hashes and renames keep the result right, only work is doubled
        else:
            return
