"""Arrows move the borders of a pane, until Enter or Esc."""

from collections.abc import Callable
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Static

from localinfer.tui.tiling import Direction

_ARROWS = ("left", "right", "up", "down")
_LINE = (("←→↑↓", "move the border"), ("=", "all equal"), ("Enter", "done"))


class ResizeScreen(ModalScreen[None]):
    """One line over the panes; what the keys do is seen at once."""

    BINDINGS: ClassVar[list[BindingType]] = [
        *(Binding(arrow, f"resize('{arrow}')", priority=True) for arrow in _ARROWS),
        Binding("equals_sign", "balance"),
        Binding("enter,escape,q,space,ctrl+o", "dismiss", "Done"),
    ]

    def __init__(self, resize: Callable[[Direction], None], balance: Callable[[], None]) -> None:
        super().__init__()
        self._resize = resize
        self._balance = balance

    def compose(self) -> ComposeResult:
        parts = [part for key, does in _LINE for part in (Content.styled(key, "bold $primary"), Content(f" {does}   "))]
        yield Static(Content.assemble(*parts), markup=False)

    def action_resize(self, way: Direction) -> None:
        self._resize(way)

    def action_balance(self) -> None:
        self._balance()
