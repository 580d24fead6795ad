"""The chats that are kept: found by their words, opened here or in a new pane, deleted."""

import asyncio
import time
from dataclasses import dataclass
from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Input, OptionList
from textual.widgets.option_list import Option

from localinfer.chats.store import ChatStore, SavedChat
from localinfer.errors import LocalInferError
from localinfer.text import one_line

MOST = 200
"""Chats listed at once; words find the others."""

LONGEST = 200
"""Characters of a search."""


@dataclass(frozen=True, slots=True)
class Choice:
    """A chat to be opened."""

    chat_id: int
    model: str
    new_pane: bool


class ChatsScreen(ModalScreen[Choice | None]):
    """Type to search, Up and Down to choose. Gives the choice, or None."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,f9", "dismiss(None)", "Close"),
        Binding("down", "move(1)", "Down", show=False, priority=True),
        Binding("up", "move(-1)", "Up", show=False, priority=True),
        Binding("enter", "open(False)", "Open here", priority=True),
        Binding("ctrl+j,f5", "open(True)", "Open in a new pane", priority=True),
        Binding("ctrl+d", "delete", "Delete", priority=True),
    ]

    def __init__(self, store: ChatStore, words: str) -> None:
        super().__init__()
        self._store = store
        self._words = words
        self._chats: tuple[SavedChat, ...] = ()
        self._searched = words
        self._doomed: int | None = None

    def compose(self) -> ComposeResult:
        search = Input(self._words[:LONGEST], placeholder="Search titles and texts", max_length=LONGEST)
        card = Vertical(search, OptionList(markup=False))
        card.border_title = "Chats"
        card.border_subtitle = "Enter opens · F5 in a new pane · Ctrl+D twice deletes · Esc closes"
        yield card

    def on_mount(self) -> None:
        self.query_one(OptionList).can_focus = False
        self.query_one(Input).cursor_blink = self.app.animation_level != "none"
        self.set_focus(self.query_one(Input))  # at once: the next key is typed there
        self._fill(self._words)

    @on(Input.Changed)
    def search(self, message: Input.Changed) -> None:
        if message.value != self._searched:  # else it was caught up with
            self._fill(message.value)

    async def _catch_up(self) -> None:
        """Search for all that was typed before the key that is to act on what was found."""
        search, done = self.query_one(Input), asyncio.Event()
        if search.call_later(done.set):
            await done.wait()
        if search.value != self._searched:
            self._fill(search.value)

    def _fill(self, words: str, place: int = 0) -> None:
        self._searched = words
        try:
            self._chats = self._store.list(MOST, words=words)
        except LocalInferError as error:
            self.notify(error.message, markup=False)
            self._chats = ()
        shown = self.query_one(OptionList)
        shown.clear_options()
        shown.add_options([Option(_line(chat), id=str(chat.id)) for chat in self._chats])
        if not self._chats:
            shown.add_option(Option("no chat has these words" if words else "no chats yet", disabled=True))
        elif self._chats:
            shown.highlighted = min(place, len(self._chats) - 1)
        self._doomed = None

    def _chosen(self) -> SavedChat | None:
        place = self.query_one(OptionList).highlighted
        return self._chats[place] if place is not None and place < len(self._chats) else None

    async def action_move(self, by: int) -> None:
        await self._catch_up()
        shown = self.query_one(OptionList)
        shown.action_cursor_down() if by > 0 else shown.action_cursor_up()
        self._doomed = None

    async def action_open(self, new_pane: bool) -> None:
        await self._catch_up()
        if (chat := self._chosen()) is not None:
            self.dismiss(Choice(chat.id, chat.model, new_pane))

    @on(OptionList.OptionSelected)
    async def click(self) -> None:
        await self.action_open(False)

    async def action_delete(self) -> None:
        """The first time it asks."""
        await self._catch_up()
        chat = self._chosen()
        if chat is None:
            return
        if self._doomed != chat.id:
            self._doomed = chat.id
            self.notify(f"Ctrl+D again deletes: {one_line(chat.title, 60)}", markup=False)
            return
        try:
            self._store.delete(chat.id)
        except LocalInferError as error:
            self.notify(error.message, markup=False)
        self._fill(self.query_one(Input).value, self._chats.index(chat))


def _line(chat: SavedChat) -> Content:
    day = time.strftime("%Y-%m-%d %H:%M", time.localtime(chat.updated))
    return Content.assemble(
        Content.styled(day, "$foreground 50%"),
        Content("  " + one_line(chat.title or "untitled", 60)),
        Content.styled("  " + one_line(chat.model, 40), "$foreground 50%"),
    )
