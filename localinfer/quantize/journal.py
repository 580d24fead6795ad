"""Work that survives a kill: a folder `<dest>.partial` of whole files, a journal of them, and a lock on the folder."""

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from localinfer.errors import LocalInferError, UsageError
from localinfer.formats.durable import sync, write_failed
from localinfer.formats.json_files import parse_json, read_bytes

JOURNAL = "journal.jsonl"
JOURNAL_LIMIT = 64 << 20


@contextmanager
def locked(partial: Path) -> Iterator[None]:
    """Make and hold the folder `partial`. Raises `UsageError` when another process holds it. Dies with the process."""
    while True:
        try:
            partial.mkdir(parents=True, exist_ok=True)
            handle = os.open(partial, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        except FileNotFoundError:
            continue  # the other process finished in between
        except OSError as error:
            raise write_failed(partial, 0, error) from error
        try:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise UsageError(
                    f"{partial.name.removesuffix('.partial')} is being quantized by another process",
                    hint="wait until it has ended, then use its result",
                ) from None
            if _is_still(partial, handle):
                yield
                return
            # What we hold was renamed to its final name: look again.
        finally:
            os.close(handle)


def _is_still(path: Path, handle: int) -> bool:
    try:
        seen = path.stat()
    except FileNotFoundError:
        return False
    held = os.fstat(handle)
    return (seen.st_dev, seen.st_ino) == (held.st_dev, held.st_ino)


class Journal:
    """What is finished in `partial`. Opening it drops everything that was made from another source or settings.

    The first line holds `settings`; each other line `{"file", "sha256", ...}` of one finished file.
    """

    def __init__(self, partial: Path, settings: dict[str, Any]) -> None:
        self._path = partial / JOURNAL
        self.finished: dict[str, dict[str, Any]] = {}
        lines = self._lines()
        if lines and lines[0] == settings:
            for line in lines[1:]:
                file = partial / str(line.get("file"))
                if file.is_file() and sha256(file) == line.get("sha256"):
                    self.finished[file.name] = line
        else:
            _empty(partial)
        self._rewrite([settings, *self.finished.values()])

    def _lines(self) -> list[dict[str, Any]]:
        """Whole lines; a kill may have torn the last one."""
        try:
            data = read_bytes(self._path, JOURNAL_LIMIT)
            lines = [parse_json(line, str(self._path)) for line in data.split(b"\n")[:-1]]
        except LocalInferError:
            return []
        return [line for line in lines if isinstance(line, dict)]

    def add(self, entry: dict[str, Any]) -> None:
        """Record a file that is whole and on the disk."""
        self.finished[entry["file"]] = entry
        try:
            with self._path.open("ab") as file:
                file.write(_line(entry))
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise write_failed(self._path, 1000, error) from error

    def remove(self) -> None:
        """Delete the journal; the folder is then a finished model."""
        self._path.unlink(missing_ok=True)

    def _rewrite(self, lines: list[dict[str, Any]]) -> None:
        part = self._path.with_name(JOURNAL + ".tmp")
        try:
            part.write_bytes(b"".join(map(_line, lines)))
            sync(part)
            part.replace(self._path)
            sync(self._path.parent)
        except OSError as error:
            raise write_failed(self._path, 1000, error) from error


def _line(entry: dict[str, Any]) -> bytes:
    return json.dumps(entry, allow_nan=False).encode() + b"\n"


def _empty(folder: Path) -> None:
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def sha256(path: Path) -> str:
    """Hex digest of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
