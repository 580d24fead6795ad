"""What an empty chat shows: what answers, the last chats, and the keys to begin with."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from textual import events
from textual.content import Content
from textual.message import Message
from textual.style import Style
from textual.widget import Widget

from localinfer.chats.store import SavedChat
from localinfer.text import one_line

MOST = 5
"""Chats that are offered."""

WIDE = 50
"""On narrower pages a chat has no date."""

KEYS = (
    ("F5 F6", "split to the right, below"),
    ("F9", "earlier chats"),
    ("/", "commands"),
    ("F1", "all keys"),
)

Recent = Callable[[], Sequence[SavedChat]]


class Welcome(Widget):
    """As much as has room. A click on a chat opens it."""

    @dataclass
    class Chosen(Message):
        """This chat is to be opened."""

        chat: SavedChat

    def __init__(self, about: Callable[[int], Sequence[str]], recent: Recent) -> None:
        """`about` says in lines of so many cells which model answers and how large it is; `recent` gives the last
        chats, the latest first."""
        super().__init__()
        self._about = about
        self._recent = recent
        self._chats: Sequence[SavedChat] = ()

    def on_mount(self) -> None:
        self._chats = self._recent()[:MOST]

    def render(self) -> Content:
        width, height = self.size
        head = [Content.styled("Ask anything", "bold $primary")]
        about = [Content.styled(line, "$foreground 80%") for line in self._about(width)]
        gap = [Content("")]
        model = [*about, *_even([Content("It runs on this machine, and nothing leaves it.")], width)]
        chats, keys = _even(self._chat_lines(width), width), _even(_keys(), width)
        wanted = (
            [head, gap, model, gap, chats, gap, keys],
            [head, gap, model, gap, keys],
            [head, about, gap, keys],
            [head, gap, about],
            [head, about[:1]],
            [head],
        )
        pages = [[line for part in parts for line in part] for parts in wanted if all(parts)]
        return Content("\n").join(next((page for page in pages if len(page) <= height), head))

    def _chat_lines(self, width: int) -> list[Content]:
        lines = []
        for i, chat in enumerate(self._chats):
            day = time.strftime("%Y-%m-%d %H:%M", time.localtime(chat.updated)) + "  " if width >= WIDE else ""
            title = one_line(chat.title or "untitled", max(4, min(50, width - len(day) - 2)))
            text = Content.assemble(Content.styled(day, "$foreground 50%"), Content(title))
            lines.append(text.stylize(Style.from_meta({"chat": i})))
        return lines

    def on_click(self, event: events.Click) -> None:
        chat_id = event.style.meta.get("chat")
        if isinstance(chat_id, int) and chat_id < len(self._chats):
            event.stop()
            self.post_message(self.Chosen(self._chats[chat_id]))


def _keys() -> list[Content]:
    width = max(len(key) for key, _ in KEYS)
    return [
        Content.assemble(Content.styled(key.ljust(width + 2), "bold $primary"), Content(does)) for key, does in KEYS
    ]


def _even(lines: Sequence[Content], width: int) -> list[Content]:
    """Those that have room, all as long as the longest: they stand in one column though the page is centred."""
    fit = [line for line in lines if line.cell_length <= width]
    widest = max((line.cell_length for line in fit), default=0)
    return [line.pad_right(widest - line.cell_length) for line in fit]
