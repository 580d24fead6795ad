"""Models, files and users that mean harm to the terminal or to the app; and terminals of every size."""

import os
import random
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pexpect  # type: ignore[import-untyped]
import pytest

from localinfer.chats.store import ChatStore
from localinfer.chats.template import Message
from localinfer.errors import UsageError
from localinfer.tui.app import ChatApp
from localinfer.tui.widgets.answer import Answer
from localinfer.tui.widgets.prompt_box import PromptBox
from localinfer.tui.widgets.transcript import Prompt
from tests.test_text import CORPUS
from tests.tui.conftest import quiet_app, say, screen_text, settle
from tests.tui.hostile_app import MARK
from tests.tui.scripted import ScriptedEngine

Scripted = Callable[..., ChatApp]

# What Textual itself sends: colours, cursor moves, modes and questions about them, keyboard protocol, mouse pointer.
OWN_SEQUENCES = re.compile(
    "\x1b\\[[0-9;]*[mHJK]|\x1b\\[\\?[0-9;]*(?:[hl]|\\$p)|\x1b\\[[<>=][0-9;]*[uq]|\x1b]22;[a-z-]+\x07"
)
MARKUP = (
    "[@click=app.exit]",
    "[bold",
    "[/]",
    "[/b]",
    "[link=http://e]x[/link]",
    "[" * 1000,
    "]" * 1000,
    "[[[]]",
    "\\[b]",
)


def test_nothing_of_the_model_reaches_the_terminal_as_a_control(tmp_path: Path) -> None:
    child = pexpect.spawn(
        sys.executable,
        ["-m", "tests.tui.hostile_app", str(tmp_path / "chats.sqlite3")],
        dimensions=(24, 80),
        env=os.environ | {"TERM": "xterm-256color", "PYTHONPATH": os.pathsep.join(sys.path)},
        encoding="utf-8",
        timeout=60,
    )
    seen = ""

    def read_until(text: str) -> None:
        nonlocal seen
        child.expect_exact(text)
        seen += child.before + child.after

    read_until("Message")
    child.send("hi\r")
    read_until(MARK)
    child.send("second\r")
    read_until("failed")
    child.send("\x11")
    child.expect(pexpect.EOF)
    seen += child.before
    child.close()
    assert child.exitstatus == 0
    left = OWN_SEQUENCES.sub("", seen)
    assert "\x1b" not in left, repr(left[left.index("\x1b") :][:80])
    assert re.search("[\x00-\x06\x0b\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\u200b]", left) is None


async def test_the_corpus_is_text_on_the_screen(scripted: Scripted) -> None:
    app = scripted([f"<{sequence}>" for sequence in CORPUS])
    async with app.run_test(size=(100, 40)) as pilot:
        await settle(pilot)
        await say(pilot, "a")
        assert app.query_one(Answer).source == "<>" * len(CORPUS)


@pytest.mark.parametrize("text", MARKUP, ids=lambda text: text[:20])
async def test_markup_is_shown_literally(store_path: Path, text: str) -> None:
    engine = ScriptedEngine([text], [UsageError(text, hint=text)])
    app = quiet_app(lambda _: engine, store_path, text)
    async with app.run_test(size=(120, 60)) as pilot:
        await settle(pilot)
        app.chats.say(text)
        box = app.chats.query_one(PromptBox)
        box.post_message(PromptBox.Sent(box, text, text))
        await settle(pilot)
        assert str(app.query_one(Prompt).content) == text
        await say(pilot, "b")
        assert app.pane.message.text == f"{text} · {text}"
        for widget in (app.query_one(Prompt), app.pane.message):
            await pilot.click(widget, offset=(3, 0))
        assert text[:60] in screen_text(app)
        assert app.return_code is None


async def test_html_and_entities_are_text(scripted: Scripted) -> None:
    app = scripted(["<div>kept</div>\n\nx <b>bold</b> &lt;i&gt; &#x202e;evil&rlm;\nsecond line <think>"])
    async with app.run_test() as pilot:
        await settle(pilot)
        await say(pilot, "a")
        text = screen_text(app)
    for part in ("<div>kept</div>", "x <b>bold</b> <i> <U+202E>evil<U+200F>", "second line <think>"):
        assert part in text
    assert "\u202e" not in text


FRAGMENTS = (
    *("# h\n", "###### h\n", "- a\n", "  - b\n", "1. c\n", "> q\n", "> > > > r\n", "---\n", "***", "**", "`", "```\n"),
    *("```python\nx=1\n", "~~~\n", "|a|b|\n|-|-|\n|1|2|\n", "| x\n", "|", "[l](u)", "![i](u)", "<b>", "&amp;", "\\"),
    *("\n", "\n\n", "  \n", "    code\n", "word ", "https://e.org ", "~~s~~", "- [ ] t\n", "\t", "é世界👩\u200d👧 "),
    *("a\u0301" * 50, "x" * 300),
)


@pytest.mark.parametrize("seed", range(4))
async def test_any_markdown_in_any_pieces(scripted: Scripted, seed: int) -> None:
    chance = random.Random(seed)
    scripts = [[chance.choice(FRAGMENTS) for _ in range(60)] for _ in range(2)]
    app = scripted(*scripts)
    size = chance.choice([(80, 24), (20, 5), (33, 12), (200, 60)])
    async with app.run_test(size=size) as pilot:
        await settle(pilot)
        for i, script in enumerate(scripts):
            await say(pilot, "a")
            assert app.pane.session.turns[2 * i + 1].content == "".join(script)
        assert app.return_code is None
        sources = [answer.source for answer in app.query(Answer)]
        assert sources == ["".join(script) for script in scripts]


async def test_a_long_answer_in_small_pieces(scripted: Scripted) -> None:
    pieces = ["word "] * 1500
    app = scripted(pieces)
    async with app.run_test() as pilot:
        await settle(pilot)
        start = time.perf_counter()
        await say(pilot, "a")
        assert time.perf_counter() - start < 30
        assert app.query_one(Answer).source == "".join(pieces)


async def test_a_storm_of_sizes_while_an_answer_is_written(scripted: Scripted) -> None:
    chance = random.Random(1)
    app = scripted([chance.choice(FRAGMENTS) for _ in range(100)])
    async with app.run_test() as pilot:
        await settle(pilot)
        await pilot.press("a", "enter")
        for _ in range(40):
            await pilot.resize_terminal(chance.choice([1, 2, 7, 20, 80, 300]), chance.choice([1, 2, 3, 5, 24, 100]))
        await pilot.resize_terminal(80, 24)
        await settle(pilot)
        assert app.pane.session.turns
        assert "ready" in screen_text(app)


@pytest.mark.parametrize("size", [(1, 1), (2, 2), (5, 3), (20, 5), (20, 24), (200, 5)])
async def test_every_key_at_every_size(scripted: Scripted, size: tuple[int, int]) -> None:
    app = scripted(["# title\n\n|a|b|\n|-|-|\n|1|2|\n\n```\ncode\n```\n"], ["two"])
    async with app.run_test(size=size) as pilot:
        await settle(pilot)
        await say(pilot, "a")
        for key in ("ctrl+r", "ctrl+y", "f1", "escape", "pageup", "pagedown", "ctrl+j", "escape", "ctrl+n", "ctrl+c"):
            await pilot.press(key)
            await pilot.pause()
        await settle(pilot)
        assert app.return_code is None


async def test_a_hostile_saved_chat(scripted: Scripted, store_path: Path) -> None:
    with ChatStore(store_path) as store:
        chat = store.create("\x1b]0;x\x07[/b]", system="\x1b[2J")
        store.append(chat, Message("user", "".join(CORPUS) + "[/]"))
        store.append(chat, Message("assistant", "".join(CORPUS) + "[@click=app.exit]x[/]"))
        store.append(chat, Message("user", "".join(CORPUS) + "unsent"))
    app = scripted(resume=True)
    async with app.run_test() as pilot:
        await settle(pilot)
        assert "[@click=app.exit]x[/]" in screen_text(app)
        assert app.query_one(PromptBox).text == "unsent"
