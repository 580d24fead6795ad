"""Where chats are kept: one SQLite file, safe against a kill at any time and open to several processes at once."""

import errno
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from localinfer.chats.template import Message
from localinfer.errors import Corrupt, DoesNotFit, LocalInferError, NotFound, NotSupported
from localinfer.text import one_line

MIGRATIONS: Sequence[str] = (
    """
    CREATE TABLE chats (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        title TEXT NOT NULL,
        model TEXT NOT NULL,
        system TEXT,
        created REAL NOT NULL,
        updated REAL NOT NULL
    );
    CREATE TABLE messages (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        chat_id INTEGER NOT NULL REFERENCES chats(id) ON DELETE CASCADE,
        turn INTEGER NOT NULL,
        role TEXT NOT NULL CHECK (role IN ('user', 'assistant')),
        content TEXT NOT NULL,
        finished INTEGER NOT NULL,
        created REAL NOT NULL
    );
    CREATE INDEX messages_by_turn ON messages(chat_id, turn, id);
    CREATE INDEX chats_by_time ON chats(updated);
    """,
)
"""SQL that leads from each version of the file (PRAGMA user_version) to the next. Only ever appended to."""

_BUSY_SECONDS = 5.0

_CHATS = """
    SELECT id, title, model, system, created, updated FROM chats
    WHERE EXISTS (SELECT 1 FROM messages WHERE chat_id = chats.id AND content != '')
"""
_TURNS = """
    SELECT role, content FROM messages WHERE id IN
        (SELECT max(id) FROM messages WHERE chat_id = ? AND content != '' GROUP BY turn)
    ORDER BY turn
"""
_HOLDS = """
    AND (title LIKE ?{0} ESCAPE '!' OR model LIKE ?{0} ESCAPE '!' OR
         EXISTS (SELECT 1 FROM messages WHERE chat_id = chats.id AND content LIKE ?{0} ESCAPE '!'))
"""
_INSERT = """
    INSERT INTO messages (chat_id, turn, role, content, finished, created)
    SELECT ?1, {turn}, ?2, ?3, ?4, ?5 FROM messages WHERE chat_id = ?1
"""
_NEXT_TURN = "coalesce(max(turn), 0) + 1"
_LAST_TURN = "coalesce(max(turn) FILTER (WHERE content != '' AND role = ?2), coalesce(max(turn), 0) + 1)"


@dataclass(frozen=True, slots=True)
class SavedChat:
    """One row of the list of chats. Times are seconds since 1970."""

    id: int
    title: str
    model: str
    system: str | None
    created: float
    updated: float


class ChatStore:
    """The chats of one user. Safe to call from any thread; other processes may use the same file.

    A turn may hold several texts (an answer that was written anew); the newest one with text is the one that counts.
    """

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

    def create(self, model: str, *, system: str | None = None, title: str = "") -> int:
        """A new, empty chat; returns its id. Without `title`, the first prompt becomes the title."""
        now = self._clock()
        with self._write() as db:
            row = db.execute(
                "INSERT INTO chats (title, model, system, created, updated) VALUES (?, ?, ?, ?, ?)",
                (title, model, system, now, now),
            )
            return int(row.lastrowid or 0)

    def append(self, chat_id: int, message: Message, *, finished: bool = True) -> int:
        """Add a turn; returns the id of its text, for `update`. `finished=False` while it is being written."""
        return self._insert(chat_id, message, finished, _NEXT_TURN)

    def replace(self, chat_id: int, message: Message, *, finished: bool = True) -> int:
        """Write the last turn of this role anew. Its old text stays in the file, and counts until this one has text."""
        return self._insert(chat_id, message, finished, _LAST_TURN)

    def update(self, message_id: int, content: str, *, finished: bool) -> None:
        """Set the text of a message."""
        now = self._clock()
        with self._write() as db:
            db.execute(
                "UPDATE messages SET content = ?, finished = ? WHERE id = ?", (_storable(content), finished, message_id)
            )
            db.execute(
                "UPDATE chats SET updated = ? WHERE id = (SELECT chat_id FROM messages WHERE id = ?)", (now, message_id)
            )

    def discard(self, message_id: int) -> None:
        """Remove one text, such as an answer of which nothing was written."""
        with self._write() as db:
            db.execute("DELETE FROM messages WHERE id = ?", (message_id,))

    def list(self, limit: int = 100, *, words: str = "") -> tuple[SavedChat, ...]:
        """Chats in which something was said, the latest first; with `words`, those that have each of them in their
        title, their model's name or any of their texts."""
        wanted = words.split()
        sql = _CHATS + "".join([_HOLDS.format(i + 2) for i in range(len(wanted))])
        with self._lock, self._errors():
            rows = self._db.execute(
                sql + "ORDER BY updated DESC, id DESC LIMIT ?1", (limit, *map(_like, wanted))
            ).fetchall()
        return tuple(SavedChat(*row) for row in rows)

    def fork(self, chat_id: int) -> int:
        """A copy of a chat as it is now, its newest texts only; returns the copy's id. Raises `NotFound`."""
        chat, turns = self.get(chat_id)
        copy = self.create(chat.model, system=chat.system, title=chat.title)
        for turn in turns:
            self.append(copy, turn)
        return copy

    def set_title(self, chat_id: int, title: str) -> None:
        """Name a chat. Raises `NotFound`."""
        self._change(chat_id, "title", title)

    def set_system(self, chat_id: int, system: str | None) -> None:
        """Keep another system prompt with the chat. Raises `NotFound`."""
        self._change(chat_id, "system", system)

    def set_model(self, chat_id: int, model: str) -> None:
        """Keep with the chat that another model answers in it. Raises `NotFound`."""
        self._change(chat_id, "model", model)

    def latest(self) -> SavedChat | None:
        """The chat that was written to last."""
        return next(iter(self.list(1)), None)

    def get(self, chat_id: int) -> tuple[SavedChat, tuple[Message, ...]]:
        """One chat and its turns, without the system prompt. Raises `NotFound`."""
        with self._lock, self._errors():
            chat = self._db.execute(_CHATS + "AND id = ?", (chat_id,)).fetchone()
            turns = self._db.execute(_TURNS, (chat_id,)).fetchall()
        if chat is None:
            raise NotFound(f"there is no chat {chat_id}", hint="leave out the number to continue the last one")
        return SavedChat(*chat), tuple(Message(role, content) for role, content in turns)

    def delete(self, chat_id: int) -> None:
        """Remove a chat and all its texts. Raises `NotFound`."""
        with self._write() as db:
            if db.execute("DELETE FROM chats WHERE id = ?", (chat_id,)).rowcount == 0:
                raise NotFound(f"there is no chat {chat_id}", hint="it may have been deleted already")

    def _change(self, chat_id: int, column: str, value: str | None) -> None:
        with self._write() as db:
            kept = None if value is None else _storable(value)
            if db.execute(f"UPDATE chats SET {column} = ? WHERE id = ?", (kept, chat_id)).rowcount == 0:
                raise NotFound(f"there is no chat {chat_id}", hint="it may have been deleted already")

    def close(self) -> None:
        """Close the file. Nothing is lost without this."""
        with self._lock:
            self._db.close()

    def __enter__(self) -> "ChatStore":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def _insert(self, chat_id: int, message: Message, finished: bool, turn: str) -> int:
        now = self._clock()
        with self._write() as db:
            row = db.execute(
                _INSERT.format(turn=turn), (chat_id, message.role, _storable(message.content), finished, now)
            )
            db.execute("UPDATE chats SET updated = ? WHERE id = ?", (now, chat_id))
            if message.role == "user":
                title = one_line(message.content, 60)
                db.execute("UPDATE chats SET title = ? WHERE id = ? AND title = ''", (title, chat_id))
            return int(row.lastrowid or 0)

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


def _like(word: str) -> str:
    """A pattern that finds `word` anywhere."""
    for special in "!%_":
        word = word.replace(special, "!" + special)
    return f"%{_storable(word)}%"


def _storable(text: str) -> str:
    """Half characters (lone surrogates) cannot be stored as UTF-8."""
    return text.encode("utf-8", "replace").decode()


def _make_private(path: Path) -> None:
    """Create the file for its owner only; SQLite gives its side files the same mode."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    os.close(os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600))
