"""Where servers of this user are found: one socket each, in a folder that nobody else may enter."""

import os
import socket
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from localinfer.errors import NotFound
from localinfer.paths import runtime_dir

BACKLOG = 512
TRIES = 8
POSSIBLE = hasattr(socket, "AF_UNIX")
"""Whether this system has such sockets."""


class NotOurs(NotFound):
    """The folder, or what holds it, belongs to somebody who could read along."""


def listen() -> tuple[socket.socket, Path]:
    """A socket in our folder that listens, for this user alone, and its path. Raises `NotFound` where there can be
    none. It appears there at once as one that can be asked."""
    for _ in range(TRIES):
        folder = _folder(make=True)
        try:
            return _listen_in(folder)
        except FileNotFoundError:
            continue  # a server that ended took the folder with it
        except OSError as error:
            raise NotFound(f"{folder}: {(error.strerror or str(error)).lower()}") from None
    raise NotFound(f"{folder}: it is removed again and again")


def _listen_in(folder: Path) -> tuple[socket.socket, Path]:
    path, hidden = folder / f"{os.getpid()}.sock", folder / f".{os.getpid()}"
    found = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        hidden.unlink(missing_ok=True)
        found.bind(str(hidden))
        hidden.chmod(0o600)
        found.listen(BACKLOG)
        found.setblocking(False)
        hidden.rename(path)
    except BaseException:
        found.close()
        raise
    return found, path


def remove(path: Path) -> None:
    """Remove the socket of a server that is no more, and the folder with the last of them."""
    path.unlink(missing_ok=True)
    with suppress(OSError):  # mostly as others lie there
        path.parent.rmdir()


def servers() -> Iterator[Path]:
    """The sockets of servers that run, the newest first; those that nobody listens on are removed."""
    try:
        folder = _folder(make=False)
        found = sorted(folder.glob("*.sock"), key=lambda path: -path.lstat().st_mtime)
    except (NotFound, OSError):
        return
    for path in found:
        if not _is_our_socket(path):
            continue
        try:
            connect(path, 1.0).close()
        except ConnectionRefusedError:
            remove(path)
        except OSError:
            continue
        else:
            yield path


def connect(path: Path, timeout: float | None) -> socket.socket:
    """A connection to the server that listens at `path`. Raises `OSError`."""
    found = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        found.settimeout(timeout)
        found.connect(str(path))
    except BaseException:
        found.close()
        raise
    return found


def _folder(*, make: bool) -> Path:
    """Our folder. Raises `NotFound` where there is none, `NotOurs` where others could look in or exchange it."""
    if not POSSIBLE:
        raise NotFound("this system has no Unix sockets")
    folder = runtime_dir()
    try:
        if make:
            folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            folder.mkdir(mode=0o700, exist_ok=True)
        held, own = folder.parent.stat(), folder.lstat()
    except OSError as error:
        raise NotFound(f"{folder}: {(error.strerror or str(error)).lower()}") from None
    us = os.geteuid()
    exchangeable = held.st_uid not in (us, 0) or (held.st_mode & 0o022 and not held.st_mode & stat.S_ISVTX)
    if exchangeable or not stat.S_ISDIR(own.st_mode) or own.st_uid != us or own.st_mode & 0o077:
        raise NotOurs(f"{folder}: others may enter or exchange it", hint="remove it, or set XDG_RUNTIME_DIR")
    return folder


def _is_our_socket(path: Path) -> bool:
    try:
        found = path.lstat()
    except OSError:
        return False
    return stat.S_ISSOCK(found.st_mode) and found.st_uid == os.geteuid()
