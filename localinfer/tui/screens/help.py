"""The keys and commands, on one card."""

from collections.abc import Sequence
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Static

from localinfer.tui.doing import COMMANDS
from localinfer.tui.keys import KEYS


class HelpScreen(ModalScreen[None]):
    """Any of the usual keys closes it."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape,f1,enter,q,space", "dismiss", "Close")]

    def compose(self) -> ComposeResult:
        typed = [(command.usage, command.help) for command in COMMANDS.values()]
        card = VerticalScroll(Static(_table(KEYS)), Static(_table(typed), classes="more"))
        card.border_title = "Keys and commands"
        card.border_subtitle = "Esc closes"
        yield card


def _table(rows: Sequence[tuple[str, str]]) -> Content:
    width = max(len(left) for left, _ in rows)
    lines = [
        Content.assemble(Content.styled(left.ljust(width + 3), "bold $primary"), Content(right)) for left, right in rows
    ]
    return Content("\n").join(lines)
