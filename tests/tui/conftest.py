"""A running app for tests: a scripted engine, a stopped clock, golden pictures."""

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from textual.app import App
from textual.pilot import Pilot
from textual.widgets import TextArea

from localinfer.chats.store import ChatStore
from localinfer.errors import LocalInferError
from localinfer.tui.app import ChatApp, make_app
from localinfer.tui.engines import OpenModel
from localinfer.tui.workers import OpenEngine
from tests.tui.scripted import ScriptedEngine

Script = Sequence[str | LocalInferError]

TYPED = 8
"""Keys, at most, that `say` types one by one."""


@pytest.fixture
def store_path(tmp_path: Path) -> Path:
    return tmp_path / "chats.sqlite3"


def still_app(open_model: OpenModel, store: ChatStore | Path, *models: str, **more: Any) -> ChatApp:
    """An app for these models whose clock stands still, that moves nothing by itself and measures no energy."""
    quiet: dict[str, Any] = {"clock": lambda: 0.0, "start_meter": lambda: None, "animate": False, "tick_s": None}
    return make_app(open_model, models=models, store=store, **(quiet | more))


def quiet_app(open_engine: OpenEngine, store: ChatStore | Path, *models: str, **more: Any) -> ChatApp:
    """The same with one engine, whatever its models are called."""
    return still_app(lambda _ref, progress: open_engine(progress), store, *(models or ("m",)), **more)


@pytest.fixture
def scripted(store_path: Path) -> Callable[..., ChatApp]:
    """`scripted(["first ", "answer"], ["second"])`: an app whose engine says these."""

    def make(*scripts: Script, engine: ScriptedEngine | None = None, resume: bool | int = False) -> ChatApp:
        opened = engine or ScriptedEngine(*scripts)
        store = ChatStore(store_path)
        return quiet_app(lambda _progress: opened, store, "SmolLM2-135M-Instruct:INT4", resume=resume)

    return make


@pytest.fixture
def golden_svg(golden: Callable[[str, str], None]) -> Callable[[App[None], str], None]:
    """Compare the screen with `golden/<name>.svg`, without ids and fonts that change from run to run."""

    def check(app: App[None], name: str) -> None:
        svg = app.export_screenshot(title="localinfer")
        svg = re.sub(r"terminal-\d+", "terminal", svg)
        svg = re.sub(r"\s*@font-face\s*\{.*?\}", "", svg, flags=re.DOTALL)
        golden(f"{name}.svg", "\n".join(line.rstrip() for line in svg.splitlines()) + "\n")

    return check


def screen_text(app: App[None]) -> str:
    """What stands on the screen, line by line."""
    return "\n".join(strip.text.rstrip() for strip in app.screen._compositor.render_strips())


async def settle(pilot: Pilot[None]) -> None:
    """Wait until the threads are done and all is drawn."""
    for _ in range(3):  # a thread's last message may start another one
        await pilot.app.workers.wait_for_complete()
        await pilot.pause()
    await still(pilot)


async def still(pilot: Pilot[None]) -> None:
    """Wait until the screen stands still: an answer is drawn, and the layout moves no more."""
    before, same = "", 0
    while same < 3:
        await pilot.pause(0.02)
        now = screen_text(pilot.app)
        before, same = now, same + 1 if now == before else 0


async def press(pilot: Pilot[None], *keys: str) -> None:
    """Press these keys and wait for all that comes of them."""
    await pilot.press(*keys)
    await settle(pilot)


async def say(pilot: Pilot[None], text: str) -> None:
    """Type a prompt, send it and wait for the whole answer. The beginning of a long one is put in at once: every key
    waits until the screen has drawn it."""
    typed = 0
    if isinstance(field := pilot.app.focused, TextArea) and len(text) > TYPED:
        typed = len(text) - TYPED
        field.insert(text[:typed])
    await pilot.press(*text[typed:], "enter")
    await settle(pilot)
