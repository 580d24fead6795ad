"""A running app for tests: a scripted engine, a stopped clock, golden pictures."""

import re
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from textual.app import App
from textual.pilot import Pilot

from localinfer.chats.store import ChatStore
from localinfer.errors import LocalInferError
from localinfer.tui.app import ChatApp, make_app
from tests.tui.scripted import ScriptedEngine

Script = Sequence[str | LocalInferError]


@pytest.fixture
def store_path(tmp_path: Path) -> Path:
    return tmp_path / "chats.sqlite3"


@pytest.fixture
def scripted(store_path: Path) -> Callable[..., ChatApp]:
    """`scripted(["first ", "answer"], ["second"])`: an app whose engine says these."""

    def make(*scripts: Script, engine: ScriptedEngine | None = None, resume: bool | int = False) -> ChatApp:
        opened = engine or ScriptedEngine(*scripts)
        return make_app(
            lambda _progress: opened,
            model="SmolLM2-135M-Instruct:INT4",
            store=ChatStore(store_path),
            resume=resume,
            clock=lambda: 0.0,
            animate=False,
        )

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
    await pilot.app.workers.wait_for_complete()
    for _ in range(3):
        await pilot.pause()


async def say(pilot: Pilot[None], text: str) -> None:
    """Type a prompt, send it and wait for the whole answer."""
    await pilot.press(*text, "enter")
    await settle(pilot)
