"""Many panes: split, closed, zoomed, focused and moved; forked, sent to all, compared; marked when done."""

from collections.abc import Callable
from pathlib import Path

import pytest

from localinfer.chats.store import ChatStore
from localinfer.engine.protocol import Engine
from localinfer.errors import NotFound
from localinfer.tui.app import ChatApp
from localinfer.tui.screens.compare import CompareScreen
from localinfer.tui.widgets.title import TitleLine
from localinfer.tui.widgets.total import TotalLine
from localinfer.tui.workers import LoadProgress
from tests.tui.app_state import Hold, said, saved, toasts
from tests.tui.conftest import press, say, screen_text, settle, still_app
from tests.tui.scripted import ScriptedEngine

Scripted = Callable[..., ChatApp]
SIZE = (120, 40)


def here(app: ChatApp) -> int:
    """The place of the pane that is written in, from 1."""
    return app.chats.panes.index(app.pane) + 1


def texts(app: ChatApp) -> list[list[str]]:
    return [[turn.content for turn in pane.session.turns] for pane in app.chats.panes]


async def test_split_go_close(scripted: Scripted, store_path: Path) -> None:
    app = scripted(["one"], ["two"], ["three"])
    async with app.run_test(size=SIZE) as pilot:
        await settle(pilot)
        await say(pilot, "a")
        await press(pilot, "f5")
        await say(pilot, "b")
        await press(pilot, "f6")
        await say(pilot, "c")
        assert texts(app) == [["a", "one"], ["b", "two"], ["c", "three"]]
        assert here(app) == 3
        await press(pilot, "alt+up")
        assert here(app) == 2
        await press(pilot, "alt+left")
        assert here(app) == 1
        await press(pilot, "shift+tab")
        assert here(app) == 3
        await press(pilot, "tab")
        assert here(app) == 1
        await press(pilot, "alt+shift+right")
        assert texts(app)[0] != ["a", "one"]
        assert app.pane.session.turns[0].content == "a"
        await press(pilot, "f10")
        assert sorted(texts(app)) == [["b", "two"], ["c", "three"]]
        await press(pilot, "f10", "f10")
        assert len(app.chats.panes) == 1
        assert "only pane" in said(app)
    assert sorted(saved(store_path)) == [["a", "one"], ["b", "two"], ["c", "three"]]


async def test_by_mouse(scripted: Scripted) -> None:
    app = scripted()
    async with app.run_test(size=SIZE) as pilot:
        await settle(pilot)
        width = app.pane.size.width
        await pilot.click(TitleLine, offset=(width - 3, 0))  # the only button of a single pane: +
        await settle(pilot)
        assert len(app.chats.panes) == 2
        first, second = app.chats.panes
        await pilot.click(first, offset=(5, 8))
        assert app.pane is first
        await pilot.mouse_down(first.title_line, offset=(3, 0))
        await pilot.mouse_up(second, offset=(5, 10))
        await settle(pilot)
        assert list(app.chats.panes) == [second, first]
        await pilot.click(first.title_line, offset=(first.size.width - 6, 0))  # □
        await settle(pilot)
        assert not second.display
        assert first.display
        await pilot.click(first.title_line, offset=(first.size.width - 3, 0))  # ×
        await settle(pilot)
        assert list(app.chats.panes) == [second]
        assert second.display


async def test_zoom_keeps_the_others_going(scripted: Scripted) -> None:
    engine = ScriptedEngine(["one ", "two"])
    hold = Hold(engine, 1)
    app = scripted(engine=engine)
    async with app.run_test(size=SIZE) as pilot:
        await settle(pilot)
        await pilot.press(*"a", "enter")
        await pilot.pause(0.1)
        assert hold.reached.wait(60)
        await pilot.press("f5", "f4")
        await pilot.pause(0.1)
        assert [pane.display for pane in app.chats.panes] == [False, True]
        hold.go_on.set()
        await settle(pilot)
        await press(pilot, "f4")
        assert [pane.title_line.done for pane in app.chats.panes] == [True, False]
        assert "✓" in screen_text(app)
        assert texts(app)[0] == ["a", "one two"]
        await press(pilot, "alt+left")
        assert not app.pane.title_line.done
        await press(pilot, "f4", "tab")  # goes on to the other one, which is alone then
        assert (app.pane, [pane.display for pane in app.chats.panes]) == (app.chats.panes[1], [False, True])
        await press(pilot, "shift+tab", "f4")
        assert app.pane is app.chats.panes[0]


async def test_no_room_is_said(scripted: Scripted) -> None:
    app = scripted()
    async with app.run_test(size=(80, 24)) as pilot:
        await settle(pilot)
        for _ in range(12):
            await press(pilot, "f5")
        assert len(app.chats.panes) > 4
        assert "no room" in said(app)
        assert all(pane.size.width >= 24 and pane.size.height >= 6 for pane in app.chats.panes)


async def test_fork_shares_the_past_only(scripted: Scripted, store_path: Path) -> None:
    engine = ScriptedEngine(["one"], ["left"], ["right"])
    app = scripted(engine=engine)
    async with app.run_test(size=SIZE) as pilot:
        await settle(pilot)
        await say(pilot, "a")
        await press(pilot, "ctrl+t")
        await say(pilot, "b")
        await press(pilot, "alt+left")
        await say(pilot, "c")
        assert texts(app) == [["a", "one", "c", "right"], ["a", "one", "b", "left"]]
    prompts = [engine.tokenizer.decode(request.prompt) for request in engine.requests]
    assert prompts[1:] == ["<user>a<assistant>one<user>b", "<user>a<assistant>one<user>c"]
    assert sorted(saved(store_path)) == [["a", "one", "b", "left"], ["a", "one", "c", "right"]]


async def test_one_prompt_for_all_and_the_comparison(scripted: Scripted) -> None:
    app = scripted(["the same words here"], ["the same words there"])
    async with app.run_test(size=SIZE) as pilot:
        await settle(pilot)
        await press(pilot, "f5", "f8")
        await say(pilot, "why?")
        assert [turns[0] for turns in texts(app)] == ["why?", "why?"]
        assert sorted(turns[1] for turns in texts(app)) == ["the same words here", "the same words there"]
        assert "sent to 2 of 2" in said(app)
        assert app.chats.query_one(TotalLine).total.broadcast
        await press(pilot, "f7")
        assert isinstance(app.screen, CompareScreen)
        shown = screen_text(app)
        assert "why?" in shown
        assert "3 words" in shown
        assert "this one" in shown
        await press(pilot, "escape", "f8")
        await say(pilot, "only here")
        assert sorted(len(turns) for turns in texts(app)) == [2, 2]  # no script is left, so nothing was said
        assert sum("answered nothing" in str(note) for note in toasts(app)) == 0


async def test_the_engine_knows_who_is_looked_at(scripted: Scripted) -> None:
    engine = ScriptedEngine(["one ", "two"])
    hold = Hold(engine, 1)
    app = scripted(engine=engine)
    async with app.run_test(size=SIZE) as pilot:
        await settle(pilot)
        await pilot.press(*"a", "enter")
        await pilot.pause(0.1)
        assert hold.reached.wait(60)
        await pilot.pause(0.1)
        assert list(engine.focused) == [1]
        await pilot.press("f5")
        await pilot.pause(0.1)
        assert list(engine.focused) == []
        await pilot.press("alt+left")
        await pilot.pause(0.1)
        assert list(engine.focused) == [1]
        hold.go_on.set()
        await settle(pilot)


def several(store: Path, engines: dict[str, ScriptedEngine], *models: str) -> tuple[ChatApp, list[str]]:
    """An app for these models, and the names that were opened."""
    opened: list[str] = []

    def open_model(ref: str, _progress: LoadProgress) -> Engine:
        opened.append(ref)
        if ref not in engines:
            raise NotFound(f"there is no model `{ref}`", hint=f"run `localinfer pull {ref}`")
        return engines[ref]

    def name_of(ref: str) -> str:
        return ref.removeprefix("also-")

    return still_app(open_model, store, *models, installed=lambda: [*engines], name_of=name_of), opened


async def test_another_name_of_a_model_is_the_same_engine(store_path: Path) -> None:
    app, opened = several(store_path, {"a": ScriptedEngine(["from a"])}, "a", "a")
    async with app.run_test(size=SIZE) as pilot:
        await settle(pilot)
        await say(pilot, "/model also-a")
        await say(pilot, "x")
        assert texts(app) == [["x", "from a"], []]
        assert opened == ["a"]
        assert app.pane.session.model == "a"


async def test_what_is_still_shown_is_not_said_again(store_path: Path) -> None:
    app, _ = several(store_path, {"a": ScriptedEngine(["from a"])}, "a")
    async with app.run_test(size=SIZE) as pilot:
        await settle(pilot)
        for _ in range(3):
            app.notify("once")
        await pilot.pause()
        assert toasts(app) == ["once"]


async def test_several_models_and_each_is_opened_once(store_path: Path) -> None:
    engines = {"a": ScriptedEngine(["from a"]), "b": ScriptedEngine(["from b"])}
    app, opened = several(store_path, engines, "a", "b", "a")
    async with app.run_test(size=SIZE) as pilot:
        await settle(pilot)
        assert sorted(opened) == ["a", "b"]
        await press(pilot, "alt+right")
        await say(pilot, "x")
        assert texts(app) == [[], ["x", "from b"], []]
        await press(pilot, "f10")
        assert engines["b"].closed  # nobody wants it any more
        await press(pilot, "alt+left", "f10")
        assert not engines["a"].closed


async def test_another_model_takes_over(store_path: Path) -> None:
    engines = {"a": ScriptedEngine(["from a"]), "b": ScriptedEngine(["from b"])}
    app, opened = several(store_path, engines, "a")
    async with app.run_test(size=SIZE) as pilot:
        await settle(pilot)
        await say(pilot, "x")
        await say(pilot, "/model c")
        assert "there is no model `c`" in screen_text(app)
        assert app.pane.status.phase == "ready"
        await pilot.press(*"/model b")
        assert "/model b" in screen_text(app)
        await press(pilot, "enter")
        await say(pilot, "y")
        assert texts(app) == [["x", "from a", "y", "from b"]]
        assert engines["a"].closed
        assert opened == ["a", "c", "b"]
    with ChatStore(store_path) as store:
        assert store.list()[0].model == "b"
    assert engines["b"].tokenizer.decode(engines["b"].requests[0].prompt) == "<user>x<assistant>from a<user>y"


async def test_a_pane_closed_while_its_model_loads(store_path: Path) -> None:
    engine = ScriptedEngine(["x"])
    app, _ = several(store_path, {"a": ScriptedEngine(), "b": engine}, "a", "b")
    async with app.run_test(size=SIZE) as pilot:
        await pilot.press("alt+right", "f10")
        await settle(pilot)
        assert len(app.chats.panes) == 1
        assert engine.closed


@pytest.mark.parametrize("size", [(80, 24), (20, 5), (200, 60)])
async def test_resizing_with_panes(scripted: Scripted, size: tuple[int, int]) -> None:
    app = scripted(["x"])
    async with app.run_test(size=SIZE) as pilot:
        await settle(pilot)
        await press(pilot, "f5", "f6", "f5")
        await pilot.resize_terminal(*size)
        await pilot.pause()
        await pilot.resize_terminal(*SIZE)
        await say(pilot, "still here")
        assert app.pane.session.turns[0].content == "still here"
