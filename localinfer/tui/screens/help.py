"""The keys and commands, on one card."""

from collections.abc import Iterable, Sequence
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import Static

from localinfer.tui.commands import Command
from localinfer.tui.keys import KEYS


class HelpScreen(ModalScreen[None]):
    """Any of the usual keys closes it."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape,f1,enter,q,space", "dismiss", "Close")]

    def __init__(self, commands: Iterable[Command]) -> None:
        super().__init__()
        self._commands = commands

    def compose(self) -> ComposeResult:
        typed = [(command.usage, command.help) for command in self._commands]
        card = VerticalScroll(*_rows(KEYS), Static(), *_rows(typed))
        card.border_title = "Keys and commands"
        card.border_subtitle = "Esc closes"
        yield card


def _rows(rows: Sequence[tuple[str, str]]) -> list[Horizontal]:
    """A line each, or more where what it does is long."""
    return [Horizontal(Static(left, classes="key", markup=False), Static(right, markup=False)) for left, right in rows]
