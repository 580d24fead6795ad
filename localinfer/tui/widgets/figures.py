"""A table that is never cut: columns that find no room go on in another block below."""

from collections.abc import Sequence

from rich.cells import cell_len
from textual import events
from textual.content import Content
from textual.widgets import Static

GAP = 2
"""Columns of cells between two columns of the table."""


class Figures(Static):
    """Rows of text under `columns`. The first `lead` columns begin each block, and stand to the left."""

    def __init__(self, columns: Sequence[str], *, lead: int) -> None:
        super().__init__(Content(""), markup=False)
        self._columns = columns
        self._lead = lead
        self._rows: Sequence[Sequence[str]] = ()

    def show(self, rows: Sequence[Sequence[str]]) -> None:
        """These rows from now on, a text for each column."""
        self._rows = rows
        self._draw()

    def on_resize(self, _event: events.Resize) -> None:
        self._draw()

    def _draw(self) -> None:
        table = [self._columns, *self._rows]
        widths = [max(cell_len(row[i]) for row in table) for i in range(len(self._columns))]
        found = blocks(widths, self.size.width, self._lead)
        lines = [line for block in found for line in [*self._block(block, widths, table), Content("")]]
        self.update(Content("\n").join(lines[:-1]))

    def _block(self, block: Sequence[int], widths: Sequence[int], table: Sequence[Sequence[str]]) -> list[Content]:
        lines = []
        for row in table:
            cells = [_padded(row[i], widths[i], left=i < self._lead) for i in block]
            line = (" " * GAP).join(cells).rstrip()
            lines.append(Content.styled(line, "bold $primary") if row is self._columns else Content(line))
        return lines


def blocks(widths: Sequence[int], room: int, lead: int) -> list[list[int]]:
    """Which columns of these widths stand in each block of `room` cells, the first `lead` in all of them; a column too
    wide for any has a block of its own."""
    head = sum(widths[:lead]) + GAP * (lead - 1)
    found: list[list[int]] = []
    used = 0
    for i in range(lead, len(widths)):
        if not found or used + GAP + widths[i] > room:
            found.append(list(range(lead)))
            used = head
        found[-1].append(i)
        used += GAP + widths[i]
    return found


def _padded(text: str, width: int, *, left: bool) -> str:
    spaces = " " * (width - cell_len(text))
    return text + spaces if left else spaces + text
