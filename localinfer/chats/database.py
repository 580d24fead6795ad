"""One SQLite file that only its owner may read: opened, brought to our version, written in transactions."""

import errno
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from localinfer.chats.schema import MIGRATIONS
from localinfer.errors import Corrupt, DoesNotFit, LocalInferError, NotFound, NotSupported

_BUSY_SECONDS = 5.0


class Database:
    """The file at `path`. Safe to call from any thread; other processes may use it too."""

    def __init__(self, path: Path, *, clock: Callable[[], float] = time.time) -> None:
        self.path = path
        self._clock = clock
        self._lock = threading.RLock()
        with self._errors():
            _make_private(path)
            self._db = sqlite3.connect(path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False)
        try:
            with self._errors():
                self._db.execute("PRAGMA foreign_keys = ON")
                self._migrate()
        except BaseException:
            self._db.close()
            raise

    def close(self) -> None:
        """Close the file. Nothing is lost without this."""
        with self._lock:
            self._db.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    @contextmanager
    def _write(self) -> Iterator[sqlite3.Connection]:
        """One transaction: all of it happens, or nothing. Waits for other processes a few seconds."""
        with self._lock, self._errors():
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield self._db
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise

    def _migrate(self) -> None:
        """Bring the file to our version. Raises `NotSupported` if it comes from a newer program."""
        with suppress(sqlite3.OperationalError):  # another process is just doing it, or the disk cannot: both are fine
            self._db.execute("PRAGMA journal_mode = WAL")
        if self._version() == len(MIGRATIONS):
            return
        with self._write() as db:
            version = self._version()  # again: another process may have been faster
            if version == 0 and db.execute("SELECT 1 FROM sqlite_master").fetchone():
                raise Corrupt(f"{self.path.name} is a database of another program", hint=self._move_hint())
            for step in MIGRATIONS[version:]:
                for statement in step.split(";"):
                    db.execute(statement)
            db.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")

    def _version(self) -> int:
        version = int(self._db.execute("PRAGMA user_version").fetchone()[0])
        if not 0 <= version <= len(MIGRATIONS):
            raise NotSupported(
                f"the chats were written by a newer localinfer (format {version}, this one knows {len(MIGRATIONS)})",
                hint="update localinfer, or set LOCALINFER_HOME to another folder",
            )
        return version

    def _move_hint(self) -> str:
        return f"move {self.path} away; a new file is made at the next start"

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """Turn what SQLite and the file system say into errors for a person."""
        try:
            yield
        except sqlite3.Error as error:
            raise self._explained(error) from error
        except OSError as error:
            full = error.errno in (errno.ENOSPC, errno.EDQUOT)
            raise self._unwritable(str(error.strerror), full=full) from error

    def _explained(self, error: sqlite3.Error) -> LocalInferError:
        name = getattr(error, "sqlite_errorname", "")
        if name.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB")):
            return Corrupt(f"the file with your chats is damaged ({error})", hint=self._move_hint())
        if name == "SQLITE_CONSTRAINT_FOREIGNKEY":
            return NotFound("this chat was deleted by another process", hint="start a new chat")
        if name.startswith("SQLITE_BUSY"):
            hint = "close the other process that uses it, then try again"
            return NotFound("the file with your chats is in use", hint=hint)
        return self._unwritable(str(error), full=name == "SQLITE_FULL")

    def _unwritable(self, reason: str, *, full: bool) -> LocalInferError:
        message = f"cannot keep chats in {self.path}: {reason}"
        if full:
            return DoesNotFit(message, hint="free some disk space")
        return NotFound(message, hint="check who may write there, or set LOCALINFER_HOME to another folder")


def _make_private(path: Path) -> None:
    """Create the file for its owner only; SQLite gives its side files the same mode."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    os.close(os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600))
