"""What is typed stays what was typed: right after Enter, in other panes, and when a long paste is brought back."""

from collections.abc import Callable
from pathlib import Path

from textual import events
from textual._xterm_parser import XTermParser

from localinfer.tui.app import ChatApp
from localinfer.tui.widgets.prompt_box import FOLD_CHARACTERS
from tests.tui.app_state import box, said, turns
from tests.tui.conftest import say, settle
from tests.tui.scripted import ScriptedEngine

Scripted = Callable[..., ChatApp]


def type_at_once(app: ChatApp, *keys: str) -> None:
    """Keys that came while the app was busy: all are there before the first one is looked at."""
    for key in keys:
        box(app).post_message(events.Key(key, key if len(key) == 1 else None))


def burst(app: ChatApp, *keys: str) -> None:
    """The same, as a terminal sends them: to the app, which finds out whose they are."""
    for key in keys:
        app.post_message(events.Key(key, key if len(key) == 1 else None))


async def test_what_is_typed_right_after_tab_is_for_the_next_pane(scripted: Scripted) -> None:
    app = scripted()
    async with app.run_test(size=(150, 40)) as pilot:
        await settle(pilot)
        await pilot.press("f5", "f5", "tab")
        burst(app, *"abc", "tab", *"def", "tab", *"ghi", "tab", "x", "shift+tab", "y")
        await settle(pilot)
        assert [pane.box.text for pane in app.chats.panes] == ["abcx", "def", "ghiy"]


async def test_tab_completes_what_was_typed_right_before_it(scripted: Scripted) -> None:
    app = scripted()
    async with app.run_test(size=(150, 40)) as pilot:
        await settle(pilot)
        await pilot.press("f5", "tab")
        burst(app, *"/exq", "backspace", "tab", "x", "tab", *"de", "left", "ctrl+j")
        await settle(pilot)
        assert [pane.box.text for pane in app.chats.panes] == ["/export x", "d\ne"]


async def test_what_is_typed_right_after_the_key_of_the_chats_is_searched(scripted: Scripted) -> None:
    app = scripted(["one"], ["two"])
    async with app.run_test(size=(100, 40)) as pilot:
        await settle(pilot)
        for line in ("alpha", "/clear", "beta"):
            await say(pilot, line)
        burst(app, *"half", "f9", *"alpha", "enter")
        await settle(pilot)
        assert app.screen is app.chats
        assert turns(app) == ["alpha", "one"]


async def test_what_is_typed_right_after_enter_is_the_next_prompt(scripted: Scripted) -> None:
    app = scripted(["one"], ["two"])
    async with app.run_test() as pilot:
        await settle(pilot)
        type_at_once(app, "a", "enter", "b")
        await settle(pilot)
        assert (turns(app), box(app).text) == (["a", "one"], "b")
        type_at_once(app, "enter", *"/tints", "enter", "c")
        await settle(pilot)
        assert (turns(app), box(app).text, app.pane.running.tints) == (["a", "one", "b", "two"], "c", True)


async def test_what_cannot_be_sent_comes_back_before_what_was_typed_since(scripted: Scripted) -> None:
    app = scripted(["one"])
    async with app.run_test() as pilot:
        await settle(pilot)
        type_at_once(app, *"/nothing", "enter", "b")
        await settle(pilot)
        assert box(app).text == "/nothing\n\nb"
        assert "no command /nothing" in said(app)


async def test_a_prompt_for_all_leaves_what_is_typed_in_other_panes(scripted: Scripted) -> None:
    app = scripted(["one"], ["two"])
    async with app.run_test(size=(140, 40)) as pilot:
        await settle(pilot)
        await pilot.press("f5", "f8", *"half")
        await pilot.press("alt+left")
        await say(pilot, "all")
        here, there = app.chats.panes
        assert (here.box.text, there.box.text) == ("", "half")
        assert [[turn.content for turn in pane.session.turns][:1] for pane in (here, there)] == [["all"], ["all"]]


async def test_a_long_paste_is_brought_back_whole(scripted: Scripted) -> None:
    app, long = scripted(["one"], ["two"]), "word " * FOLD_CHARACTERS
    async with app.run_test() as pilot:
        await settle(pilot)
        box(app).post_message(events.Paste(long))
        await say(pilot, "x")
        assert turns(app)[0] == long + "x"
        await pilot.press("up")
        assert len(box(app).text) < 100
        await pilot.press("enter")
        await settle(pilot)
        assert turns(app)[2] == long + "x"


async def test_a_long_paste_that_was_not_sent_is_brought_back_whole(scripted: Scripted) -> None:
    app, long = scripted(["one"], ["two"]), "word " * FOLD_CHARACTERS
    async with app.run_test() as pilot:
        await settle(pilot)
        await say(pilot, "x")
        box(app).post_message(events.Paste(long))
        await pilot.press("up", "down", "enter")
        await settle(pilot)
        assert turns(app)[2] == long


async def test_a_prompt_for_all_leaves_files_and_edits_of_other_panes(scripted: Scripted, tmp_path: Path) -> None:
    for name in ("mine", "theirs"):
        (tmp_path / name).write_text(name)
    engine = ScriptedEngine(["one"], ["two"], ["three"], ["four"])
    app = scripted(engine=engine)
    async with app.run_test(size=(140, 40)) as pilot:
        await settle(pilot)
        await say(pilot, "a")
        await say(pilot, f"/attach {tmp_path}/theirs")
        await pilot.press("ctrl+b", *"!", "f5", "f8")
        await say(pilot, f"/attach {tmp_path}/mine")
        await say(pilot, "all")
        there, here = app.chats.panes
        assert [pane.session.turns[-2].content for pane in (here, there)] == ["mine\n\nall"] * 2
        assert ([name for name, _ in there.attached], here.attached) == (["theirs"], [])
        assert (there.box.text, there.earlier.place) == ("a!", 0)


async def test_joined_emoji_and_letters_are_typed_whole(scripted: Scripted) -> None:
    app, text = scripted(["one"]), "👩\u200d👧\ufe0f می\u200cخواهم"
    async with app.run_test() as pilot:
        await settle(pilot)
        for event in XTermParser().feed(text):
            box(app).post_message(event)
        await pilot.press("enter")
        await settle(pilot)
        assert turns(app)[0] == text
