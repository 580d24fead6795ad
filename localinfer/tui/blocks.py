"""Blocks of Markdown as lines of a given width. A closed block never changes; an open one grows at its end."""

import re
from collections.abc import Iterator, Sequence
from typing import Protocol

from markdown_it.token import Token
from markdown_it.tree import SyntaxTreeNode
from rich.cells import cell_len
from textual.content import Content
from textual.style import Style

from localinfer.text import clean
from localinfer.tui.inline import EMPTY, TAB, Line, highlighted, styled, wrapped
from localinfer.tui.table import Table, cells_of

PROSE = 100
"""Columns of a paragraph, where the pane is wider."""

CHUNK = 60
"""Lines of code that are coloured at once, so that a long block costs each of its lines once."""

_CODE = "on $surface"
_NARROWEST = 8
_BULLET = {"-": "•", "*": "•", "+": "•"}


class Block(Protocol):
    """A part of the page that has a line of its own above it, unless it is `close`."""

    close: bool

    def lines(self, width: int) -> Sequence[Line]:
        """All of its lines, `width` cells wide at most where that can be."""


class Fence:
    """Code: its language, a key to copy it, and the lines."""

    def __init__(self, info: str, *, close: bool = False, number: int = 0) -> None:
        """`number` is its place among the code blocks of the answer, for the key."""
        self.close = close
        self.number = number
        self._info = " ".join(clean(info).split())
        self.code: list[str] = []
        self.partial = ""
        """A line that is still written."""
        self._shown: list[Content] = []  # coloured, in whole chunks
        self._width = 0
        self._lines: list[Line] = []
        self._laid = 0  # of `_shown`, what is in `_lines`

    @property
    def text(self) -> str:
        return "\n".join([*self.code, *([self.partial] if self.partial else [])])

    def lines(self, width: int) -> list[Line]:
        language = self._info.split()[0] if self._info else ""
        while len(self.code) - len(self._shown) >= CHUNK:
            at = len(self._shown)
            self._shown.extend(highlighted(self.code[at : at + CHUNK], language))
        if width != self._width:
            self._width, self._lines, self._laid = width, self._head(width), 0
        for content in self._shown[self._laid :]:
            self._lines.extend(_code_line(content, width))
        self._laid = len(self._shown)
        rest = [*self.code[self._laid :], *([self.partial] if self.partial else [])]
        tail = highlighted(rest, language) if rest else []
        return [*self._lines, *(line for content in tail for line in _code_line(content, width))]

    def _head(self, width: int) -> list[Line]:
        """What stands behind the opening mark, and the key where there is room beside the language."""
        info, room = Content.styled(self._info, "$text-muted").stylize_before(_CODE), width - len(" copy ")
        if room < cell_len(self._info.partition(" ")[0]) + 2:
            return list(_code_line(info, width))
        key = Content.styled("copy", Style.from_meta({"@click": ("copy_code", (self.number,))}))
        first, *rest = wrapped(Content(self._info), room - 1)
        name = Content.styled(f" {first.content.plain}", "$text-muted")
        space = " " * (room + 1 - name.cell_length)
        head = Content.assemble(name, space, key.stylize("$text-primary")).stylize_before(_CODE)
        below = [Content.styled(f" {line.content.plain}", "$text-muted").stylize_before(_CODE) for line in rest]
        return [
            Line(head, fill=_CODE),
            *(Line(part, line.joint, _CODE) for part, line in zip(below, rest, strict=True)),
        ]


def _code_line(content: Content, width: int) -> Iterator[Line]:
    margin = 1 if width > _NARROWEST else 0
    before = Content.styled(" " * margin, _CODE)
    for line in wrapped(content.expand_tabs(TAB).stylize_before(_CODE), max(1, width - 2 * margin), _CODE):
        yield line.behind(before)


class Passage:
    """A closed block, or one that is parsed anew while it grows."""

    def __init__(self, tokens: Sequence[Token], source: Sequence[str], *, close: bool, number: int) -> None:
        """`tokens` are one block of `source`, the lines that were parsed; its first code block has this number."""
        self.close = close
        self.codes: list[Fence] = []
        self._node = SyntaxTreeNode(tokens, create_root=True)
        self._inner: dict[int, Block] = {}
        self._width = 0
        self._lines: list[Line] = []
        for node in self._node.walk():
            if node.type in ("fence", "code_block"):
                fence = Fence(node.info, number=number + len(self.codes))
                fence.code = node.content.removesuffix("\n").split("\n")
                self.codes.append(fence)
                self._inner[id(node)] = fence
            elif node.type == "table":
                table = self._inner[id(node)] = _table(node, source)
                table.closed = True

    def lines(self, width: int) -> list[Line]:
        if width != self._width:
            self._width, self._lines = width, list(self._stacked(self._node.children, width))
        return self._lines

    def _stacked(self, nodes: Sequence[SyntaxTreeNode], width: int) -> Iterator[Line]:
        """Blocks below each other, with an empty line between where the source has one."""
        end: int | None = None
        for node in nodes:
            start, last = _extent(node)
            if end is not None and start > end:
                yield Line(EMPTY)
            yield from self._block(node, width)
            end = last

    def _block(self, node: SyntaxTreeNode, width: int) -> Iterator[Line]:
        match node.type:
            case "bullet_list" | "ordered_list":
                yield from self._stacked(node.children, width)
            case "list_item":
                marker = f"{node.info}{node.markup}" if node.info else _BULLET.get(node.markup, node.markup)
                yield from self._indented(node, Content.styled(f" {marker} ", "$text-primary"), width)
            case "blockquote":
                bar = Content.styled("▌ ", "$text-primary 50%")
                yield from self._indented(node, bar, width, bar)
            case "fence" | "code_block" | "table":
                yield from self._inner[id(node)].lines(width)
            case "heading":
                yield from self._heading(node, width)
            case "hr":
                yield Line(Content.styled("─" * min(width, PROSE), "$foreground 30%"))
            case "math_block":
                yield from wrapped(Content.styled(node.content, "italic"), max(1, min(width, PROSE)))
            case _:
                yield from wrapped(_inline(node), max(1, min(width, PROSE)))

    def _heading(self, node: SyntaxTreeNode, width: int) -> Iterator[Line]:
        style = {"h1": "bold underline $text-primary", "h2": "bold $text-primary"}.get(node.tag, "bold")
        yield from wrapped(_inline(node).stylize_before(style), max(1, min(width, PROSE)))

    def _indented(
        self, node: SyntaxTreeNode, first: Content, width: int, rest: Content | None = None
    ) -> Iterator[Line]:
        """The children of `node` behind `first`, and from the second line on behind `rest`."""
        room = width - first.cell_length
        if room < 1:
            first, rest, room = EMPTY, EMPTY, width
        below = Content(" " * first.cell_length) if rest is None else rest
        lines = iter(self._stacked(node.children, room))
        yield next(lines, Line(EMPTY)).behind(first)
        for line in lines:
            yield line.behind(below)


def _inline(node: SyntaxTreeNode) -> Content:
    return EMPTY.join(
        styled(token.children or ()) for child in node.children for token in ([child.token] if child.token else [])
    )


def _extent(node: SyntaxTreeNode) -> tuple[int, int]:
    """The first line of a block, and the one after its last that is not empty; of nothing, (0, 0)."""
    start = node.map[0] if node.map else 0
    if node.children and node.type in ("bullet_list", "ordered_list", "list_item", "blockquote"):
        return start, _extent(node.children[-1])[1]
    return start, node.map[1] if node.map else 0


def table_of(tokens: Sequence[Token], source: Sequence[str]) -> Table:
    """The table that these tokens are, read from the lines of `source`."""
    return _table(SyntaxTreeNode(tokens, create_root=True).children[0], source)


def _table(node: SyntaxTreeNode, source: Sequence[str]) -> Table:
    rows = [row for part in node.children for row in part.children]
    table = Table([_align(cell) for cell in rows[0].children], [_inline(cell) for cell in rows[0].children])
    for row in rows[1:]:
        cells = [_inline(cell) for cell in row.children]
        written = cells_of(source[row.map[0]].lstrip(" >\t")) if row.map else []
        table.add([*cells, *map(Content, written[len(cells) :])])  # more than the head has are kept too
    return table


def _align(cell: SyntaxTreeNode) -> str:
    found = re.search(r"text-align:(\w+)", str(cell.attrs.get("style", "")))
    return found[1] if found else "left"
