"""A chat that is written down while it is spoken, and found again."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from localinfer.chats.recording import Recorder
from localinfer.chats.session import ChatSession
from localinfer.chats.store import ChatStore
from localinfer.chats.template import Message
from localinfer.errors import ContextOverflow, DoesNotFit, NotFound, UsageError
from localinfer.events import Finished, Text
from tests.tui.scripted import ScriptedEngine


def never() -> bool:
    return False


@pytest.fixture
def store(tmp_path: Path) -> Iterator[ChatStore]:
    with ChatStore(tmp_path / "chats.sqlite3") as store:
        yield store


def session(store: ChatStore, *scripts: object, resume: bool | int = False, system: str | None = None) -> ChatSession:
    session = ChatSession(store, model="tiny", system=system, resume=resume)
    session.attach(ScriptedEngine(*scripts))  # type: ignore[arg-type]
    return session


def contents(store: ChatStore) -> list[list[str]]:
    return [[turn.content for turn in store.get(chat.id)[1]] for chat in store.list()]


def test_turns_are_saved(store: ChatStore) -> None:
    chat = session(store, ["one ", "two"], ["three"], system="be kind")
    list(chat.reply("a", cancelled=never))
    list(chat.reply("b", cancelled=never))
    assert contents(store) == [["a", "one two", "b", "three"]]
    assert chat.last_answer == "three"
    latest = store.latest()
    assert latest is not None
    assert (latest.title, latest.model, latest.system) == ("a", "tiny", "be kind")


def test_an_unused_chat_leaves_no_trace(store: ChatStore) -> None:
    session(store)
    assert store._db.execute("SELECT count(*) FROM chats").fetchone() == (0,)


def test_resume(store: ChatStore) -> None:
    list(session(store, ["one"], system="be kind").reply("a", cancelled=never))
    list(session(store, ["other"]).reply("z", cancelled=never))
    first = store.list()[1]
    again = session(store, ["two"], resume=first.id)
    assert [turn.content for turn in again.turns] == ["a", "one"]
    assert again.system == "be kind"
    list(again.reply("b", cancelled=never))
    assert contents(store)[0] == ["a", "one", "b", "two"]
    assert [turn.content for turn in session(store, resume=True).turns] == ["a", "one", "b", "two"]


def test_resume_number_one_is_not_true(store: ChatStore) -> None:
    for name in "ab":
        list(session(store, ["x"]).reply(name, cancelled=never))
    assert session(store, resume=1).turns[0].content == "a"
    assert session(store, resume=True).turns[0].content == "b"


def test_resume_without_any_chat(store: ChatStore) -> None:
    assert session(store, resume=True).turns == ()
    with pytest.raises(NotFound):
        session(store, resume=7)


def test_regenerate_keeps_both_and_counts_the_new_one(store: ChatStore) -> None:
    chat = session(store, ["old"], ["new"])
    list(chat.reply("a", cancelled=never))
    list(chat.regenerate(cancelled=never))
    assert contents(store) == [["a", "new"]]
    kept = store._db.execute("SELECT content FROM messages WHERE role = 'assistant' ORDER BY id").fetchall()
    assert kept == [("old",), ("new",)]


def test_a_regenerate_that_writes_nothing_changes_nothing(store: ChatStore) -> None:
    chat = session(store, ["old"], ["new"])
    list(chat.reply("a", cancelled=never))
    list(chat.regenerate(cancelled=lambda: True))
    assert contents(store) == [["a", "old"]]
    assert chat.last_answer == "old"


def test_a_refused_prompt_leaves_no_trace(store: ChatStore) -> None:
    chat = session(store, [ContextOverflow("too long", hint="less")], ["one"])
    with pytest.raises(ContextOverflow):
        list(chat.reply("a", cancelled=never))
    assert contents(store) == []
    list(chat.reply("b", cancelled=never))
    assert contents(store) == [["b", "one"]]


def test_an_error_in_the_middle_keeps_what_was_written(store: ChatStore) -> None:
    chat = session(store, ["one ", DoesNotFit("no memory", hint="less")])
    with pytest.raises(DoesNotFit):
        list(chat.reply("a", cancelled=never))
    assert contents(store) == [["a", "one "]]
    assert chat.last_answer == "one "


def test_a_stopped_reply_without_a_word_can_be_asked_anew(store: ChatStore) -> None:
    chat = session(store, ["x"], ["one"])
    list(chat.reply("a", cancelled=lambda: True))
    assert contents(store) == [["a"]]
    again = session(store, ["two"], resume=True)
    assert (again.unsent, again.turns) == ("a", ())
    list(chat.reply("b", cancelled=never))
    assert contents(store) == [["b", "one"]]


def test_a_prompt_that_was_never_answered_comes_back(store: ChatStore) -> None:
    list(session(store, ["one"]).reply("a", cancelled=never))
    store.append(1, Message("user", "b"))
    store.append(1, Message("assistant", ""), finished=False)  # and then the program was killed
    again = session(store, ["three"], resume=True)
    assert again.unsent == "b"
    assert [turn.content for turn in again.turns] == ["a", "one"]
    list(again.reply("c", cancelled=never))
    assert contents(store) == [["a", "one", "c", "three"]]


def test_a_running_reply_is_saved_every_second(store: ChatStore) -> None:
    now = 0.0
    recorder = Recorder(store, model="m", clock=lambda: now)
    chat = session(store, [f"{i} " for i in range(10)]).chat
    assert chat is not None
    unsaved: list[int] = []
    written = 0
    for event in recorder.record(chat.reply("a"), prompt="a"):
        if isinstance(event, Text):
            now += 0.4
            written += 1
            saved = contents(store)[0][1:]
            unsaved.append(written - sum(text.count(" ") for text in saved))
    assert max(unsaved) <= 3  # 1 s at 0.4 s a piece, and the piece in flight
    assert contents(store) == [["a", "0 1 2 3 4 5 6 7 8 9 "]]


def test_a_store_that_fails_does_not_cost_the_answer(store: ChatStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_args: object, **_more: object) -> int:
        raise DoesNotFit("disk full", hint="free some")

    monkeypatch.setattr(store, "append", full)
    chat = session(store, ["one"])
    events = list(chat.reply("a", cancelled=never))
    assert isinstance(events[-1], Finished)
    assert chat.last_answer == "one"
    assert chat.problem is not None
    assert chat.problem.message == "disk full"


def test_start_anew(store: ChatStore) -> None:
    chat = session(store, ["one"], ["two"], system="be kind")
    list(chat.reply("a", cancelled=never))
    chat.start_anew()
    assert (chat.turns, chat.last_answer) == ((), None)
    list(chat.reply("b", cancelled=never))
    assert contents(store) == [["b", "two"], ["a", "one"]]
    assert chat.chat is not None
    assert chat.chat.messages[0] == Message("system", "be kind")


def test_without_an_engine_nothing_is_sent(store: ChatStore) -> None:
    with pytest.raises(UsageError, match="not loaded"):
        ChatSession(store, model="m").reply("a", cancelled=never)
