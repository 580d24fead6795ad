"""Where panes stand and how they are named: numbers that stay, borders that move, titles that are there."""

from collections.abc import Callable
from pathlib import Path

import pytest
from textual import events

from localinfer.chats.store import ChatStore
from localinfer.chats.template import Message
from localinfer.engine.protocol import Engine
from localinfer.tui.app import ChatApp
from localinfer.tui.screens.resize import ResizeScreen
from localinfer.tui.widgets.figures import Figures
from localinfer.tui.widgets.grid import PaneGrid
from localinfer.tui.workers import LoadProgress
from tests.tui.app_state import said
from tests.tui.conftest import press, say, screen_text, settle, still_app
from tests.tui.scripted import ScriptedEngine

Scripted = Callable[..., ChatApp]
SIZE = (120, 40)


def labels(app: ChatApp) -> list[int]:
    return [pane.label for pane in app.chats.panes]


def widths(app: ChatApp) -> list[int]:
    return [pane.region.width for pane in app.chats.panes]


def shows_keys(app: ChatApp) -> bool:
    return isinstance(app.screen, ResizeScreen)


async def test_numbers_stay_when_a_pane_is_split(scripted: Scripted) -> None:
    app = scripted()
    async with app.run_test(size=SIZE) as pilot:
        await settle(pilot)
        await press(pilot, "f5", "alt+left", "f5")
        assert labels(app) == [1, 3, 2]
        await press(pilot, "alt+right", "f10")
        assert labels(app) == [1, 3]
        await press(pilot, "f6")
        assert labels(app) == [1, 3, 2]
        assert [pane.title_line.number for pane in app.chats.panes] == [1, 3, 2]
        await press(pilot, "f7")
        lines = screen_text(app).splitlines()
        rows = [line.split()[1] for line in lines if "SmolLM2-135M-Instruct:INT4" in line and "–" in line]
        assert rows == ["1", "3", "2"]


async def test_what_is_typed_right_after_the_key_goes_to_the_other_pane(scripted: Scripted) -> None:
    app = scripted()
    async with app.run_test(size=SIZE) as pilot:
        await settle(pilot)
        await press(pilot, "f5")
        for key, character in (("a", "a"), ("alt+left", None), ("b", "b"), ("alt+right", None), ("c", "c")):
            app.post_message(events.Key(key, character))  # as a terminal sends them, in one go
        await settle(pilot)
        assert [pane.box.text for pane in app.chats.panes] == ["b", "ac"]


async def test_seven_panes_all_have_a_title_and_a_box(scripted: Scripted) -> None:
    app = scripted()
    async with app.run_test(size=(100, 30)) as pilot:
        await settle(pilot)
        for key in ["f5", "f6"] * 3:
            await press(pilot, key)
        assert len(app.chats.panes) == 7
        for pane in app.chats.panes:
            assert pane.title_line.region.height == 1
            assert pane.box.region.height >= 1
            assert pane.transcript.region.height >= 1
        shown = screen_text(app)
        assert shown.count(":INT4") >= 7
        for label in range(1, 8):
            assert f"{label} SmolLM2" in shown


@pytest.mark.parametrize("size", [(40, 10), (40, 11), (30, 12), (40, 15), (24, 8)])
async def test_a_message_leaves_room_to_type_in_a_small_window(scripted: Scripted, size: tuple[int, int]) -> None:
    app = scripted()
    async with app.run_test(size=size) as pilot:
        await settle(pilot)
        await say(pilot, "/set temperature x")
        app.pane.box.load_text("")
        await press(pilot, *"typed", "f5" if size[0] < 40 else "ctrl+c")
        shown = screen_text(app)
        assert "typed" in shown
        assert said(app)
        assert said(app).split()[0] in shown


async def test_resized_by_keys_and_balanced(scripted: Scripted) -> None:
    app = scripted()
    async with app.run_test(size=(122, 40)) as pilot:
        await settle(pilot)
        await press(pilot, "ctrl+o")
        assert "only pane" in said(app)
        await press(pilot, "f5", "alt+left", "f5")
        assert widths(app) == [40, 40, 40]
        await press(pilot, "alt+left", "ctrl+o")
        assert shows_keys(app)
        assert "all equal" in screen_text(app)
        await press(pilot, "right", "right")
        assert widths(app) == [48, 32, 40]
        await press(pilot, *["right"] * 9)
        assert widths(app) == [56, 24, 40]  # no narrower than can be read
        await press(pilot, "equals_sign", "enter")
        assert not shows_keys(app)
        assert widths(app) == [40, 40, 40]
        await press(pilot, "ctrl+o", "left", "escape")
        assert widths(app) == [36, 44, 40]
        await pilot.press(*"/balance", "enter")
        await settle(pilot)
        assert widths(app) == [40, 40, 40]


async def test_the_border_is_dragged(scripted: Scripted) -> None:
    app = scripted()
    async with app.run_test(size=(121, 41)) as pilot:
        await settle(pilot)
        await press(pilot, "f5", "f6")
        left, above, below = app.chats.panes
        assert (left.region.width, above.region.height) == (60, 20)
        await pilot.mouse_down(PaneGrid, offset=(60, 5))
        await pilot.hover(PaneGrid, offset=(80, 7))
        await settle(pilot)
        assert left.region.width == 80
        await pilot.mouse_up(PaneGrid, offset=(80, 7))
        await pilot.hover(PaneGrid, offset=(40, 7))
        await settle(pilot)
        assert left.region.width == 80  # nothing is held any more
        await pilot.mouse_down(PaneGrid, offset=(100, 19))  # the line between the two
        await pilot.hover(PaneGrid, offset=(100, 10))
        await pilot.mouse_up(PaneGrid, offset=(100, 10))
        await settle(pilot)
        assert (above.region.height, below.region.height) == (11, 29)
        await pilot.resize_terminal(61, 21)
        await settle(pilot)
        assert left.region.width == 36  # 24 is the least for the others


def two_widths(store: Path) -> ChatApp:
    def opened(ref: str, _progress: LoadProgress) -> Engine:
        engine = ScriptedEngine(["The answer."])
        object.__setattr__(engine.info, "bits", ref.rpartition(":")[2])
        return engine

    models = [f"HuggingFaceTB/SmolLM2-135M-Instruct-with-a-long-name:{bits}" for bits in ("INT4", "INT8")]
    return still_app(opened, store, *models)


@pytest.mark.parametrize("size", [(80, 24), (120, 40), (60, 20)])
async def test_int4_and_int8_differ_in_titles_details_and_comparison(store_path: Path, size: tuple[int, int]) -> None:
    app = two_widths(store_path)
    async with app.run_test(size=size) as pilot:
        await settle(pilot)
        await press(pilot, "f8")
        await say(pilot, "Why?")
        titles = screen_text(app).splitlines()[0]
        assert ":INT4" in titles
        assert ":INT8" in titles
        await press(pilot, "f7")
        assert _widths_named(app) == {"INT4", "INT8"}
        await press(pilot, "escape", "f3")
        assert _widths_named(app) == {"INT4", "INT8"}


def _widths_named(app: ChatApp) -> set[str]:
    rows = str(app.screen.query_one(Figures).content)
    return {bits for bits in ("INT4", "INT8") if f":{bits}" in rows}


async def test_a_resumed_chat_and_a_fork_show_their_context_at_once(store_path: Path) -> None:
    said = "<user>How are you?<assistant>Fine."
    with ChatStore(store_path) as store:
        chat = store.create("m")
        for role, text in (("user", "How are you?"), ("assistant", "Fine.")):
            store.append(chat, Message(role, text))  # type: ignore[arg-type]
    app = still_app(lambda _ref, _progress: ScriptedEngine(["More."]), store_path, "m", resume=True)
    async with app.run_test(size=SIZE) as pilot:
        await settle(pilot)
        assert app.pane.status.context_used == len(said)
        assert f"context {len(said)}/512" in screen_text(app)
        await press(pilot, "ctrl+t")
        assert app.pane.status.context_used == len(said)
        await say(pilot, "On?")
        assert f"context {len(said + '<user>On?') + 1}/512" in screen_text(app)  # the script says one token
        await press(pilot, "ctrl+n")
        assert app.pane.status.details == []


async def test_a_template_that_fails_costs_the_count_only(store_path: Path) -> None:
    with ChatStore(store_path) as store:
        store.append(store.create("m"), Message("user", "a"))
        store.append(1, Message("assistant", "b"))
    engine = ScriptedEngine()
    engine.chat_template = "{% endif %}"
    app = still_app(lambda _ref, _progress: engine, store_path, "m", resume=True)
    async with app.run_test(size=SIZE) as pilot:
        await settle(pilot)
        assert app.pane.status.phase_text == "ready"
        assert app.pane.status.context_used is None
