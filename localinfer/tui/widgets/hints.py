"""The list that a slash opens: all commands that begin like this, or what may follow one."""

from collections.abc import Sequence

from rich.cells import cell_len
from textual.content import Content
from textual.widget import Widget
from textual.widgets import OptionList
from textual.widgets.option_list import Option

from localinfer.text import one_line
from localinfer.tui.commands import Match

_BESIDE = 4
"""Cells of the pane beside a line: padding and the scroll bar."""


class Hints(OptionList, can_focus=False):
    """Some lines above the box, there only while a command is typed; it scrolls with what is chosen."""

    def __init__(self) -> None:
        super().__init__(markup=False)
        self.matches: Sequence[Match] = ()
        self.moved = False
        """Was something chosen with the arrows?"""
        self.display = False

    def show(self, matches: Sequence[Match], *, first: bool = False) -> None:
        """Each command as it is written, with what it does; nothing hides the list. `first`: Enter takes the first."""
        self.display = bool(matches)
        if self.parent is not None:
            self.parent.set_class(bool(matches), "-listing")
        self.moved = False
        if matches != self.matches:
            self.matches = matches
            self._fill()
        self.highlighted = 0 if first and matches else None

    def _fill(self) -> None:
        room = min(60, max(1, (self.parent.size.width if isinstance(self.parent, Widget) else 0) - _BESIDE))
        shown = [one.short(room) if one.short else one.shown for one in self.matches]
        width = min(max(map(cell_len, shown), default=0), 60)
        self.set_options([Option(_line(text, one.does, width)) for text, one in zip(shown, self.matches, strict=True)])

    def on_resize(self) -> None:
        index = self.highlighted
        self._fill()
        self.highlighted = index

    def move(self, by: int) -> None:
        """To the next line or the one before; after the last comes the first."""
        self.moved = True
        index = (-1 if by > 0 else 0) if self.highlighted is None else self.highlighted
        self.highlighted = (index + by) % len(self.matches)

    @property
    def chosen(self) -> Match | None:
        index = self.highlighted
        return self.matches[index] if index is not None and index < len(self.matches) else None


def _line(shown: str, does: str, width: int) -> Content:
    return Content.assemble(
        Content.styled(one_line(shown, 60).ljust(width + 2), "bold $primary"),
        Content.styled(one_line(does, 120), "$foreground 60%"),
    )
