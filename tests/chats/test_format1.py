"""Chats that were written before messages were a tree."""

import sqlite3
from pathlib import Path

import pytest

from localinfer.chats.schema import MIGRATIONS
from localinfer.chats.session import ChatSession
from localinfer.chats.store import ChatStore
from localinfer.chats.turns import contents
from tests.tui.scripted import ScriptedEngine


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file of format 1, made by the program of that time."""
    path = tmp_path / "chats.sqlite3"
    with sqlite3.connect(path) as db:
        db.executescript((Path(__file__).parent / "format1.sql").read_text(encoding="utf-8"))
        db.execute("PRAGMA user_version = 1")
    db.close()
    return path


def test_everything_that_was_shown_is_shown(path: Path) -> None:
    with ChatStore(path) as store:
        assert [(chat.id, chat.title, chat.model, chat.system) for chat in store.list()] == [
            (3, "first try", "m", None),
            (2, "a", "org/model:INT8", None),
            (1, "The sky", "org/model:INT4", "be kind"),
        ]
        assert contents(store.get(1)[1]) == [
            "why is the sky blue?",
            "Rayleigh scattering.",
            "go on",
            "Short waves scatter",
        ]
        assert contents(store.get(2)[1]) == ["a", "b", "c"]
        assert contents(store.get(3)[1]) == ["second try", "an answer"]
        assert store.get(1)[0].created < store.get(1)[0].updated < store.get(2)[0].created
    with sqlite3.connect(path) as db:
        assert db.execute("PRAGMA user_version").fetchone() == (len(MIGRATIONS),)
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert db.execute("PRAGMA foreign_key_check").fetchall() == []
    db.close()


def test_answers_written_anew_are_variants(path: Path) -> None:
    with ChatStore(path) as store:
        last = store.get(1)[1][-1]
        assert (last.variant, last.variants, last.ending) == (3, 3, "writing")
        assert last.cut_off
        assert last.system == "be kind"
        assert store.page(1, last.id or 0, -1)
        assert store.get(1)[1][-1].content == "Blue light scatters more."
        assert not store.get(1)[1][-1].cut_off


def test_the_chats_go_on(path: Path) -> None:
    with ChatStore(path) as store:
        session = ChatSession(store, model="m", resume=2)
        assert (session.unsent, contents(session.turns)) == ("c", ["a", "b"])
        session.attach(ScriptedEngine(["d"]))
        list(session.reply("c", cancelled=lambda: False))
        assert contents(store.get(2)[1]) == ["a", "b", "c", "d"]
        store.delete(1)
        assert [chat.id for chat in store.list()] == [2, 3]
