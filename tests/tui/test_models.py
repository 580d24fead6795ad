"""Another model for a chat: opened first, taken only when it is there."""

import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from localinfer.chats.session import ChatSession
from localinfer.chats.store import ChatStore
from localinfer.engine.protocol import Engine
from localinfer.errors import DoesNotFit, LocalInferError, NotFound
from localinfer.tui.app import ChatApp
from localinfer.tui.workers import LoadProgress
from tests.tui.app_state import box, drawn, said, status, turns
from tests.tui.conftest import say, screen_text, settle, still, still_app
from tests.tui.scripted import ScriptedEngine


class Shop:
    """Opens the models it has; keeps what it opened, in order. `room`: so many at once."""

    def __init__(self, *names: str, room: int = 9) -> None:
        self.names = names
        self.room = room
        self.opened: list[tuple[str, ScriptedEngine]] = []
        self.wait = threading.Event()
        self.wait.set()

    def open(self, ref: str, progress: LoadProgress) -> Engine:
        progress("weights", 1, 2)
        assert self.wait.wait(60)
        if ref not in self.names:
            raise NotFound(f"no model `{ref}`", hint=f"localinfer pull {ref}")
        if sum(not engine.closed for _, engine in self.opened) >= self.room:
            raise DoesNotFit(f"`{ref}` needs more than is free", hint="close another one")
        engine = ScriptedEngine([f"{ref} says this"], [f"{ref} says that"], [f"{ref} says more"])
        self.opened.append((ref, engine))
        return engine

    def app(self, store: Path, *models: str, resume: bool = False) -> ChatApp:
        return still_app(self.open, store, *models, resume=resume, installed=lambda: list(self.names))


def stored(path: Path) -> list[str]:
    with ChatStore(path) as store:
        return [chat.model for chat in store.list()]


async def test_a_wrong_name_changes_nothing(store_path: Path) -> None:
    shop = Shop("a", "b")
    app = shop.app(store_path, "a")
    async with app.run_test(size=(100, 30)) as pilot:
        await settle(pilot)
        await say(pilot, "x")
        await say(pilot, "/model wrong")
        assert "no model `wrong`" in said(app)
        assert "a stays" in said(app)
        assert "a, b" in said(app)
        assert (app.pane.session.model, status(app).phase) == ("a", "ready")
        await say(pilot, "y")
        assert turns(app) == drawn(app) == ["x", "a says this", "y", "a says that"]
        assert [ref for ref, _ in shop.opened] == ["a"]
        assert not shop.opened[0][1].closed
    assert stored(store_path) == ["a"]


async def test_the_old_one_goes_when_the_new_one_is_there(store_path: Path) -> None:
    shop = Shop("a", "b")
    app = shop.app(store_path, "a")
    async with app.run_test(size=(100, 30)) as pilot:
        await settle(pilot)
        await say(pilot, "x")
        shop.wait.clear()
        await pilot.press(*"/model b", "enter")
        await pilot.pause(0.2)
        assert status(app).phase_text == "loading weights 50%"
        assert app.pane.session.model == "a"
        await pilot.press(*"y", "enter")  # waits for the one that was asked for
        await pilot.press("ctrl+r")
        await pilot.pause(0.1)
        assert stored(store_path) == ["a"]
        shop.wait.set()
        await settle(pilot)
        assert turns(app) == drawn(app) == ["x", "a says this", "y", "b says this"]
        assert [engine.closed for _, engine in shop.opened] == [True, False]
    assert stored(store_path) == ["b"]
    with ChatStore(store_path) as store:
        assert [turn.model for turn in store.get(1)[1][1::2]] == ["a", "b"]


async def test_what_waited_for_a_model_that_fails_comes_back(store_path: Path) -> None:
    shop = Shop("a")
    app = shop.app(store_path, "a")
    async with app.run_test(size=(100, 30)) as pilot:
        await settle(pilot)
        shop.wait.clear()
        await pilot.press(*"/model wrong", "enter", *"y", "enter")
        await pilot.pause(0.1)
        assert drawn(app) == ["y"]
        shop.wait.set()
        await settle(pilot)
        assert (drawn(app), box(app).text) == ([], "y")
        await pilot.press("enter")
        await settle(pilot)
        assert turns(app) == ["y", "a says this"]


async def test_two_that_do_not_fit_together_take_turns(store_path: Path) -> None:
    shop = Shop("a", "b", room=1)
    app = shop.app(store_path, "a")
    async with app.run_test(size=(100, 30)) as pilot:
        await settle(pilot)
        await say(pilot, "x")
        await say(pilot, "/model b")
        await say(pilot, "y")
        assert turns(app) == ["x", "a says this", "y", "b says this"]
        assert [(ref, engine.closed) for ref, engine in shop.opened] == [("a", True), ("b", False)]


async def test_one_that_fits_nowhere_brings_the_old_one_back(store_path: Path) -> None:
    shop = Shop("a", "b", room=1)
    opened, failed = shop.open, 0

    def huge(ref: str, progress: LoadProgress) -> Engine:
        nonlocal failed
        if ref == "b":
            failed += 1
            raise DoesNotFit("`b` needs 900 GB", hint="take a smaller one")
        return opened(ref, progress)

    shop.open = huge  # type: ignore[method-assign]
    app = shop.app(store_path, "a")
    async with app.run_test(size=(100, 30)) as pilot:
        await settle(pilot)
        await say(pilot, "x")
        await say(pilot, "/model b")
        assert "900 GB" in said(app)
        assert (app.pane.session.model, status(app).phase, failed) == ("a", "ready", 2)
        await say(pilot, "y")
        assert turns(app) == ["x", "a says this", "y", "a says this"]
    assert stored(store_path) == ["a"]


async def test_an_engine_that_others_use_is_not_closed_to_make_room(store_path: Path) -> None:
    shop = Shop("a", "b", room=1)
    app = shop.app(store_path, "a", "a")
    async with app.run_test(size=(120, 30)) as pilot:
        await settle(pilot)
        await say(pilot, "/model b")
        assert "needs more than is free" in said(app)
        assert [engine.closed for _, engine in shop.opened] == [False]
        await say(pilot, "x")
        assert turns(app) == ["x", "a says this"]


async def test_a_second_wish_takes_the_place_of_the_first(store_path: Path) -> None:
    shop = Shop("a", "b", "c")
    app = shop.app(store_path, "a")
    async with app.run_test(size=(100, 30)) as pilot:
        await settle(pilot)
        shop.wait.clear()
        await pilot.press(*"/model b", "enter")
        await pilot.pause(0.1)
        await pilot.press(*"/model c", "enter")
        await pilot.pause(0.1)
        shop.wait.set()
        await settle(pilot)
        assert app.pane.session.model == "c"
        assert {ref for ref, engine in shop.opened if not engine.closed} == {"c"}


async def test_the_present_model_may_be_wished_back(store_path: Path) -> None:
    shop = Shop("a", "b")
    app = shop.app(store_path, "a")
    async with app.run_test(size=(100, 30)) as pilot:
        await settle(pilot)
        shop.wait.clear()
        await pilot.press(*"/model b", "enter")
        await pilot.pause(0.1)
        await pilot.press(*"/model a", "enter")
        await pilot.pause(0.1)
        assert status(app).phase == "ready"
        await pilot.press("x", "enter")
        await still(pilot)  # while the other model is still being opened
        assert turns(app) == ["x", "a says this"]
        shop.wait.set()
        await settle(pilot)
        assert app.pane.session.model == "a"
        assert turns(app) == ["x", "a says this"]
        assert {ref for ref, engine in shop.opened if not engine.closed} == {"a"}


@pytest.mark.parametrize("unsent", ["", "half a thought"])
async def test_a_chat_whose_model_is_gone_can_be_read(store_path: Path, unsent: str) -> None:
    chat = ChatSession(ChatStore(store_path), model="gone")
    chat.attach(ScriptedEngine(["blue"]))
    list(chat.reply("why?", cancelled=lambda: False))
    chat.close()
    shop = Shop("a", "b")
    app = shop.app(store_path, "gone", resume=True)
    async with app.run_test(size=(100, 30)) as pilot:
        box(app).load_text(unsent)
        await settle(pilot)
        assert drawn(app) == ["why?", "blue"]
        assert "no model `gone`" in said(app)
        assert "a, b" in said(app)
        assert box(app).text == (unsent or "/model ")
        box(app).load_text("half a thought")
        await pilot.press("enter")
        await settle(pilot)
        assert "a, b" in said(app)
        assert box(app).text == "half a thought"
        box(app).load_text("/model ")
        await pilot.press("down", "enter")  # the first of those that are here
        await settle(pilot)
        await say(pilot, "more")
        assert turns(app) == drawn(app) == ["why?", "blue", "more", "a says this"]
    assert app.return_code in (0, None)
    assert stored(store_path) == ["a"]


async def test_an_unexpected_error_is_told_too(store_path: Path) -> None:
    shop = Shop("a")
    opened: Callable[[str, LoadProgress], Engine] = shop.open

    def odd(ref: str, progress: LoadProgress) -> Engine:
        if ref == "odd":
            raise LocalInferError("it is \x1b[31m broken", hint="mend it")
        return opened(ref, progress)

    shop.open = odd  # type: ignore[method-assign]
    app = shop.app(store_path, "a")
    async with app.run_test(size=(100, 30)) as pilot:
        await settle(pilot)
        await say(pilot, "/model odd")
        assert "\x1b" not in said(app)
        assert "broken" in said(app)


async def test_models_that_differ_in_width_only_can_be_told_apart_in_a_narrow_pane(store_path: Path) -> None:
    names = [f"HuggingFaceTB/SmolLM2-135M-Instruct:{width}" for width in ("BF16", "INT8")]
    shop = Shop(*names)
    app = shop.app(store_path, names[0])
    async with app.run_test(size=(40, 30)) as pilot:
        await settle(pilot)
        await pilot.press(*"/model ")
        await still(pilot)
        seen = screen_text(app)
        assert all(f"/model SmolLM2-135M-Instruct:{width}" in seen for width in ("BF16", "INT8"))
        assert "/model HuggingFaceTB/SmolLM…:BF16" in seen  # the rest of the line in the box
        await pilot.press("tab")
        assert box(app).text == f"/model {names[0]}"
        await pilot.resize_terminal(80, 30)
        await still(pilot)
        assert f"/model {names[0]}" in screen_text(app)
