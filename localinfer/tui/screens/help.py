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

KEYS = (
    ("Enter", "send"),
    ("Ctrl+J", 'new line (in many terminals also Shift+Enter); `"""` begins and ends a text of many lines'),
    ("Esc", "stop; what was written stays"),
    ("Ctrl+R  Ctrl+Y", "answer again, with another seed; copy the last answer"),
    ("Ctrl+N", "new chat; this one is kept"),
    ("Ctrl+G", "write the prompt in $EDITOR"),
    ("F5  F6", "one more pane, to the right or below; Alt+F forks the chat into it"),
    ("Alt+arrows  Alt+1…9", "go to another pane (also Tab, or a click)"),
    ("Alt+Shift+arrows", "move the pane (or drag its title)"),
    ("F4  Alt+W", "this pane alone, or all again; close it"),
    ("F8  F7", "send prompts to all panes; compare their answers"),
    ("F9", "earlier chats"),
    ("F2  F3", "who guessed each token; plots and figures"),
    ("PgUp  PgDn", "scroll"),
    ("Ctrl+P", "find a command by its name"),
    ("Ctrl+C", "copy the selection, or stop; twice quits"),
    ("Ctrl+Q", "quit; chat --continue comes back here"),
)


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
