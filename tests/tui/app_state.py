"""What tests ask of a running app."""

import threading
from pathlib import Path

from localinfer.chats.store import ChatStore
from localinfer.tui.app import ChatApp
from localinfer.tui.widgets.answer import Answer, TintedAnswer
from localinfer.tui.widgets.prompt_box import PromptBox
from localinfer.tui.widgets.status import Status, StatusLine
from localinfer.tui.widgets.transcript import Mark, Prompt
from tests.tui.scripted import ScriptedEngine


class Hold:
    """Stops a scripted engine before one piece, until the test goes on."""

    def __init__(self, engine: ScriptedEngine, before: int) -> None:
        self.reached, self.go_on = threading.Event(), threading.Event()
        self._before = before
        engine.before_piece = self._wait

    def _wait(self, index: int) -> None:
        if index == self._before:
            self.reached.set()
            assert self.go_on.wait(60)


def turns(app: ChatApp) -> list[str]:
    return [turn.content for turn in app.pane.session.turns]


def saved(path: Path) -> list[list[str]]:
    with ChatStore(path) as store:
        return [[turn.content for turn in store.get(chat.id)[1]] for chat in store.list()]


def box(app: ChatApp) -> PromptBox:
    return app.query_one(PromptBox)


def status(app: ChatApp) -> Status:
    return app.query_one(StatusLine).status


def toasts(app: ChatApp) -> list[str]:
    return [notification.message for notification in app._notifications]


def drawn(app: ChatApp) -> list[str]:
    """Prompts and answers as they are on the screen, from the top."""
    shown = []
    for item in app.pane.transcript.items:
        if isinstance(item, Prompt):
            shown.append(item.said)
        elif isinstance(item, Answer | TintedAnswer):
            shown.append(item.source)
    return shown


def marks(app: ChatApp) -> list[str]:
    """What stands under messages."""
    return [str(mark.content) for mark in app.pane.transcript.query(Mark)]


def said(app: ChatApp) -> str:
    """The line above the box."""
    return app.pane.message.text
