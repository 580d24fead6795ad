"""What runs in threads: opening the engine, and letting it answer. Here things are posted, never painted."""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from textual.message import Message

from localinfer.chats.session import ChatSession
from localinfer.errors import LocalInferError, explained
from localinfer.events import Event
from localinfer.tui.messages import Loaded, LoadFailed, LoadMoved
from localinfer.tui.reply import Asked, Inbox, Over

if TYPE_CHECKING:
    from localinfer.engine.protocol import Engine

LoadProgress = Callable[[str, int, int], None]
"""`progress(stage, done, total)`, called while an engine is opened."""

OpenEngine = Callable[[LoadProgress], "Engine"]
Post = Callable[[Message], bool]
"""Gives a message to the screen, from any thread; False if there is no screen any more."""

Ask = Callable[[], bool]


class Leaving(KeyboardInterrupt):
    """The user quits while the model loads; raised where progress is reported, to stop the loading."""


def load(model: str, open_engine: OpenEngine, post: Post, leaving: Ask) -> None:
    """Open the engine of `model`, telling each new percent."""
    seen = ("", -1)

    def moved(stage: str, done: int, total: int) -> None:
        nonlocal seen
        if leaving():
            raise Leaving
        now = (stage, 100 * done // total if total else -1)
        if now != seen:
            seen = now
            post(LoadMoved(model, stage, done, total))

    try:
        engine = open_engine(moved)
    except Leaving:
        return
    except Exception as error:
        post(LoadFailed(model, explained(error)))
        return
    if not post(Loaded(model, engine)):
        engine.close()


def answer(session: ChatSession, asked: Asked, inbox: Inbox, cancelled: Ask) -> None:
    """Answer what is asked; the last event is always `Over`."""
    error: LocalInferError | None = None
    try:
        for event in _events(session, asked, cancelled):
            inbox.put(event)
    except Exception as unexpected:
        error = explained(unexpected)
    inbox.put(Over(error))


def _events(session: ChatSession, asked: Asked, cancelled: Ask) -> Iterator[Event]:
    if asked.goes_on:
        return session.go_on(cancelled=cancelled)
    if asked.prompt is None:
        return session.regenerate(cancelled=cancelled)
    if asked.place is not None:
        return session.edit(asked.place, asked.prompt, cancelled=cancelled)
    return session.reply(asked.prompt, cancelled=cancelled)
