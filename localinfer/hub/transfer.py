"""One file from the Hub into the cache: continued where it stopped, hashed before it gets its name.

The Hub library of this cache throws a partial file away when a download ends early, and names a file before anyone
has hashed it. So the bytes are fetched here: into `blobs/<hash>.incomplete`, renamed to `blobs/<hash>` only when size
and hash are right. Both sides use the same layout and the same lock file.
"""

import os
import re
from collections.abc import Callable
from pathlib import Path

import httpx2

from localinfer.errors import Corrupt
from localinfer.formats.durable import sync, write_failed
from localinfer.hub.connection import Connection, TransientError
from localinfer.hub.hashing import git_sha1_file, sha256_file
from localinfer.hub.listing import RemoteFile
from localinfer.hub.names import shown
from localinfer.hub.patience import Patience

_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)")

Position = Callable[[int], None]
"""Hears how many bytes of the file are here; may go down when a start was thrown away."""


def fetch(
    connection: Connection, commit: str, file: RemoteFile, blob: Path, patience: Patience, on_position: Position
) -> None:
    """Make sure `blob` holds `file`. The caller holds the lock.

    Raises `Corrupt` when the bytes are wrong twice, `DoesNotFit` when the disk fills (the partial file stays),
    `NetworkError` when patience ends (it stays too), `NotFound` when access is refused.
    """
    if blob.is_file() and blob.stat().st_size == file.size:
        on_position(file.size)
        return
    partial = partial_of(blob)
    wrong = ""
    for _ in range(2):
        wrong = _fill(connection, commit, file, partial, patience, on_position) or _wrong(partial, file)
        if not wrong:
            sync(partial)
            partial.replace(blob)
            sync(blob.parent)
            return
        partial.unlink(missing_ok=True)  # one more time from the start: a bad byte may be anywhere
    raise Corrupt(
        f"{shown(file.name)} of `{connection.repo}` arrived wrong twice: {wrong}",
        hint="nothing of it was kept; try again later, or tell the owner of the repository",
    )


def partial_of(blob: Path) -> Path:
    return blob.with_name(blob.name + ".incomplete")


def _wrong(partial: Path, file: RemoteFile) -> str:
    sha256 = len(file.digest) == 64
    found = sha256_file(partial) if sha256 else git_sha1_file(partial)
    if found == file.digest:
        return ""
    return f"{'sha256' if sha256 else 'git sha1'} mismatch (expected {file.digest}, got {found})"


def _fill(
    connection: Connection, commit: str, file: RemoteFile, partial: Path, patience: Patience, on_position: Position
) -> str:
    """Bring the partial file to its full size. Returns what is wrong when the server sends another size."""
    failures = 0
    while True:
        before = _length(partial)
        if before == file.size and partial.exists():
            on_position(before)
            return ""
        try:
            with connection.stream(connection.file_url(commit, file.name), patience, offset=before) as response:
                start, wrong = body_start(response, commit, before, file.size)
                if wrong:
                    return wrong
                too_long = _write(response, partial, start, file.size, on_position)
            if too_long:
                return f"more than the {file.size} bytes listed"
            if _length(partial) < file.size:
                raise TransientError("the connection was cut")
        except TransientError as error:
            failures = 1 if _length(partial) > before else failures + 1
            connection.give_up_or_wait(error, failures, patience)


def body_start(response: httpx2.Response, commit: str, asked: int, full: int) -> tuple[int, str]:
    """Where the body begins in the file (0 when the server ignored the range), or what is wrong with the answer."""
    said = response.headers.get("x-repo-commit")
    if said is not None and said != commit:
        return 0, "another commit's file"
    if response.headers.get("content-encoding", "identity") != "identity":
        raise TransientError("sends compressed bytes that were not asked for")
    if response.status_code == 416:
        return 0, "fewer bytes than listed"
    if response.status_code == 206:
        match = _CONTENT_RANGE.fullmatch(response.headers.get("content-range", ""))
        if match is None or int(match[1]) != asked or match[3] not in ("*", str(full)):
            return 0, "a part of the file that was not asked for"
        return asked, ""
    length = response.headers.get("content-length", "")
    if length.isascii() and length.isdigit() and int(length) != full:
        return 0, f"{length} bytes instead of {full}"
    return 0, ""


def _write(response: httpx2.Response, partial: Path, start: int, full: int, on_position: Position) -> bool:
    """Append the body; True when it has more bytes than the file may have."""
    try:
        # Never through a link somebody planted under the name.
        flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        with os.fdopen(os.open(partial, flags, 0o644), "wb") as out:
            out.truncate(start)
            out.seek(start)
            position = start
            on_position(position)
            for piece in response.iter_raw():
                if position + len(piece) > full:
                    return True
                out.write(piece)
                position += len(piece)
                on_position(position)
    except OSError as error:
        raise write_failed(partial, full - _length(partial), error) from error
    return False


def _length(path: Path) -> int:
    try:
        return path.lstat().st_size
    except FileNotFoundError:
        return 0
