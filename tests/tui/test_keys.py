"""What each key does."""

import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from textual import events

from localinfer.engine.protocol import Engine
from localinfer.tui.app import ChatApp
from localinfer.tui.widgets.answer import Answer
from localinfer.tui.widgets.prompt_box import PASTE_LIMIT
from localinfer.tui.widgets.transcript import Prompt
from localinfer.tui.workers import LoadProgress
from tests.tui.app_state import Hold, box, said, saved, turns
from tests.tui.conftest import quiet_app, say, screen_text, settle
from tests.tui.scripted import ScriptedEngine

Scripted = Callable[..., ChatApp]


async def test_enter_sends_and_ctrl_j_does_not(scripted: Scripted) -> None:
    app = scripted(["ok"], ["ok"])
    async with app.run_test() as pilot:
        await settle(pilot)
        await pilot.press("enter", "space", "enter")
        assert turns(app) == []
        box(app).load_text("")
        await say(pilot, "a")
        await pilot.press("b", "ctrl+j", "c", "shift+enter", "d")
        assert box(app).text == "b\nc\nd"
        await pilot.press("enter")
        await settle(pilot)
        assert turns(app)[0] == "a"
        assert "b\nc\nd" in [str(prompt.content) for prompt in app.query(Prompt)]


async def test_regenerate(scripted: Scripted) -> None:
    engine = ScriptedEngine(["primo"], ["second"])
    app = scripted(engine=engine)
    async with app.run_test() as pilot:
        await settle(pilot)
        await pilot.press("ctrl+r")
        assert "no answer yet" in said(app)
        await say(pilot, "a")
        await pilot.press("ctrl+r")
        await settle(pilot)
        assert turns(app) == ["a", "second"]
        assert "primo" not in screen_text(app)
        assert len(app.query(Answer)) == 1
        assert [request.sampling.seed for request in engine.requests] == [0, 1]


async def test_copy_takes_the_text_without_controls(scripted: Scripted) -> None:
    app = scripted(["**bold** \x1b[31m", "red"])
    async with app.run_test() as pilot:
        await settle(pilot)
        await pilot.press("ctrl+y")
        assert app.clipboard == ""
        await say(pilot, "a")
        await pilot.press("ctrl+y")
        assert app.clipboard == "**bold** red"
        assert said(app) == "copied 12 characters"


async def test_new_chat(scripted: Scripted, store_path: Path) -> None:
    app = scripted(["one"], ["two"])
    async with app.run_test() as pilot:
        await settle(pilot)
        await say(pilot, "a")
        await pilot.press("ctrl+n")
        await pilot.pause()
        assert "Ask anything" in screen_text(app)
        await say(pilot, "b")
        assert turns(app) == ["b", "two"]
    assert saved(store_path) == [["b", "two"], ["a", "one"]]


async def test_ctrl_c_stops_then_warns_then_quits(scripted: Scripted) -> None:
    engine = ScriptedEngine(["one ", "two ", "three"])
    hold = Hold(engine, 1)
    app = scripted(engine=engine)
    async with app.run_test() as pilot:
        await settle(pilot)
        await pilot.press(*"a", "enter")
        await pilot.pause(0.1)
        assert hold.reached.wait(60)
        await pilot.press("ctrl+c")
        assert engine.cancelled.wait(60)
        hold.go_on.set()
        await settle(pilot)
        assert turns(app) == ["a", "one "]
        await pilot.press("ctrl+c")
        assert "again" in said(app)
        assert app.return_code is None
        await pilot.press("ctrl+c")
    assert app.return_code == 130


async def test_quit_while_an_answer_is_written(scripted: Scripted, store_path: Path) -> None:
    engine = ScriptedEngine(["one ", "two"])
    hold = Hold(engine, 1)
    app = scripted(engine=engine)
    async with app.run_test() as pilot:
        await settle(pilot)
        await pilot.press(*"a", "enter")
        await pilot.pause(0.1)
        assert hold.reached.wait(60)
        hold.go_on.set()
        await pilot.press("ctrl+q")
    assert app.return_code == 0
    assert saved(store_path)[0][0] == "a"
    assert saved(store_path)[0][1].startswith("one ")


async def test_quit_while_the_model_loads_stops_the_loading(store_path: Path) -> None:
    stopped = threading.Event()

    def slow(progress: LoadProgress) -> Engine:
        try:
            for i in range(10_000):
                progress("weights", i, 10_000)
                threading.Event().wait(0.002)
        except KeyboardInterrupt:
            stopped.set()
            raise
        return ScriptedEngine()

    app = quiet_app(slow, store_path)
    async with app.run_test() as pilot:
        await pilot.pause(0.1)
        await pilot.press("ctrl+q")
    assert stopped.wait(60)
    assert app.return_code == 0


async def test_links_are_shown_and_never_opened(scripted: Scripted, monkeypatch: pytest.MonkeyPatch) -> None:
    app = scripted(["[https://safe.org](ssh://-oProxyCommand=x/) [x](javascript:alert(1))"])
    opened: list[str] = []
    monkeypatch.setattr(app, "open_url", lambda url, **_: opened.append(url))
    async with app.run_test() as pilot:
        await settle(pilot)
        await say(pilot, "a")
        answer = app.query_one(Answer)
        await pilot.click(answer, offset=(3, 0))
        await pilot.pause()
        assert said(app) == "ssh://-oProxyCommand=x/"
        answer.post_message(Answer.Address("https://example.org/\x1b[31m[b]"))
        await pilot.pause()
        assert said(app) == "https://example.org/[b]"
    assert opened == []


async def test_a_paste_is_cleaned_and_bounded(scripted: Scripted) -> None:
    app = scripted()
    async with app.run_test() as pilot:
        await settle(pilot)
        box(app).post_message(events.Paste("two\r\nlines\x1b]52;c;eA==\x07 \u202ex"))
        await pilot.pause()
        assert box(app).text == "two\nlines <U+202E>x"
        box(app).load_text("")
        await pilot.press(*"see ")
        box(app).post_message(events.Paste("word " * 200_000))
        await pilot.pause()
        assert box(app).text == "see [text 1: 1000000 characters, 1 line]"
        await pilot.press(*" and [text 2]")
        box(app).post_message(events.Paste("[text 1: 1000000 characters, 1 line]\n" * 41))
        await pilot.pause()
        assert box(app).whole == f"see {'word ' * 200_000} and [text 2]" + "[text 1: 1000000 characters, 1 line]\n" * 41
        box(app).load_text("")
        box(app).post_message(events.Paste("x" * (PASTE_LIMIT + 1)))
        await pilot.pause()
        assert len(box(app).whole) == PASTE_LIMIT
        assert f"{PASTE_LIMIT + 1} characters" in said(app)
