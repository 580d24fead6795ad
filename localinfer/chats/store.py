"""Where chats are kept: one SQLite file, safe against a kill at any time and open to several processes at once."""

import sqlite3
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from localinfer.chats.database import Database
from localinfer.chats.lease import Lease
from localinfer.chats.template import Message
from localinfer.chats.turns import Ending, Figures, SavedTurn, as_held
from localinfer.errors import NotFound
from localinfer.text import one_line

SHORT = 20_000
"""Characters of a prompt that is brought back by a key."""

_CHATS = "SELECT id, title, model, system, created, updated, form FROM chats WHERE leaf IS NOT NULL "
_HOLDS = """
    AND (title LIKE ?{0} ESCAPE '!' OR model LIKE ?{0} ESCAPE '!' OR
         EXISTS (SELECT 1 FROM messages WHERE chat_id = chats.id AND content LIKE ?{0} ESCAPE '!'))
"""
_VARIANT = """
    {one}.chat_id = {of}.chat_id AND {one}.parent IS {of}.parent AND {one}.content != '' AND
    ({one}.role = 'assistant' OR {one}.id = {of}.id OR
     EXISTS (SELECT 1 FROM messages AS child WHERE child.parent = {one}.id AND child.content != ''))
"""
"""Is it a text that may stand in the place of another one? A prompt counts once it has an answer."""
_BRANCH = f"""
    WITH RECURSIVE branch(id, parent, depth) AS (
        SELECT id, parent, 0 FROM messages WHERE id = (SELECT leaf FROM chats WHERE id = ?1) AND chat_id = ?1
        UNION ALL
        SELECT above.id, above.parent, depth + 1 FROM messages AS above JOIN branch ON above.id = branch.parent
        WHERE above.id < branch.id
    )
    SELECT one.role, one.content, one.id, one.ending,
        (SELECT count(*) FROM messages AS other WHERE {_VARIANT.format(one="other", of="one")} AND other.id <= one.id),
        (SELECT count(*) FROM messages AS other WHERE {_VARIANT.format(one="other", of="one")}),
        one.model, one.system, one.created, one.tokens, one.figures
    FROM messages AS one JOIN branch ON branch.id = one.id ORDER BY branch.depth DESC
"""
_VARIANTS = f"""
    SELECT one.id FROM messages AS one JOIN messages AS this ON this.id = ?2 AND this.chat_id = ?1
    WHERE {_VARIANT.format(one="one", of="this")} ORDER BY one.id
"""
_TIP = """
    WITH RECURSIVE below(id) AS (
        SELECT ?1 UNION SELECT messages.id FROM messages JOIN below ON messages.parent = below.id
    )
    SELECT max(messages.id) FROM messages JOIN below USING (id) WHERE content != '' AND role = 'assistant'
"""
"""The newest answer among a message and all that follows it."""
_PROMPTS = "SELECT content FROM messages WHERE role = 'user' AND length(content) <= ? ORDER BY id DESC LIMIT ?"
_INSERT = """
    INSERT INTO messages (chat_id, parent, role, content, ending, model, system, created)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?)
"""


@dataclass(frozen=True, slots=True)
class SavedChat:
    """One row of the list of chats. Times are seconds since 1970."""

    id: int
    title: str
    model: str
    system: str | None
    created: float
    updated: float
    form: str | None = None
    """The form that its answers keep, as `Grammar.to_json` writes it."""


class ChatStore(Database):
    """The chats of one user. Safe to call from any thread; other processes may use the same file.

    The messages of a chat are a tree: an answer written anew and an edited prompt stand beside what was there before.
    One branch is shown, from the first message to the chat's leaf.
    """

    def create(self, model: str, *, system: str | None = None, title: str = "", form: str | None = None) -> int:
        """A new, empty chat; returns its id. Without `title`, the first prompt becomes the title."""
        now = self._clock()
        with self._write() as db:
            row = db.execute(
                "INSERT INTO chats (title, model, system, created, updated, form) VALUES (?, ?, ?, ?, ?, ?)",
                (title, model, system, now, now, None if form is None else _storable(form)),
            )
            return int(row.lastrowid or 0)

    def append(self, chat_id: int, message: Message, *, ending: Ending = "stop") -> int:
        """Add a message at the end of the branch that is shown; returns its id. Raises `NotFound`."""
        with self._write() as db:
            leaf, now = self._leaf(db, chat_id), self._clock()
            row = self._insert(db, chat_id, leaf, message, ending=ending, at=now)
            if message.content:
                self._set_leaf(db, chat_id, row, now)
            return row

    def begin(
        self,
        chat_id: int,
        prompt: str | None,
        *,
        parent: int | None,
        replaces: int | None = None,
        model: str = "",
        system: str | None = None,
    ) -> tuple[int | None, int]:
        """Make place for an answer by `model`; returns the ids of the prompt and of the answer.

        `parent` is what the prompt follows or, without a prompt, the one that is answered again. `replaces` is a prompt
        that got no answer, and goes. Until the answer has text, the branch that is shown ends with the prompt if that
        goes on with it, and stays as it is if not. Raises `NotFound`.
        """
        with self._write() as db:
            if replaces is not None:
                self._remove(db, replaces)
            asked, now = None, self._clock()
            if prompt is not None:
                goes_on = self._leaf(db, chat_id) == parent
                asked = self._insert(db, chat_id, parent, Message("user", prompt), system=system, at=now)
                if goes_on:
                    self._set_leaf(db, chat_id, asked, now)
            above, answer = asked or parent, Message("assistant", "")
            new = None if asked else system
            return asked, self._insert(db, chat_id, above, answer, ending="writing", model=model, system=new, at=now)

    def update(
        self,
        message_id: int,
        content: str,
        *,
        ending: Ending,
        tokens: Sequence[int] = (),
        figures: Figures | None = None,
    ) -> None:
        """Set the text of an answer, which becomes the end of the branch that is shown. Raises `NotFound`."""
        with self._write() as db:
            db.execute(
                "UPDATE messages SET content = ?, ending = ?, tokens = ?, figures = coalesce(?, figures) WHERE id = ?",
                (_storable(content), ending, _packed(tokens), figures.to_json() if figures else None, message_id),
            )
            row = db.execute("SELECT chat_id FROM messages WHERE id = ?", (message_id,)).fetchone()
            if row is None:
                raise _deleted()
            if content:
                self._set_leaf(db, row[0], message_id, self._clock())

    def discard(self, message_id: int) -> None:
        """Remove one text and all that follows it, such as an answer of which nothing was written."""
        with self._write() as db:
            self._remove(db, message_id)

    def page(self, chat_id: int, message_id: int, by: int) -> bool:
        """Show another variant of a message, `by` places further, with the newest answer that follows it. False if
        there is none."""
        with self._write() as db:
            ids = [row[0] for row in db.execute(_VARIANTS, (chat_id, message_id))]
            index = ids.index(message_id) + by if message_id in ids else -1
            if not 0 <= index < len(ids):
                return False
            tip = db.execute(_TIP, (ids[index],)).fetchone()[0]
            db.execute("UPDATE chats SET leaf = ? WHERE id = ?", (tip or ids[index], chat_id))
            return True

    def prompts(self, limit: int) -> tuple[str, ...]:
        """The newest prompts of all chats, the latest first; without those of more than `SHORT` characters."""
        with self._lock, self._errors():
            rows = self._db.execute(_PROMPTS, (SHORT, limit)).fetchall()
        return tuple(row[0] for row in rows)

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

    def fork(self, chat_id: int, *, held: bool = False) -> int:
        """A copy of the branch that is shown, as a chat of its own; returns its id. `held`: another process may be
        writing its last answer, which is `copied` as far as it is kept. Raises `NotFound`."""
        chat, turns = self.get(chat_id)
        copy = self.create(chat.model, system=chat.system, title=chat.title, form=chat.form)
        with self._write() as db:
            row, before = None, None
            for turn in as_held(turns) if held else turns:
                ending: Ending = "copied" if turn.elsewhere else turn.ending
                system = None if row is not None and turn.system == before else turn.system or ""
                row = self._insert(
                    db, copy, row, turn.message, ending=ending, model=turn.model, system=system, at=turn.created
                )
                figures = turn.figures.to_json() if turn.figures else None
                db.execute(
                    "UPDATE messages SET tokens = ?, figures = ? WHERE id = ?", (_packed(turn.tokens), figures, row)
                )
                before = turn.system
            self._set_leaf(db, copy, row, self._clock())
        return copy

    def set_title(self, chat_id: int, title: str) -> None:
        """Name a chat. Raises `NotFound`."""
        self._change(chat_id, "title", title)

    def set_system(self, chat_id: int, system: str | None) -> None:
        """Keep another system prompt with the chat. Raises `NotFound`."""
        self._change(chat_id, "system", system)

    def set_form(self, chat_id: int, form: str | None) -> None:
        """Keep with the chat that its answers have another form. Raises `NotFound`."""
        self._change(chat_id, "form", form)

    def set_model(self, chat_id: int, model: str) -> None:
        """Keep with the chat that another model answers in it. Raises `NotFound`."""
        self._change(chat_id, "model", model)

    def take(self, chat_id: int) -> Lease | int | None:
        """The right to write into a chat; see `Lease.take`."""
        return Lease.take(self.path.with_name(self.path.name + ".open"), chat_id)

    def holder(self, chat_id: int) -> int | None:
        """The process that writes into a chat, 0 if it does not say which it is; None if there is none."""
        taken = self.take(chat_id)
        if not isinstance(taken, Lease):
            return taken
        taken.release()
        return None

    def latest(self) -> SavedChat | None:
        """The chat that was written to last."""
        return next(iter(self.list(1)), None)

    def get(self, chat_id: int) -> tuple[SavedChat, tuple[SavedTurn, ...]]:
        """One chat and the branch that is shown, without the system prompt. Raises `NotFound`."""
        with self._lock, self._errors():
            chat = self._db.execute(_CHATS + "AND id = ?", (chat_id,)).fetchone()
            rows = self._db.execute(_BRANCH, (chat_id,)).fetchall()
        if chat is None:
            raise NotFound(f"there is no chat {chat_id}", hint="leave out the number to continue the last one")
        return SavedChat(*chat), _turns(rows)

    def delete(self, chat_id: int) -> None:
        """Remove a chat and all its texts. Raises `NotFound`."""
        with self._write() as db:
            if db.execute("DELETE FROM chats WHERE id = ?", (chat_id,)).rowcount == 0:
                raise NotFound(f"there is no chat {chat_id}", hint="it may have been deleted already")

    def _change(self, chat_id: int, column: str, value: str | None) -> None:
        with self._write() as db:
            stored = None if value is None else _storable(value)
            if db.execute(f"UPDATE chats SET {column} = ? WHERE id = ?", (stored, chat_id)).rowcount == 0:
                raise NotFound(f"there is no chat {chat_id}", hint="it may have been deleted already")

    def _insert(
        self,
        db: sqlite3.Connection,
        chat_id: int,
        parent: int | None,
        message: Message,
        *,
        ending: Ending = "stop",
        model: str = "",
        system: str | None = None,
        at: float,
    ) -> int:
        row = db.execute(
            _INSERT,
            (chat_id, parent, message.role, _storable(message.content), ending, model, system, at),
        )
        if message.role == "user":
            title = one_line(message.content, 60)
            db.execute("UPDATE chats SET title = ? WHERE id = ? AND title = ''", (title, chat_id))
        return int(row.lastrowid or 0)

    def _leaf(self, db: sqlite3.Connection, chat_id: int) -> int | None:
        row = db.execute("SELECT leaf FROM chats WHERE id = ?", (chat_id,)).fetchone()
        if row is None:
            raise _deleted()
        leaf: int | None = row[0]
        return leaf

    def _set_leaf(self, db: sqlite3.Connection, chat_id: int, leaf: int | None, now: float) -> None:
        db.execute("UPDATE chats SET leaf = ?, updated = ? WHERE id = ?", (leaf, now, chat_id))

    def _remove(self, db: sqlite3.Connection, message_id: int) -> None:
        """The branch that is shown ends before it, if it ended with it."""
        db.execute("UPDATE chats SET leaf = (SELECT parent FROM messages WHERE id = ?1) WHERE leaf = ?1", (message_id,))
        db.execute("DELETE FROM messages WHERE id = ?", (message_id,))


def _deleted() -> NotFound:
    return NotFound("this chat was deleted meanwhile", hint="start a new chat")


def _turns(rows: Sequence[Any]) -> tuple[SavedTurn, ...]:
    """Rows of a branch; the system prompt of each is the last one that came into force before it."""
    turns: list[SavedTurn] = []
    system: str | None = None
    for role, content, id_, ending, variant, variants, model, new, created, tokens, figures in rows:
        system = system if new is None else new or None
        about = (model, system, created, _unpacked(tokens), Figures.from_json(figures))
        turns.append(SavedTurn(role, content, id_, ending, variant, variants, *about))
    return tuple(turns)


def _packed(tokens: Sequence[int]) -> bytes | None:
    return array("I", tokens).tobytes() if tokens else None


def _unpacked(data: bytes | None) -> tuple[int, ...]:
    """Nothing for what cannot have been written by us."""
    return tuple(array("I", data)) if data and len(data) % array("I").itemsize == 0 else ()


def _like(word: str) -> str:
    """A pattern that finds `word` anywhere."""
    for special in "!%_":
        word = word.replace(special, "!" + special)
    return f"%{_storable(word)}%"


def _storable(text: str) -> str:
    """Half characters (lone surrogates) cannot be stored as UTF-8."""
    return text.encode("utf-8", "replace").decode()
