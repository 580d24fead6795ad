"""How the chat app was left: its theme, its panes and where they stand, and prompts that were not sent.

A small private file beside the chats. What is wrong with it costs the layout, never the chats.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from localinfer.errors import LocalInferError
from localinfer.formats.durable import write_failed, write_json
from localinfer.formats.json_files import read_object

LIMIT = 64 << 20
"""Most bytes that are read."""

MOST_PANES = 16
MOST_UNSENT = 200
"""Chats whose unsent prompts are kept, the newest ones."""

MOST_CHARACTERS = 16_000_000
"""Of one unsent prompt: as much as one paste may have."""


@dataclass(frozen=True, slots=True)
class PaneState:
    """One pane. `chat_id` is None for a chat in which nothing was said."""

    model: str
    chat_id: int | None = None
    unsent: str = ""


@dataclass(frozen=True, slots=True)
class ScreenState:
    """All of it. `tree` is the plain form of a tiling whose leaves are places in `panes`."""

    theme: str = ""
    panes: tuple[PaneState, ...] = ()
    tree: Any = None
    focused: int = 0
    """The place of the pane that was written in."""
    unsent: Mapping[int, str] = field(default_factory=dict)
    """By chat, of chats that were in no pane; 0 stands for those in which nothing was said."""

    def shows(self, chat_id: int) -> bool:
        """Is this chat in one of the panes?"""
        return any(pane.chat_id == chat_id for pane in self.panes)


def read(path: Path) -> ScreenState:
    """What `path` says; an empty screen where it says nothing that can be used."""
    try:
        found = read_object(path, LIMIT)
    except LocalInferError:
        return ScreenState()
    panes = tuple(_panes(found.get("panes")))
    focused = found.get("here")
    return ScreenState(
        theme=_text(found.get("theme"), 100),
        panes=panes,
        tree=found.get("tree"),
        focused=focused if type(focused) is int and 0 <= focused < len(panes) else 0,
        unsent=_unsent(found.get("unsent")),
    )


def left(path: Path, chat_id: int, written: float) -> ScreenState | None:
    """The screen to come back to where `chat_id` is the chat that was written to last, at `written` seconds since 1970:
    it shows that chat, or was left later with another one on it. None if there is no such."""
    screen = read(path)
    if screen.shows(chat_id):
        return screen
    has_chats = any(pane.chat_id is not None for pane in screen.panes)
    return screen if has_chats and path.stat().st_mtime >= written else None


def write(path: Path, screen: ScreenState) -> None:
    """Keep `screen`. Raises `LocalInferError` where that cannot be done."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise write_failed(path, 0, error) from error
    write_json(
        path,
        {
            "theme": screen.theme,
            "here": screen.focused,
            "panes": [
                {"model": one.model, "chat": one.chat_id, "unsent": _storable(one.unsent)} for one in screen.panes
            ],
            "tree": screen.tree,
            "unsent": {str(chat): _storable(text) for chat, text in list(screen.unsent.items())[-MOST_UNSENT:]},
        },
        private=True,
    )


def _panes(value: object) -> list[PaneState]:
    found = []
    for one in value[:MOST_PANES] if isinstance(value, list) else []:
        if not isinstance(one, dict) or not (model := _text(one.get("model"), 4096)):
            return []  # places in the tree would no longer be right
        chat = one.get("chat")
        number = chat if type(chat) is int and 0 < chat < 1 << 62 else None
        found.append(PaneState(model, number, _text(one.get("unsent"), MOST_CHARACTERS)))
    return found


def _unsent(value: object) -> dict[int, str]:
    if not isinstance(value, dict):
        return {}
    pairs = [(key, text) for key, text in value.items() if key.isascii() and key.isdigit() and len(key) < 19]
    texts = {int(key): _text(text, MOST_CHARACTERS) for key, text in pairs[-MOST_UNSENT:]}
    return {chat: text for chat, text in texts.items() if text}


def _text(value: object, most: int) -> str:
    return value if isinstance(value, str) and len(value) <= most else ""


def _storable(text: str) -> str:
    """Half a character cannot be written as UTF-8."""
    return text[:MOST_CHARACTERS].encode("utf-8", "replace").decode()
