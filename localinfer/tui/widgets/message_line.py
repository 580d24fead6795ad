"""One line above the box for what is not part of the chat: errors, answers of commands, what just happened."""

from textual.content import Content
from textual.widgets import Static

from localinfer.errors import LocalInferError
from localinfer.text import clean


class MessageLine(Static):
    """Holds one message until the next one, or until a prompt is sent. Wraps where it is longer than the pane."""

    def __init__(self) -> None:
        super().__init__(Content(""), markup=False)
        self.text = ""
        """What stands there."""

    def say(self, text: str) -> None:
        """Show a message."""
        self._show(Content(clean(text)), wrong=False)

    def tell(self, error: LocalInferError, more: str = "") -> None:
        """Show what went wrong and what to do."""
        parts = [Content.styled(clean(error.message), "bold")]
        parts += [Content.styled(f" · {clean(text)}", "$foreground 70%") for text in (error.hint, more) if text]
        self._show(Content.assemble(*parts), wrong=True)

    def clear(self) -> None:
        """Nothing is to be said."""
        self._show(Content(""), wrong=False)

    def _show(self, content: Content, *, wrong: bool) -> None:
        self.text = content.plain
        self.set_class(wrong, "-wrong")
        self.set_class(bool(self.text), "-said")
        self.update(content)
