"""Where the user types. Enter sends; Ctrl+J begins a new line."""

from dataclasses import dataclass
from typing import ClassVar

from textual import events
from textual.binding import Binding, BindingType
from textual.message import Message
from textual.strip import Strip
from textual.widgets import TextArea

from localinfer.text import clean

PASTE_LIMIT = 200_000
"""Characters taken from one paste; more belongs in a file, and would make typing slow."""


class PromptBox(TextArea):
    """A text area of several lines that grows with its text, up to a third of the screen."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("ctrl+j,shift+enter,alt+enter", "new_line", "New line", show=False),
    ]

    @dataclass
    class Sent(Message):
        """The user pressed Enter."""

        text: str

    @dataclass
    class PasteCut(Message):
        """A paste was longer than `PASTE_LIMIT` and was cut."""

        length: int

    def __init__(self, text: str = "") -> None:
        super().__init__(clean(text), placeholder="Message", highlight_cursor_line=False)
        self.border_subtitle = "Enter send · Ctrl+J new line · F1 help"

    def action_new_line(self) -> None:
        self.insert("\n")

    def put(self, text: str) -> None:
        """Put `text` before what is there, and the cursor at the end."""
        self.load_text("\n\n".join(part for part in (clean(text), self.text) if part))
        self.move_cursor(self.document.end)

    def render_line(self, y: int) -> Strip:
        if self.content_size.width < 1:  # Textual cannot wrap a placeholder into no columns
            return Strip.blank(self.size.width)
        return super().render_line(y)

    def on_key(self, event: events.Key) -> None:
        if event.key == "enter":
            event.stop()
            event.prevent_default()
            self.post_message(self.Sent(self.text))

    def on_paste(self, event: events.Paste) -> None:
        event.prevent_default()
        event.stop()
        text = clean(event.text.replace("\r\n", "\n").replace("\r", "\n"))
        if len(text) > PASTE_LIMIT:
            self.post_message(self.PasteCut(len(text)))
        self.insert(text[:PASTE_LIMIT])
        self.scroll_cursor_visible()
