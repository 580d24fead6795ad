"""The keys and commands, on one card."""

from collections.abc import Iterable
from typing import ClassVar

from rich.table import Table
from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
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
        card = VerticalScroll(Static(self._table([*KEYS, ("", ""), *typed])))
        card.border_title = "Keys and commands"
        card.border_subtitle = "Esc closes"
        yield card

    def _table(self, rows: Iterable[tuple[str, str]]) -> Table:
        """A line each, or more where what it does is long. One table: a widget for each cell takes a second to open."""
        table = Table.grid(padding=(0, 2, 0, 0), expand=True)
        table.add_column(width=24, style=f"bold {self.app.theme_variables['primary']}")
        table.add_column(ratio=1)
        for left, right in rows:
            table.add_row(Text(left), Text(right))
        return table
