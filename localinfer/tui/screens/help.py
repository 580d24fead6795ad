"""The keys and commands, on one card."""

from collections.abc import Sequence
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import Static

from localinfer.tui.doing import COMMANDS
from localinfer.tui.keys import KEYS


class HelpScreen(ModalScreen[None]):
    """Any of the usual keys closes it."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape,f1,enter,q,space", "dismiss", "Close")]

    def compose(self) -> ComposeResult:
        typed = [(command.usage, command.help) for command in COMMANDS.values()]
        card = VerticalScroll(*_rows(KEYS), Static(), *_rows(typed))
        card.border_title = "Keys and commands"
        card.border_subtitle = "Esc closes"
        yield card


def _rows(rows: Sequence[tuple[str, str]]) -> list[Horizontal]:
    """A line each, or more where what it does is long."""
    return [Horizontal(Static(left, classes="key", markup=False), Static(right, markup=False)) for left, right in rows]
