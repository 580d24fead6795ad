"""A chat that is written down while it is spoken, and found again."""

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from localinfer.chats.recording import Position, Recorder
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


def texts(session: ChatSession) -> list[str]:
    return [turn.content for turn in session.turns]


def asked(session: ChatSession) -> list[str]:
    """The prompts that reached the engine."""
    assert session.chat is not None
    engine = session.chat.engine
    assert isinstance(engine, ScriptedEngine)
    return [bytes(request.prompt).decode() for request in engine.requests]


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
    assert again.held_by is None
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
    assert (chat.turns[1].variant, chat.turns[1].variants) == (2, 2)
    assert chat.page(1, -1)
    assert contents(store) == [["a", "old"]]


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
    chat.close()
    again = session(store, ["two"], resume=True)
    assert (again.unsent, again.turns) == ("a", ())
    list(chat.reply("b", cancelled=never))
    assert contents(store) == [["b", "one"]]


def test_a_prompt_that_was_never_answered_comes_back(store: ChatStore) -> None:
    list(session(store, ["one"]).reply("a", cancelled=never))
    parent = store.get(1)[1][-1].id
    store.begin(1, "b", parent=parent)  # and then the program was killed
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
    for event in recorder.record(chat.reply("a"), Position(prompt="a")):
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

    monkeypatch.setattr(store, "begin", full)
    chat = session(store, ["one"])
    events = list(chat.reply("a", cancelled=never))
    assert isinstance(events[-1], Finished)
    assert chat.last_answer == "one"
    assert chat.problem is not None
    assert chat.problem.message == "disk full"


def test_a_chat_that_is_deleted_while_it_is_answered_is_told(store: ChatStore) -> None:
    chat = session(store, ["b"], ["d ", "and"])
    list(chat.reply("a", cancelled=never))
    for event in chat.reply("c", cancelled=never):
        if isinstance(event, Text) and event.text == "d ":
            store.delete(chat.chat_id or 0)
    assert texts(chat) == ["a", "b", "c", "d and"]
    assert chat.problem is not None
    assert "deleted" in chat.problem.message


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


def test_an_edited_prompt_goes_on_as_a_branch(store: ChatStore) -> None:
    chat = session(store, ["b"], ["d"], ["B"], ["D"])
    for prompt in "ac":
        list(chat.reply(prompt, cancelled=never))
    list(chat.edit(0, "A", cancelled=never))
    assert texts(chat) == ["A", "B"]
    assert asked(chat)[-1] == "<user>A"
    assert (chat.turns[0].variant, chat.turns[0].variants) == (2, 2)
    list(chat.reply("C", cancelled=never))
    assert asked(chat)[-1] == "<user>A<assistant>B<user>C"
    assert chat.page(0, -1)
    assert texts(chat) == ["a", "b", "c", "d"]
    assert not chat.page(0, -1)
    assert chat.page(0, 1)
    assert texts(chat) == texts(session(store, resume=True)) == ["A", "B", "C", "D"]


def test_an_edit_without_a_word_changes_nothing(store: ChatStore) -> None:
    chat = session(store, ["b"], ["B"], ["d"], [ContextOverflow("too long", hint="less")])
    list(chat.reply("a", cancelled=never))
    list(chat.edit(0, "A", cancelled=lambda: True))
    assert (texts(chat), chat.turns[0].variants) == (["a", "b"], 1)
    list(chat.reply("c", cancelled=never))
    assert asked(chat)[-1] == "<user>a<assistant>b<user>c"
    with pytest.raises(ContextOverflow):
        list(chat.edit(2, "long", cancelled=never))
    assert texts(chat) == ["a", "b", "c", "d"]
    for position in (1, 4, -1):
        with pytest.raises(UsageError, match="no such prompt"):
            chat.edit(position, "A", cancelled=never)


def test_every_variant_has_a_seed_of_its_own(store: ChatStore) -> None:
    chat = session(store, ["1"], ["2"])
    list(chat.reply("a", cancelled=never))
    list(chat.regenerate(cancelled=never))
    chat.close()
    again = ChatSession(store, model="tiny", resume=True)
    engine = ScriptedEngine(["3"])
    again.attach(engine)
    list(again.regenerate(cancelled=never))
    assert engine.requests[0].sampling.seed == engine.default_sampling.seed + 2
    assert again.turns[-1].variants == 3


def test_an_answer_that_was_cut_off_goes_on(store: ChatStore) -> None:
    engine = ScriptedEngine(["one ", "two "], ["three"])
    engine.reason = "length"
    chat = ChatSession(store, model="tiny")
    chat.attach(engine)
    list(chat.reply("count", cancelled=never))
    assert chat.cut_off
    engine.reason = "stop"
    list(chat.go_on(cancelled=never))
    assert bytes(engine.requests[1].prompt).decode() == "<user>countone two "
    assert (texts(chat), chat.cut_off) == (["count", "one two three"], "")
    figures = chat.turns[-1].figures
    assert figures is not None
    assert figures.completion_tokens == 3
    with pytest.raises(UsageError, match="whole"):
        chat.go_on(cancelled=never)


def test_an_answer_that_a_kill_cut_off_is_marked_and_goes_on(store: ChatStore) -> None:
    _, row = store.begin(store.create("tiny"), "count", parent=None, model="tiny")
    store.update(row, "one ", ending="writing", tokens=[1])
    chat = session(store, ["two"], resume=True)
    assert "program ended" in chat.cut_off
    list(chat.go_on(cancelled=never))
    assert contents(store) == [["count", "one two"]]
    assert not session(store, resume=True).cut_off


def test_going_on_that_ends_at_once_keeps_the_mark(store: ChatStore) -> None:
    engine = ScriptedEngine(["one "], ["two"])
    engine.reason = "length"
    chat = ChatSession(store, model="tiny")
    chat.attach(engine)
    list(chat.reply("count", cancelled=never))
    list(chat.go_on(cancelled=lambda: True))
    assert (texts(chat), chat.turns[-1].ending) == (["count", "one "], "cancelled")


def test_system_prompts_are_kept_where_they_came_into_force(store: ChatStore) -> None:
    chat = session(store, ["b"], ["d"], ["f"], system="one")
    list(chat.reply("a", cancelled=never))
    chat.use_system("two")
    list(chat.reply("c", cancelled=never))
    chat.use_system(None)
    list(chat.reply("e", cancelled=never))
    assert [turn.system for turn in chat.turns] == ["one", "one", "two", "two", None, None]
    assert store._db.execute("SELECT count(*) FROM messages WHERE system IS NOT NULL").fetchone() == (3,)
    assert [turn.model for turn in chat.turns[1::2]] == ["tiny"] * 3


def test_a_chat_never_stores_a_model_that_did_not_answer(store: ChatStore) -> None:
    list(session(store, ["b"]).reply("a", cancelled=never))
    other = ChatSession(store, model="other", resume=True)
    assert store.list()[0].model == "tiny"
    other.use_model("third", ScriptedEngine(["d"]))
    assert store.list()[0].model == "tiny"
    list(other.reply("c", cancelled=never))
    assert store.list()[0].model == "third"
    assert [turn.model for turn in other.turns[1::2]] == ["tiny", "third"]


@pytest.mark.parametrize("seed", range(3))
def test_in_any_order_what_is_shown_said_and_kept_is_the_same(store: ChatStore, seed: int) -> None:
    chance = random.Random(seed)
    engine = ScriptedEngine()
    chat = ChatSession(store, model="tiny")
    chat.attach(engine)
    for step in range(100):
        before = texts(chat)
        engine._scripts = [[f"{step} ", "and ", "more"][: chance.randrange(4)]]
        engine.reason = chance.choice(["stop", "length"])
        calls = [False] * chance.randrange(8) + [True]
        cancelled = (
            (lambda calls=calls: calls.pop(0) if len(calls) > 1 else calls[0]) if chance.random() < 0.3 else never
        )
        places = [i for i, turn in enumerate(chat.turns) if turn.role == "user"]
        match chance.randrange(6):
            case 0 | 1:
                list(chat.reply(f"p{step}", cancelled=cancelled))
            case 2 if places:
                list(chat.regenerate(cancelled=cancelled))
            case 3 if places:
                list(chat.edit(chance.choice(places), f"e{step}", cancelled=cancelled))
            case 4 if chat.cut_off:
                list(chat.go_on(cancelled=cancelled))
            case 5 if places:
                chat.page(chance.randrange(len(chat.turns)), chance.choice([-1, 1]))
        assert chat.problem is None
        assert chat.chat is not None
        assert texts(chat) == [message.content for message in chat.chat.messages]
        assert [turn.role for turn in chat.turns] == ["user", "assistant"] * (len(chat.turns) // 2)
        if chat.chat_id is not None:
            kept = store.get(chat.chat_id)[1]
            assert tuple(turn for turn in kept if turn in chat.turns) == chat.turns
            assert len(kept) - len(chat.turns) in (0, 1)  # a prompt without an answer
        assert before or len(chat.turns) in (0, 2)
    assert store._db.execute("SELECT count(*) FROM messages WHERE content = ''").fetchone() == (0,)
    assert store._db.execute("PRAGMA foreign_key_check").fetchall() == []
