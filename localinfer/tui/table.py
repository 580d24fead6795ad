"""A table as lines: as wide as its cells, narrower where there is no room, row for row while it grows."""

import re
from collections.abc import Iterator, Sequence
from itertools import zip_longest

from rich.cells import cell_len
from textual.content import Content

from localinfer.tui.inline import EMPTY, Line, wrapped

_LEAST, _WHOLE = 3, 14
"""Cells that a column needs at least: as many as its longest word, between these. Where that is too much, each row
becomes a list."""

_HANG = 2
"""Cells that a line of such a list is indented by if it goes on with the one above."""

_FEW = 32
"""Rows whose widths are looked at anew with each row."""

_PIPE = re.compile(r"(?<!\\)\|")

_RULE = "$foreground 40%"


class Table:
    """A head and rows. Columns are as wide as their cells: as all of them, but in an open table of more than 32 rows as
    those of the first 32, 64, 128, … So each row is laid out a few times at most, however many come."""

    def __init__(self, aligns: Sequence[str], head: Sequence[Content], *, close: bool = False) -> None:
        """`aligns` are `left`, `center` or `right`, one a column."""
        self.close = close
        self.closed = False
        """No more rows come."""
        self._aligns = list(aligns)
        self._rows = [list(head)]
        self._natural: list[int] = []
        self._words: list[int] = []  # the longest one of each column
        self._seen = 0  # rows that both know
        self._laid: tuple[int, list[int]] = (0, [])
        self._lines: list[Line] = []
        self._done = 0  # rows that are in `_lines`

    def add(self, cells: Sequence[Content]) -> None:
        """One more row; it may have more cells than the head."""
        self._rows.append(list(cells))

    def lines(self, width: int, partial: Sequence[Content] | None = None) -> list[Line]:
        """All lines, with the row that is still written."""
        self._measure()
        widths = self._with(partial or (), width) or _fitted(self._natural, self._words, width)
        if self._laid != (width, widths):
            self._laid, self._lines, self._done = (width, widths), [], 0
        for number in range(self._done, len(self._rows)):
            self._lines.extend(self._row(self._rows[number], widths, width, head=number == 0))
        self._done = len(self._rows)
        return [*self._lines, *(self._row(partial, widths, width) if partial else ())]

    def _with(self, partial: Sequence[Content], room: int) -> list[int]:
        """Widths with the row that is still written, so that none of its words is broken meanwhile; none where the
        table has many rows or no room for that."""
        widths = [max(1, *pair) for pair in zip_longest(self._natural, map(_cells, partial), fillvalue=1)]
        return widths if len(self._rows) <= _FEW and sum(widths) + 3 * (len(widths) - 1) <= room else []

    def _measure(self) -> None:
        count = len(self._rows)
        basis = count if self.closed or count <= _FEW else 1 << (count.bit_length() - 1)
        for row in self._rows[self._seen : basis]:
            self._natural += [0] * (len(row) - len(self._natural))
            self._words += [0] * (len(row) - len(self._words))
            for column, cell in enumerate(row):
                self._natural[column] = max(self._natural[column], _cells(cell))
                self._words[column] = max(self._words[column], *map(cell_len, cell.plain.split()), 0)
        self._seen = max(self._seen, basis)

    def _row(self, row: Sequence[Content], widths: list[int], room: int, *, head: bool = False) -> Iterator[Line]:
        if not widths:
            yield from self._listed(row, room, head=head)
            return
        cells = [*row[: len(widths)], *[EMPTY] * (len(widths) - len(row))]
        if len(row) > len(widths):
            cells[-1] = Content(" | ").join([cells[-1], *row[len(widths) :]])
        broken = [[line.content for line in wrapped(cell, width)] for cell, width in zip(cells, widths, strict=True)]
        edge = Content.styled(" │ ", _RULE)
        for number in range(max(map(len, broken))):
            parts = [
                self._aligned(column, lines[number] if number < len(lines) else EMPTY, widths[column], head)
                for column, lines in enumerate(broken)
            ]
            yield Line(edge.join(parts), None if not number else " ")
        if head:
            yield Line(Content.styled("─┼─".join("─" * width for width in widths), _RULE))

    def _aligned(self, column: int, cell: Content, width: int, head: bool) -> Content:
        space = max(0, width - cell.cell_length)
        align = self._aligns[column] if column < len(self._aligns) else "left"
        before = {"right": space, "center": space // 2}.get(align, 0)
        shown = cell.stylize_before("bold $text-primary") if head else cell
        return Content.assemble(" " * before, shown, " " * (space - before))

    def _listed(self, row: Sequence[Content], room: int, *, head: bool) -> Iterator[Line]:
        """A row where there is no room for columns: a cell a line, under its name."""
        names = self._rows[0]
        hang = Content(" " * (_HANG if room > 4 * _HANG else 0))
        if head:
            row = [Content.styled(" │ ", _RULE).join(cell.stylize_before("bold $text-primary") for cell in row)]
        for column, cell in enumerate(row):
            if head or column >= len(names):
                content = cell
            else:
                content = Content.assemble(names[column].stylize_before("$foreground 60%"), " ", cell)
            first, *rest = wrapped(content, max(1, room - len(hang)))
            yield from (first, *(line.behind(hang) for line in rest))
        yield Line(Content.styled("─" * min(room, 12), _RULE))


def cells_of(line: str) -> list[str]:
    """The cells of a row of Markdown."""
    cells = [cell.strip().replace("\\|", "|") for cell in _PIPE.split(line.strip())]
    begin, end = not cells[0], len(cells) > 1 and not cells[-1]
    return cells[begin : len(cells) - end]


def _cells(content: Content) -> int:
    return max((line.cell_length for line in content.split("\n", allow_blank=True)), default=0)


def _given(natural: Sequence[int], least: Sequence[int], most: int) -> list[int]:
    """Widths of the columns if each may have `most` cells, or as many as it needs at least."""
    return [max(need, min(width, most)) for width, need in zip(natural, least, strict=True)]


def _fitted(natural: Sequence[int], words: Sequence[int], room: int) -> list[int]:
    """Widths of the columns that fit into `room` cells; none if there is no such. Wide columns give way first, down to
    their longest words."""
    free = room - 3 * (len(natural) - 1)
    if sum(natural) <= free:
        return [max(1, width) for width in natural] if len(natural) <= max(free, 0) else []
    least = [max(min(width, _LEAST), min(word, _WHOLE)) for width, word in zip(natural, words, strict=True)]
    if free < sum(least):
        return []
    low, high = _LEAST, max(natural)
    while low < high:  # the widest column that all may have
        middle = (low + high + 1) // 2
        low, high = (middle, high) if sum(_given(natural, least, middle)) <= free else (low, middle - 1)
    fitted = _given(natural, least, low)
    for column, width in enumerate(natural):
        if width > fitted[column] and sum(fitted) < free:
            fitted[column] += 1
    return [max(1, width) for width in fitted]
