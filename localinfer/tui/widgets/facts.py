"""What a pane says of its model and of its chat's context, before anything is asked."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from textual import on, work
from textual.message import Message
from textual.widget import Widget

from localinfer.chats.counting import context_tokens
from localinfer.chats.session import ChatSession
from localinfer.chats.store import SavedChat
from localinfer.chats.template import Message as ChatMessage
from localinfer.errors import LocalInferError, size
from localinfer.tui.engines import Slot
from localinfer.tui.labels import model_label
from localinfer.tui.widgets.welcome import MOST

if TYPE_CHECKING:
    from localinfer.engine.protocol import Engine


class PaneFacts(Widget):
    """The half of a pane that knows the model; `ChatPane` is the other one."""

    session: ChatSession
    slot: Slot | None

    @dataclass
    class Counted(Message, bubble=False):
        """So many tokens are read for these messages."""

        messages: tuple[ChatMessage, ...]
        tokens: int | None

    def about(self, cells: int) -> list[str]:
        """Which model answers here, and what it takes, in lines of so many cells."""
        engine = self.slot.engine if self.slot else None
        name = self.model_name(cells)
        if engine is None:
            return [name]
        facts = f"{size(engine.info.weight_bytes)}, context of {engine.context_size} tokens"
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

    def set_status(self, **changes: Any) -> None:
        """Change some of what the status line shows."""
        raise NotImplementedError
