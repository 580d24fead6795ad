"""Writing so that a file or folder is there whole, or not at all, after a crash too."""

import errno
import json
import os
import secrets
from pathlib import Path
from typing import Any

from localinfer.errors import DoesNotFit, LocalInferError, NotFound, size

# Nothing to do with space: the place itself cannot be written.
_BLOCKED = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG)


def sync(path: Path) -> None:
    """Wait until the file (or the directory's list of names) is on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_bytes(path: Path, data: bytes, *, private: bool = False) -> None:
    """Write a small file whole: beside its name, fsynced, then renamed; `private` lets only its owner read it. Of two
    that write one file at the same time the later wins. Raises `DoesNotFit` when the disk is full."""
    part = path.with_name(f".{secrets.token_hex(8)}.tmp")
    try:
        with open(part, "xb", opener=_for_the_owner if private else None) as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
        sync(path.parent)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise write_failed(path, len(data), error) from error


def _for_the_owner(name: str, flags: int) -> int:
    return os.open(name, flags | os.O_CLOEXEC, 0o600)


def write_json(path: Path, value: Any, *, private: bool = False) -> None:
    """As `write_bytes`, for JSON that people may read: indented, UTF-8, keys in the order given."""
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    write_bytes(path, text.encode(), private=private)


def write_failed(path: Path, need: int, error: Exception) -> LocalInferError:
    """The error for a write of `need` bytes to `path` that failed."""
    if isinstance(error, OSError) and error.errno in _BLOCKED:
        return NotFound(f"{path}: cannot be written: {error.strerror}", hint="check the folder and its permissions")
    free = 0
    if path.parent.exists():
        status = os.statvfs(path.parent)
        free = status.f_bavail * status.f_frsize
    return DoesNotFit(
        f"{path}: cannot be written ({error}); it needs {size(need)}, and {size(free)} is free on the disk",
        hint="free some space and run the same command again",
    )
