"""A chat as a file: what it carries."""

import json
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import pytest

from localinfer.chats.exporting import export
from localinfer.chats.session import ChatSession
from localinfer.chats.store import ChatStore
from localinfer.engine.form import Grammar
from localinfer.errors import UsageError
from tests.tui.scripted import ScriptedEngine

BEGUN = 1_800_000_000.0


@pytest.fixture
def chat(tmp_path: Path) -> Iterator[ChatSession]:
    """Two system prompts, two models, an answer in two variants and one that was cut off."""
    times = iter(range(10_000))
    with ChatStore(tmp_path / "chats.sqlite3", clock=lambda: BEGUN + next(times)) as store:
        session = ChatSession(store, model="org/one:INT4", system="be kind\nand brief")
        session.attach(ScriptedEngine(["b"], ["B"]))
        list(session.reply("a", cancelled=lambda: False))
        list(session.regenerate(cancelled=lambda: False))
        session.use_system("be quick")
        other = ScriptedEngine(["d ", "and"], ["f"])
        other.reason = "length"
        session.use_model("org/two:INT8", other)
        list(session.reply("c", cancelled=lambda: False))
        session.use_system(None)
        list(session.reply("e", cancelled=lambda: False))
        session.set_title("Letters")
        session.use_form(Grammar("regex", "[a-z]+"))
        yield session


def write(chat: ChatSession, path: Path) -> str:
    export(path, chat.turns, model=chat.model, system=chat.system, saved=chat.saved)
    return path.read_text(encoding="utf-8")


def test_json_carries_all(chat: ChatSession, tmp_path: Path) -> None:
    whole = json.loads(write(chat, tmp_path / "chat.json"))
    assert (whole["title"], whole["model"], whole["system"]) == ("Letters", "org/two:INT8", None)
    created, updated = (datetime.fromisoformat(whole[name]) for name in ("created", "updated"))
    assert created.timestamp() == BEGUN
    assert updated > created
    assert whole["form"] == {"kind": "regex", "text": "[a-z]+"}
    messages = whole["messages"]
    assert [(one["role"], one["content"]) for one in messages] == [
        *[("user", "a"), ("assistant", "B"), ("user", "c"), ("assistant", "d and"), ("user", "e"), ("assistant", "f")]
    ]
    systems = {i: one["system"] for i, one in enumerate(messages) if "system" in one}
    assert systems == {0: "be kind\nand brief", 2: "be quick", 4: None}
    assert [one["model"] for one in messages[1::2]] == ["org/one:INT4", "org/two:INT8", "org/two:INT8"]
    assert [one["ending"] for one in messages[1::2]] == ["stop", "length", "length"]
    assert (messages[1]["variant"], messages[1]["variants"]) == (2, 2)
    assert messages[3]["figures"]["completion_tokens"] == 2
    assert messages[3]["figures"]["ttft_s"] == 0.21
    assert messages[3]["figures"]["tok_s"] == pytest.approx(41.5)
    assert all(datetime.fromisoformat(one["created"]) >= created for one in messages)


def test_markdown_carries_all_in_its_place(chat: ChatSession, tmp_path: Path) -> None:
    text = write(chat, tmp_path / "chat.md")
    day = datetime.fromtimestamp(BEGUN).strftime("%Y-%m-%d")
    wanted = [
        *["# Letters", day, "org/two:INT8", "> be kind\n> and brief", "## You\n\na", "## org/one:INT4\n\nB"],
        *["variant 2 of 2", "1 tokens", "> be quick", "## You\n\nc", "## org/two:INT8\n\nd and", "2 tokens"],
        *["the first after 0.21 s", "41.5 tokens/s", "cut off: the limit of new tokens", "> No system prompt.", "e"],
    ]
    at = 0
    for part in wanted:
        at = text.index(part, at) + len(part)


def test_a_file_that_is_there_stays(chat: ChatSession, tmp_path: Path) -> None:
    path = tmp_path / "chat.md"
    path.write_text("mine")
    with pytest.raises(UsageError, match="there already"):
        write(chat, path)
    assert path.read_text() == "mine"


def test_a_chat_that_could_not_be_kept_is_exported_too(chat: ChatSession, tmp_path: Path) -> None:
    export(tmp_path / "chat.json", chat.turns, model="m", system=None, saved=None)
    assert json.loads((tmp_path / "chat.json").read_text())["title"] is None
