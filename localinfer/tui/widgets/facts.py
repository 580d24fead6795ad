"""Which model answers in a pane, and how full its context is before anything is asked."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from textual import on, work
from textual.message import Message

from localinfer.chats.counting import context_tokens
from localinfer.chats.session import ChatSession
from localinfer.chats.store import SavedChat
from localinfer.chats.template import Message as ChatMessage
from localinfer.errors import LocalInferError, size
from localinfer.tui.commands import Completion
from localinfer.tui.engines import Slot
from localinfer.tui.labels import model_label
from localinfer.tui.widgets.view import PaneView
from localinfer.tui.widgets.welcome import MOST, Welcome

if TYPE_CHECKING:
    from localinfer.engine.protocol import Engine


class PaneFacts(PaneView):
    """A view that knows its model: on its way, here, or impossible."""

    @dataclass
    class Counted(Message, bubble=False):
        """So many tokens are read for these messages."""

        messages: tuple[ChatMessage, ...]
        tokens: int | None

    def __init__(self, session: ChatSession, completion: Completion) -> None:
        super().__init__(session, completion, lambda: Welcome(self.about, self.recent))
        self.slot: Slot | None = None
        self.coming = ""
        """The model that will answer here as soon as it is there."""
        self.offer = ""
        """The models that could be taken, in words, once this one could not be opened."""

    # --- the model

    def show_slot(self, slot: Slot) -> None:
        """The model that this pane talks to has moved on."""
        self.slot = slot
        if not self.open:
            return
        if slot.error is not None:
            self.set_status(phase="failed", stage="", percent=None)
            self.give_back_waiting()
        elif slot.engine is None:
            self.set_status(phase="loading", stage=slot.stage, percent=slot.percent)
        elif self.session.chat is None or self.session.chat.engine is not slot.engine:
            self.session.attach(slot.engine)
            self.show_engine(slot.engine)

    def show_engine(self, engine: "Engine") -> None:
        """This one answers from here on."""
        self.title_line.show(self.session.model, engine.info)
        self.set_status(phase="ready", stage="", percent=None, context_size=engine.context_size)
        for shown in self.query(Welcome):
            shown.refresh()
        self.count_context()
        self.ask_waiting()

    def ask_waiting(self) -> None:
        """What waited for the model can be asked."""
        raise NotImplementedError

    def give_back_waiting(self) -> None:
        """What waited for the model cannot be asked."""
        raise NotImplementedError

    # --- what is known of it

    def about(self, cells: int) -> list[str]:
        """Which model answers here, and what it takes, in lines of so many cells."""
        engine = self.slot.engine if self.slot else None
        name = self.model_name(cells)
        if engine is None:
            return [name]
        info = engine.info
        held = size(info.model_bytes or info.weight_bytes)
        if info.in_file_bytes:
            held += f" and {size(info.in_file_bytes)} in its file"
        facts = f"{held}, context of {engine.context_size} tokens"
        return [name, facts] if len(facts) <= cells else [name]

    def recent(self) -> Sequence[SavedChat]:
        """The last chats, the latest first."""
        try:
            return self.session.store.list(MOST)
        except LocalInferError:  # told when something is said
            return ()

    def model_name(self, cells: int) -> str:
        """The model with the width of its weights, in so many cells."""
        bits = self.slot.engine.info.bits if self.slot and self.slot.engine else ""
        return model_label(self.session.model, bits, cells)

    # --- the context

    def count_context(self) -> None:
        """Show how full the context is with what was said, as soon as that is counted."""
        self.set_status(context_used=None)
        if self.session.chat is not None:
            self._count(self.session.chat.engine, self.session.chat.messages)

    @work(thread=True, group="count", exit_on_error=False)
    def _count(self, engine: "Engine", messages: tuple[ChatMessage, ...]) -> None:
        with suppress(LocalInferError):  # told when something is asked
            self.post_message(self.Counted(messages, context_tokens(engine, messages)))

    @on(Counted)
    def show_context(self, message: Counted) -> None:
        if self.session.chat is not None and self.session.chat.messages == message.messages:
            self.set_status(context_used=message.tokens)
