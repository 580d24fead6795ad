"""What is kept from run to run: where panes stand, the theme, prompts that were not sent."""

import json
import stat
from pathlib import Path
from threading import Event

import pytest
from textual import events

from localinfer.chats.screen_state import PaneState, ScreenState, left, read, write
from localinfer.engine.protocol import Engine
from localinfer.tui.app import ChatApp
from localinfer.tui.workers import LoadProgress
from tests.tui.app_state import said
from tests.tui.conftest import press, quiet_app, say, settle, still
from tests.tui.scripted import ScriptedEngine

SIZE = (122, 40)


def run_again(store: Path, file: Path, *, models: tuple[str, ...] = ("m",), goes_on: bool = False) -> ChatApp:
    """The app as `localinfer chat`, or `localinfer chat --continue`, would open it."""
    layout = read(file) if goes_on else None
    return quiet_app(
        lambda _progress: ScriptedEngine(*[["answer"]] * 9),
        store,
        *([pane.model for pane in layout.panes] if layout else models),
        resume=goes_on,
        state_file=file,
        layout=layout,
    )


async def test_panes_come_back_where_they_stood_with_what_was_typed(store_path: Path, tmp_path: Path) -> None:
    file = tmp_path / "screen.json"
    app = run_again(store_path, file, models=("m", "other"))
    async with app.run_test(size=SIZE) as pilot:
        await settle(pilot)
        await say(pilot, "one")
        await press(pilot, "alt+right", "f6")
        await say(pilot, "three")
        await press(pilot, "alt+up", *"typed", "alt+left", "ctrl+o", "left", "left", "enter")
        await press(pilot, *"half a prompt")
        before = [(pane.session.model, pane.session.chat_id, pane.region, pane.box.text) for pane in app.chats.panes]
        sessions = [pane.session for pane in app.chats.panes]
        await pilot.press("ctrl+q")
    for session in sessions:
        session.close()  # as the end of the process does
    assert [text for _, _, _, text in before] == ["half a prompt", "typed", ""]
    assert stat.S_IMODE(file.stat().st_mode) == 0o600

    app = run_again(store_path, file, goes_on=True)
    async with app.run_test(size=SIZE) as pilot:
        await settle(pilot)
        after = [(pane.session.model, pane.session.chat_id, pane.region, pane.box.text) for pane in app.chats.panes]
        assert after == before
        assert app.pane is app.chats.panes[0]
        assert [pane.session.turns[0].content for pane in app.chats.panes if pane.session.turns] == ["one", "three"]
        await press(pilot, "enter")  # sent, so nothing is left of it
        await pilot.press("ctrl+q")
    assert [pane.unsent for pane in read(file).panes] == ["", "typed", ""]


async def test_a_new_run_gets_what_was_typed_in_no_chat(store_path: Path, tmp_path: Path) -> None:
    file = tmp_path / "screen.json"
    app = run_again(store_path, file)
    async with app.run_test(size=SIZE) as pilot:
        await settle(pilot)
        await say(pilot, "said")
        await press(pilot, *"of this chat", "f5", *"of none")
        await pilot.press("ctrl+q")
    app = run_again(store_path, file)
    async with app.run_test(size=SIZE) as pilot:
        await settle(pilot)
        assert [pane.box.text for pane in app.chats.panes] == ["of none"]
        await press(pilot, "f5")
        assert app.pane.box.text == ""
        await press(pilot, "f9", "enter")  # the chat that was said something in, with its own text
        assert app.pane.session.turns[0].content == "said"
        assert app.pane.box.text == "of this chat"
        await press(pilot, "f10")
        await pilot.press("ctrl+q")
    saved = read(file)
    assert ([pane.unsent for pane in saved.panes], dict(saved.unsent)) == (["of none"], {1: "of this chat"})


async def test_a_theme_that_was_chosen_is_taken_again(store_path: Path, tmp_path: Path) -> None:
    file = tmp_path / "screen.json"
    for chosen, begins_with in (("nord", "calm"), ("", "nord"), ("calm-light", "nord"), ("", "calm-light")):
        app = run_again(store_path, file)
        async with app.run_test(size=SIZE) as pilot:
            await settle(pilot)
            assert app.theme == begins_with
            if chosen:
                await pilot.press(*f"/theme {chosen}", "enter")
                await settle(pilot)
            await pilot.press("ctrl+q")
    write(file, ScreenState(theme="no such theme"))
    assert run_again(store_path, file).theme == "calm"


async def test_a_chat_that_was_deleted_is_begun_anew(store_path: Path, tmp_path: Path) -> None:
    file = tmp_path / "screen.json"
    write(file, ScreenState(panes=(PaneState("m", 77, "typed"), PaneState("m")), tree="nonsense", focused=1))
    app = run_again(store_path, file, goes_on=True)
    async with app.run_test(size=SIZE) as pilot:
        await settle(pilot)
        assert [pane.session.chat_id for pane in app.chats.panes] == [None, None]
        assert [pane.box.text for pane in app.chats.panes] == ["typed", ""]
        assert [pane.region.width for pane in app.chats.panes] == [61, 60]


async def test_two_runs_at_once_keep_each_others_texts(store_path: Path, tmp_path: Path) -> None:
    file = tmp_path / "screen.json"
    app = run_again(store_path, file)
    async with app.run_test(size=SIZE) as pilot:
        await settle(pilot)
        await say(pilot, "said")
        write(file, ScreenState(panes=(PaneState("m", 5, "theirs"),), unsent={6: "theirs too", 1: "ours, sent since"}))
        await press(pilot, *"mine")
        await pilot.press("ctrl+q")
    saved = read(file)
    assert saved.panes == (PaneState("m", 1, "mine"),)
    assert dict(saved.unsent) == {5: "theirs", 6: "theirs too"}


async def test_a_kill_costs_two_seconds_at_most(store_path: Path, tmp_path: Path) -> None:
    file = tmp_path / "screen.json"
    app = run_again(store_path, file)
    async with app.run_test(size=SIZE) as pilot:
        await settle(pilot)
        await press(pilot, *"typed")
        app.chats.keep_soon()  # as its timer does
        await settle(pilot)
        assert read(file).panes == (PaneState("m", None, "typed"),)


async def test_a_folder_that_cannot_be_made_is_told(store_path: Path, tmp_path: Path) -> None:
    file = tmp_path / "a file" / "screen.json"
    app = run_again(store_path, file)
    file.parent.write_text("no folder")
    async with app.run_test(size=SIZE) as pilot:
        await settle(pilot)
        app.chats.keep_soon()
        await settle(pilot)
        assert "not kept" in said(app)


def test_the_screen_to_come_back_to(tmp_path: Path) -> None:
    """It shows the chat that was written to last, or was left after that with another one on it."""
    file = tmp_path / "screen.json"
    assert left(file, 1, 0.0) is None
    write(file, ScreenState(panes=(PaneState("m", 1), PaneState("m"))))
    at = file.stat().st_mtime
    found = read(file)
    assert [left(file, chat, when) for chat, when in ((1, at + 9), (2, at - 9), (2, at + 9))] == [found, found, None]
    write(file, ScreenState(panes=(PaneState("m"),)))
    assert left(file, 2, at - 9) is None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{",
        "\0",
        '{"panes": 5, "theme": 7, "here": "x", "unsent": [], "tree": {}}',
        '{"panes": [{"model": "m", "chat": -1}], "here": 9, "unsent": {"x": "a", "1": 5, "-2": "b", "²": "c"}}',
        '{"panes": [{"model": ""}, {"model": "m"}]}',
        '{"panes": [{"model": 5}]}',
        json.dumps({"panes": [{"model": "m" * 5000}], "theme": "t" * 101}),
        json.dumps({"panes": [{"model": "m", "chat": True, "unsent": ["x"]}] * 99}),
    ],
)
def test_a_file_that_is_none_costs_the_layout_only(tmp_path: Path, text: str) -> None:
    file = tmp_path / "screen.json"
    file.write_text(text)
    saved = read(file)
    assert saved.theme == ""
    assert not saved.unsent
    assert len(saved.panes) <= 16
    assert all(pane == PaneState("m") for pane in saved.panes)
    assert saved.focused == 0


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    file = tmp_path / "new" / "screen.json"
    panes = (PaneState("a:INT4", 3, "x\n\u202e\ud800"), PaneState("b"))
    tree = {"across": True, "parts": [0, 1], "shares": [1.0, 2.0]}
    write(file, ScreenState("nord", panes, tree, 1, {i: f"text {i}" for i in range(300)}))
    saved = read(file)
    assert saved.panes == (PaneState("a:INT4", 3, "x\n\u202e?"), PaneState("b"))
    assert (saved.theme, saved.tree, saved.focused) == ("nord", tree, 1)
    assert list(saved.unsent) == list(range(100, 300))


async def test_a_prompt_that_waits_for_its_model_is_kept(store_path: Path, tmp_path: Path) -> None:
    file, go_on = tmp_path / "screen.json", Event()

    def opened(_progress: LoadProgress) -> Engine:
        assert go_on.wait(60)
        return ScriptedEngine()

    app = quiet_app(opened, store_path, state_file=file)
    async with app.run_test(size=SIZE) as pilot:
        await pilot.press(*"closed", "enter", "f5", *"sent", "enter", *"typed")
        await still(pilot)
        await app.chats.close(app.chats.panes[0])
        app.chats.keep()  # as every two seconds, or before the end
        go_on.set()
    assert [pane.unsent for pane in read(file).panes] == ["sent\n\ntyped"]
    assert list(read(file).unsent.values()) == ["closed"]


async def test_what_is_typed_right_before_the_end_is_kept(store_path: Path, tmp_path: Path) -> None:
    file, go_on = tmp_path / "screen.json", Event()

    def opened(_progress: LoadProgress) -> Engine:
        assert go_on.wait(60)
        return ScriptedEngine()

    app = quiet_app(opened, store_path, state_file=file)
    async with app.run_test(size=SIZE) as pilot:
        await pilot.pause()
        for key in (*"sent", "enter", *"typed", "ctrl+q"):
            app.post_message(events.Key(key, key if len(key) == 1 else None))
        await pilot.pause(0.5)
        go_on.set()
    assert [pane.unsent for pane in read(file).panes] == ["sent\n\ntyped"]
