"""The keys, on one card."""

from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Static

KEYS = (
    ("Enter", "send"),
    ("Ctrl+J", "new line (in many terminals also Shift+Enter)"),
    ("Esc", "stop; what was written stays"),
    ("Ctrl+R", "answer again, with another seed"),
    ("Ctrl+Y", "copy the last answer"),
    ("Ctrl+N", "new chat; this one is kept"),
    ("F2", "show who guessed each token, or Markdown again"),
    ("PgUp PgDn", "scroll"),
    ("Ctrl+C", "copy the selection, or stop; twice quits"),
    ("Ctrl+Q", "quit; chat --continue comes back here"),
)


class HelpScreen(ModalScreen[None]):
    """Any of the usual keys closes it."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape,f1,enter,q,space", "dismiss", "Close")]

    def compose(self) -> ComposeResult:
        width = max(len(key) for key, _ in KEYS)
        lines: list[Content] = []
        for key, does in KEYS:
            lines.append(Content.assemble(Content.styled(key.ljust(width + 3), "bold $primary"), Content(does)))
        card = VerticalScroll(Static(Content("\n").join(lines), markup=False))
        card.border_title = "Keys"
        card.border_subtitle = "Esc closes"
        yield card
