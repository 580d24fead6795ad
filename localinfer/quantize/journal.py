"""Work that survives a kill: a folder `<dest>.partial` of whole files, a journal of them, and a lock on the folder."""

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from localinfer.errors import Changed, LocalInferError, UsageError
from localinfer.formats.durable import sync, write_failed
from localinfer.formats.json_files import parse_json, read_bytes

JOURNAL = "journal.jsonl"
JOURNAL_LIMIT = 64 << 20
_SHOWN = 40

Earlier = Literal["auto", "resume", "fresh"]
"""What becomes of what a stopped run has left."""


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
    """What is finished in `partial`, and with what it was begun: the files of its source, and its settings.

    The first line holds both; each other line `{"file", "sha256", ...}` of one finished file. `earlier` says what
    becomes of what a stopped run has left: "auto" goes on with it, or begins anew under other settings, and tells `say`
    which; "resume" refuses other settings; "fresh" begins anew. Another source is refused, unless it is "fresh".

    Raises `Changed` for another source, `UsageError` for other settings when these are refused.
    """

    def __init__(
        self,
        partial: Path,
        settings: dict[str, Any],
        source: dict[str, Any],
        *,
        earlier: Earlier = "auto",
        say: Callable[[str], None] = lambda text: None,
    ) -> None:
        self._path = partial / JOURNAL
        self.finished: dict[str, dict[str, Any]] = {}
        head = {"settings": settings, "source": source}
        lines = [] if earlier == "fresh" else _complete_lines(self._path)
        before = lines[0] if lines and lines[0].keys() == head.keys() else None
        if before is not None:
            _require_source(before["source"], source, partial)
        if before is not None and before["settings"] == settings:
            for line in lines[1:]:
                file = partial / str(line.get("file"))
                if file.is_file() and sha256(file) == line.get("sha256"):
                    self.finished[file.name] = line
            say(f"going on with the stopped run: files that are finished: {len(self.finished)}")
        else:
            if before is not None and any(path.name != JOURNAL for path in partial.iterdir()):
                told = _apart(before["settings"], settings)
                if earlier == "resume":
                    raise UsageError(
                        f"the stopped run in {partial} had other settings ({told})",
                        hint="give the same again, or leave out `--resume` to begin anew",
                    )
                say(f"the stopped run had other settings ({told}): begun anew")
            _empty(partial)
        self._rewrite([head, *self.finished.values()])

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


def publish(made: Path, dest: Path) -> None:
    """Give a finished folder its name, in one step."""
    try:
        made.rename(dest)
        sync(dest.parent)
    except OSError as error:
        raise write_failed(dest, 0, error) from error


def require_same_source(partial: Path, source: dict[str, Any]) -> None:
    """Raise `Changed` if `partial` holds a run that was begun with other files than those of `source`."""
    lines = _complete_lines(partial / JOURNAL)
    if lines and "source" in lines[0]:
        _require_source(lines[0]["source"], source, partial)


def tokens_of_stopped(partial: Path) -> int | None:
    """How many tokens the run that was stopped in `partial` was asked to calibrate on; None if there is none."""
    lines = _complete_lines(partial / JOURNAL)
    settings = lines[0].get("settings") if lines else None
    if not isinstance(settings, dict):
        return None
    calibrated = settings.get("calibration")
    found = settings.get("tokens", calibrated.get("tokens") if isinstance(calibrated, dict) else None)
    return found if isinstance(found, int) and 0 < found < 1 << 30 else None


def _complete_lines(path: Path) -> list[dict[str, Any]]:
    """What a journal holds; a kill may have torn the last line."""
    try:
        data = read_bytes(path, JOURNAL_LIMIT)
        lines = [parse_json(line, str(path)) for line in data.split(b"\n")[:-1]]
    except LocalInferError:
        return []
    return [line for line in lines if isinstance(line, dict)]


def _require_source(before: Any, now: dict[str, Any], partial: Path) -> None:
    """Raise `Changed`, naming the files, unless the source is the one the run was begun with."""
    old = before.get("files") if isinstance(before, dict) else None
    apart = _differing(old if isinstance(old, dict) else {}, now["files"])
    if apart:
        raise Changed(
            f"the source has changed since the stopped run in {partial} was begun: {', '.join(apart)}",
            hint="put the old files back to go on with it, or add `--fresh` to begin anew with the new ones",
        )


def _apart(before: Any, now: dict[str, Any]) -> str:
    """The settings that differ, as `name was A, is B`; long values are left out."""
    told = []
    before = before if isinstance(before, dict) else {}
    for name in _differing(before, now):
        old, new = before.get(name), now.get(name)
        if isinstance(old, dict) and isinstance(new, dict):
            told.append(_apart(old, new))
        elif max(len(str(old)), len(str(new))) <= _SHOWN:
            told.append(f"{name} was {old}, is {new}")
        else:
            told.append(f"another {name}")
    return ", ".join(told)


def _differing(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    return sorted(name for name in one.keys() | other.keys() if one.get(name) != other.get(name))


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
