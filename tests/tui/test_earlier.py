"""Earlier messages: brought back, written anew, answered again, paged, gone on with; what is drawn is what is kept."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from localinfer.chats.session import ChatSession
from localinfer.chats.store import ChatStore
from localinfer.chats.template import Message
from localinfer.errors import ContextOverflow, DoesNotFit
from localinfer.tui.app import ChatApp
from localinfer.tui.widgets.answer import Answer
from localinfer.tui.widgets.hints import Hints
from localinfer.tui.widgets.transcript import SHOWN_TURNS, Mark, Prompt
from tests.tui.app_state import Hold, box, drawn, marks, said, turns
from tests.tui.conftest import press, quiet_app, say, screen_text, settle
from tests.tui.scripted import ScriptedEngine

Scripted = Callable[..., ChatApp]
SIZE = (100, 30)


async def test_an_earlier_prompt_is_written_anew(scripted: Scripted, store_path: Path) -> None:
    engine = ScriptedEngine(["b"], ["d"], ["D"], ["f"])
    app = scripted(engine=engine)
    async with app.run_test(size=SIZE) as pilot:
        await settle(pilot)
        await say(pilot, "a")
        await say(pilot, "c")
        await press(pilot, *"half", "ctrl+b")
        assert box(app).text == "c"
        assert "prompt 2 of 2" in str(box(app).border_title)
        assert app.query(Prompt).last().has_class("-chosen")
        await press(pilot, "ctrl+b")
        assert box(app).text == "a"
        await press(pilot, "ctrl+b")  # there is none before it
        assert box(app).text == "a"
        await press(pilot, "down")
        assert box(app).text == "c"
        await press(pilot, "escape")
        assert (box(app).text, box(app).border_title) == ("half", "")
        assert not app.query(Prompt).last().has_class("-chosen")
        await press(pilot, "ctrl+b", *"!", "enter")
        assert turns(app) == drawn(app) == ["a", "b", "c!", "D"]
        assert engine.tokenizer.decode(engine.requests[-1].prompt) == "<user>a<assistant>b<user>c!"
        assert marks(app) == ["‹ 2/2 ›"]
        await say(pilot, "/edit 1")
        assert box(app).text == "a"
        await press(pilot, *"!", "enter")
        assert turns(app) == drawn(app) == ["a!", "f"]
        await press(pilot, "ctrl+up")
        assert turns(app) == drawn(app) == ["a", "b", "c!", "D"]
    with ChatStore(store_path) as store:
        assert [turn.content for turn in store.get(1)[1]] == ["a", "b", "c!", "D"]


@pytest.mark.parametrize("script", [[], [ContextOverflow("too long", hint="less")]])
async def test_an_edit_that_comes_to_nothing_leaves_all_as_it_was(scripted: Scripted, script: list[object]) -> None:
    engine = ScriptedEngine(["b"], ["d"], script)  # type: ignore[arg-type]
    app = scripted(engine=engine)
    async with app.run_test(size=SIZE) as pilot:
        await settle(pilot)
        await say(pilot, "a")
        await say(pilot, "c")
        await say(pilot, "/edit 1")
        await press(pilot, *"!", "enter")
        assert turns(app) == drawn(app) == ["a", "b", "c", "d"]
        assert box(app).text == "a!"
        assert said(app)
        engine._scripts = [["B"], ["f"]]
        await press(pilot, "enter")  # it is still to take the place of the first one
        assert turns(app) == drawn(app) == ["a!", "B"]
        await press(pilot, "ctrl+b", "ctrl+n")
        assert (box(app).text, box(app).border_title) == ("", "")
        await say(pilot, "e")
        assert turns(app) == drawn(app) == ["e", "f"]


async def test_variants_are_paged_by_keys_words_and_clicks(scripted: Scripted) -> None:
    app = scripted(["one"], ["two"], ["three"], ["more"])
    async with app.run_test(size=SIZE) as pilot:
        await settle(pilot)
        await press(pilot, "ctrl+up")
        assert "no message of this chat has variants" in said(app)
        await say(pilot, "a")
        await press(pilot, "ctrl+r")
        await press(pilot, "ctrl+r")
        assert (turns(app), marks(app)) == (["a", "three"], ["‹ 3/3 ›"])
        await press(pilot, "ctrl+up")
        assert (turns(app), marks(app)) == (["a", "two"], ["‹ 2/3 ›"])
        await say(pilot, "/variant previous")
        assert (turns(app), drawn(app), marks(app)) == (["a", "one"], ["a", "one"], ["‹ 1/3 ›"])
        await press(pilot, "ctrl+up")
        assert "first of 3" in said(app)
        await pilot.click(Mark, offset=(6, 0))
        await settle(pilot)
        assert marks(app) == ["‹ 2/3 ›"]
        await pilot.click(Mark, offset=(1, 0))
        await settle(pilot)
        assert marks(app) == ["‹ 1/3 ›"]
        await say(pilot, "b")
        assert turns(app) == drawn(app) == ["a", "one", "b", "more"]
        await press(pilot, "ctrl+down")
        assert turns(app) == drawn(app) == ["a", "two"]
        await press(pilot, "ctrl+up")
        assert turns(app) == drawn(app) == ["a", "one", "b", "more"]


async def test_nothing_is_paged_or_edited_while_an_answer_is_written(scripted: Scripted) -> None:
    engine = ScriptedEngine(["one"], ["two ", "and more"])
    app = scripted(engine=engine)
    async with app.run_test(size=SIZE) as pilot:
        await settle(pilot)
        await say(pilot, "a")
        hold = Hold(engine, 1)
        await pilot.press("ctrl+r")
        await pilot.pause(0.1)
        assert hold.reached.wait(60)
        await pilot.press("ctrl+up", "ctrl+b", *"/continue", "enter")
        assert "Esc stops it" in said(app)
        assert box(app).text == ""
        hold.go_on.set()
        await settle(pilot)
        assert turns(app) == drawn(app) == ["a", "two and more"]


async def test_an_answer_that_was_cut_off_is_marked_and_goes_on(scripted: Scripted, store_path: Path) -> None:
    engine = ScriptedEngine(["| a |\n", "|---|\n"], ["| b |\n"], ["c"])
    engine.reason = "length"
    app = scripted(engine=engine)
    async with app.run_test(size=SIZE) as pilot:
        await settle(pilot)
        await say(pilot, "a table")
        assert "limit of new tokens" in marks(app)[0]
        engine.reason = "stop"
        await pilot.press("ctrl+l")
        await settle(pilot)
        assert turns(app) == drawn(app) == ["a table", "| a |\n|---|\n| b |\n"]
        assert marks(app) == []
        assert engine.tokenizer.decode(engine.requests[1].prompt) == "<user>a table| a |\n|---|\n"
        await say(pilot, "/continue")
        assert "whole" in said(app)
        assert len(app.query(Answer)) == 1


async def test_the_mark_of_an_answer_is_whole_in_a_narrow_pane(scripted: Scripted) -> None:
    engine = ScriptedEngine(["one"])
    engine.reason = "length"
    app = scripted(engine=engine)
    async with app.run_test(size=(40, 20)) as pilot:
        await settle(pilot)
        await say(pilot, "a")
        assert marks(app)[0] in " ".join(screen_text(app).split())


async def test_stop_and_error_cut_off_too(scripted: Scripted) -> None:
    engine = ScriptedEngine(["one ", "two"], ["three ", DoesNotFit("no memory", hint="close something")])
    hold = Hold(engine, 1)
    app = scripted(engine=engine)
    async with app.run_test(size=SIZE) as pilot:
        await settle(pilot)
        await pilot.press(*"a", "enter")
        await pilot.pause(0.1)
        assert hold.reached.wait(60)
        await pilot.press("escape")
        assert engine.cancelled.wait(60)
        hold.go_on.set()
        await settle(pilot)
        assert "cut off: stopped" in marks(app)[0]
        engine.before_piece = lambda _index: None
        await say(pilot, "b")
        assert "an error ended it" in marks(app)[1]
        assert said(app) == "no memory · close something"
        assert turns(app) == drawn(app) == ["a", "one ", "b", "three "]


async def test_what_a_kill_left_is_marked_when_the_chat_is_opened(scripted: Scripted, store_path: Path) -> None:
    with ChatStore(store_path) as store:
        _, row = store.begin(store.create("m"), "count", parent=None)
        store.update(row, "one ", ending="writing")
    app = scripted(["two"], resume=True)
    async with app.run_test(size=SIZE) as pilot:
        await settle(pilot)
        assert "the program ended" in marks(app)[0]
        await say(pilot, "/continue")
        assert turns(app) == drawn(app) == ["count", "one two"]
        assert marks(app) == []


async def test_up_and_down_bring_earlier_prompts_back(scripted: Scripted, store_path: Path) -> None:
    with ChatStore(store_path) as store:
        chat = store.create("m")
        store.append(chat, Message("user", "/etc is\na folder"))
        store.append(chat, Message("assistant", "yes"))
    app = scripted(["b"], ["d"])
    async with app.run_test(size=SIZE) as pilot:
        await settle(pilot)
        await say(pilot, "first")
        await say(pilot, "/set seed 7")
        await say(pilot, "second")
        await press(pilot, *"typing", "up")
        assert box(app).text == "second"
        await press(pilot, "up")
        assert box(app).text == "/set seed 7"
        assert not app.query_one(Hints).display
        await press(pilot, "up", "up")
        assert box(app).text == "//etc is\na folder"  # as it must be typed
        await press(pilot, "up")  # the cursor goes to its first line
        assert box(app).text == "//etc is\na folder"
        await press(pilot, "up")
        assert box(app).text == "//etc is\na folder"  # the oldest
        await press(pilot, "down", "down", "down", "down", "down")
        assert box(app).text == "typing"
        await press(pilot, "up", "enter")
        assert turns(app)[-2:] == ["second", ""] or turns(app)[-1] == "d"


async def test_the_list_of_commands_scrolls_and_arrows_move_in_it(scripted: Scripted) -> None:
    app = scripted()
    async with app.run_test(size=(80, 24)) as pilot:
        await settle(pilot)
        await press(pilot, "/")
        hints = app.query_one(Hints)
        assert hints.option_count > 20
        assert "/help" in screen_text(app)
        assert "/quit" not in screen_text(app)
        await press(pilot, "up")
        assert "/quit" in screen_text(app)
        await press(pilot, "down", "down", "enter")
        assert box(app).text == "/model "
        await press(pilot, "escape")
        assert not hints.display
        assert box(app).text == "/model "
        box(app).load_text("")
        await press(pilot, *"/the", "enter", *"no", "down", "enter")
        assert app.theme == "nord"
        assert box(app).text == ""
        await press(pilot, *"/attach", "enter")  # it needs nothing, but may have something
        assert box(app).text == ""
        await press(pilot, *"/save", "enter")
        assert box(app).text == "/save "
        box(app).load_text("")
        await press(pilot, *"/oad")
        assert [match.line for match in hints.matches] == ["/broadcast"]


async def test_another_process_that_writes_is_noticed(store_path: Path) -> None:
    other = ChatSession(ChatStore(store_path), model="m")
    other.attach(ScriptedEngine(["b"], ["d"]))
    list(other.reply("a", cancelled=lambda: False))
    app = quiet_app(lambda _: ScriptedEngine(["D"], ["f"]), store_path, resume=True)
    async with app.run_test(size=SIZE) as pilot:
        await settle(pilot)
        assert "open in another process" in said(app)
        assert drawn(app) == ["a", "b"]
        await say(pilot, "mine")
        assert (box(app).text, turns(app)) == ("mine", ["a", "b"])
        assert "Ctrl+T" in said(app)
        list(other.reply("c", cancelled=lambda: False))
        other.close()
        await press(pilot, "enter")
        assert (box(app).text, drawn(app)) == ("mine", ["a", "b", "c", "d"])
        assert "went on in another process" in said(app)
        await press(pilot, "enter")
        assert turns(app) == drawn(app) == ["a", "b", "c", "d", "mine", "D"]


async def test_a_chat_of_another_process_is_forked_in_its_place(store_path: Path) -> None:
    other = ChatSession(ChatStore(store_path), model="m")
    other.attach(ScriptedEngine(["b"]))
    list(other.reply("a", cancelled=lambda: False))
    app = quiet_app(lambda _: ScriptedEngine(["D"]), store_path, resume=True)
    async with app.run_test(size=SIZE) as pilot:
        await settle(pilot)
        await press(pilot, "ctrl+t")
        assert len(app.chats.panes) == 1
        await say(pilot, "c")
        assert turns(app) == drawn(app) == ["a", "b", "c", "D"]
    with ChatStore(store_path) as store:
        assert [turn.content for turn in store.get(other.chat_id or 0)[1]] == ["a", "b"]


@pytest.mark.parametrize("size", [(24, 6), (40, 10), (30, 14), (80, 24)])
async def test_messages_and_the_list_leave_the_box_on_the_screen(scripted: Scripted, size: tuple[int, int]) -> None:
    app = scripted(["one"])
    async with app.run_test(size=size) as pilot:
        await settle(pilot)
        await say(pilot, "a")
        app.pane.say("word " * 200)
        await press(pilot, "/")
        assert app.screen.region.contains_region(box(app).region)
        assert box(app).region.height >= 1


async def test_what_is_written_on_an_earlier_line_is_not_lost_by_arrows(scripted: Scripted) -> None:
    app = scripted(["b"], ["d"])
    async with app.run_test(size=SIZE) as pilot:
        await settle(pilot)
        await say(pilot, "a")
        await say(pilot, "c")
        await press(pilot, *"half", "up", *"!", "up", "down")
        assert box(app).text == "c!"
        await press(pilot, "down")
        assert box(app).text == "half"
        await press(pilot, "ctrl+b", *"?", "up", *"?", "down")
        assert box(app).text == "c?"
        await press(pilot, "down", "ctrl+b", "up")
        assert box(app).text == "a?"
        await press(pilot, "escape")
        assert box(app).text == "half"
        await press(pilot, "ctrl+b")  # Esc has given it up
        assert box(app).text == "c"


async def test_a_prompt_that_is_not_drawn_is_written_anew(store_path: Path) -> None:
    with ChatStore(store_path) as store:
        chat = store.create("m")
        for number in range(SHOWN_TURNS):
            store.append(chat, Message("user", f"p{number}"))
            store.append(chat, Message("assistant", f"a{number}"))
    engine = ScriptedEngine(["one", " two"])
    hold = Hold(engine, before=1)
    app = quiet_app(lambda _: engine, store_path, resume=True)
    async with app.run_test(size=SIZE) as pilot:
        await settle(pilot)
        assert "p1" not in drawn(app)
        await press(pilot, *"/edit 2", "enter", *"!")
        await pilot.press("enter")
        assert await asyncio.to_thread(hold.reached.wait, 60)
        await pilot.pause()
        assert drawn(app) == ["p0", "a0", "p1!", "one"]
        hold.go_on.set()
        await settle(pilot)
        assert drawn(app) == turns(app) == ["p0", "a0", "p1!", "one two"]
