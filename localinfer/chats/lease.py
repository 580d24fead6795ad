"""Who may write into a chat: one process at a time, by a lock that dies with the process."""

import fcntl
import os
from contextlib import suppress
from pathlib import Path


class Lease:
    """The right to write into one chat. `Lease.take` gives one, or the number of the process that has it."""

    def __init__(self, path: Path, handle: int) -> None:
        self._path = path
        self._handle: int | None = handle

    @classmethod
    def take(cls, folder: Path, chat_id: int) -> "Lease | int | None":
        """The lease; or the number of the process that holds it (0 if it does not say); None where the file system
        has no locks or the folder cannot be written, and nobody can tell."""
        path = folder / str(chat_id)
        while True:
            try:
                folder.mkdir(parents=True, exist_ok=True, mode=0o700)
                handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            except OSError:
                return None
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if _is_still(path, handle):
                    os.ftruncate(handle, 0)
                    os.pwrite(handle, str(os.getpid()).encode(), 0)
                    return cls(path, handle)
                os.close(handle)  # its holder has just let go and removed it: look again
            except BlockingIOError:
                holder = os.pread(handle, 20, 0)
                os.close(handle)
                return int(holder) if holder.isdigit() else 0
            except OSError:
                os.close(handle)
                return None

    def release(self) -> None:
        """Let go; others may write from now on."""
        if self._handle is not None:
            with suppress(OSError):
                self._path.unlink()
            os.close(self._handle)
            self._handle = None

    def __del__(self) -> None:
        self.release()


def _is_still(path: Path, handle: int) -> bool:
    try:
        seen = path.stat()
    except OSError:
        return False
    held = os.fstat(handle)
    return (seen.st_dev, seen.st_ino) == (held.st_dev, held.st_ino)
