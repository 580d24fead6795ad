"""An answer as blocks of Markdown, while it is written: a block that is closed is never looked at again.

Text is parsed from where the last block begins. A block is closed as soon as a whole line of the next one is there; the
items of a list are blocks. Finished lines of code and rows of a table are taken out of what is parsed, and so is the
beginning of a long paragraph. So a piece costs the same at the end of a long answer as at its beginning.
"""

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from markdown_it.token import Token
from textual.content import Content

from localinfer.tui.blocks import PROSE, Block, Fence, Passage, table_of
from localinfer.tui.inline import EMPTY, Flow, Line, styled
from localinfer.tui.markdown import parser
from localinfer.tui.table import Table, cells_of

LONG = 2000
"""Characters of a paragraph that are parsed together; the beginning of a longer one is closed."""

_BLANK = re.compile(r"(?:[ \t]*\n)+")
_OPENING = re.compile(r"( {0,3})(`{3,}|~{3,})(.*)")
_JSON = re.compile(r'\s*(?:\{\s*["}]|\[\s*["{])')
_PERHAPS_JSON = re.compile(r"\s*(?:[{\[]\s*)?")
_NEVER = re.compile(r"(?!)")
_WORD = re.compile(r"(?<=\s)(?=[^\W\d_])")
_TRIES = 16
_ROWS = "|a|\n|-|\n"  # a table's beginning, to see which lines go on with one


class _Group(NamedTuple):
    """One block of what was parsed, from its first line on."""

    kind: str
    tokens: list[Token]
    start: int


class Prose:
    """A paragraph that is too long to be parsed as a whole."""

    def __init__(self, *, close: bool) -> None:
        self.close = close
        self.flow = Flow()
        self.tail = EMPTY

    def lines(self, width: int) -> list[Line]:
        return self.flow.lines(max(1, min(width, PROSE)), self.tail)


class Rows:
    """A table that grows, with the row that is still written."""

    def __init__(self, table: Table) -> None:
        self.table = table
        self.close = table.close
        self.partial: list[Content] = []

    def lines(self, width: int) -> list[Line]:
        return self.table.lines(width, self.partial)


class Document:
    """Grows by `feed`; what it shows is a function of the text alone, however that was cut into pieces."""

    def __init__(self) -> None:
        self.closed: list[Block] = []
        """Blocks that stay as they are."""
        self.open: list[Block] = []
        """Blocks that more text may change."""
        self._parser = parser()
        self._tail = ""
        self._codes: list[Fence] = []
        self._fence: tuple[Fence, re.Pattern[str], int] | None = None  # with what closes it, and its indentation
        self._is_new = True  # it is not known yet whether all of it is JSON
        self._rows: Rows | None = None
        self._prose: Prose | None = None
        self._above, self._blank = "", False  # the kind of block above the tail, and whether an empty line is between

    @property
    def codes(self) -> list[Fence]:
        """The blocks of code, in order."""
        return [*self._codes, *(code for block in self.open for code in _codes_of(block))]

    def feed(self, text: str) -> None:
        """Go on with `text`, which is clean."""
        self._tail += text
        if self._is_new:
            self._begin()
        while self._step():
            pass

    def _begin(self) -> None:
        """An answer that begins as JSON is a block of code: as Markdown it would lose its indents."""
        self._is_new = _PERHAPS_JSON.fullmatch(self._tail) is not None
        if _JSON.match(self._tail):
            self._fence = Fence("json", close=False, number=0), _NEVER, 0
            self._tail = self._tail.lstrip("\r\n")

    def finish(self) -> None:
        """No more text."""
        if self._tail:
            self.feed("\n")
        if self._rows is not None:
            self._rows.table.closed = True

    def _step(self) -> bool:
        """Close what can be closed; False when nothing more can."""
        if self._fence is not None:
            return self._take_code(*self._fence)
        if self._rows is not None:
            return self._take_rows(self._rows)
        return self._take_blocks()

    def _seal(self, block: Block, kind: str, *, blank: bool) -> None:
        self.closed.append(block)
        self._codes.extend(_codes_of(block))
        self._above, self._blank = kind, blank

    # --- any blocks

    def _take_blocks(self) -> bool:
        if blank := _BLANK.match(self._tail):
            self._tail, self._blank = self._tail[blank.end() :], True
        source = self._tail.split("\n")
        groups = _groups(self._parser.parse(self._tail))
        whole = len(source) - 1  # lines that have their end
        done = 0
        while done + 1 < len(groups) and groups[done + 1].start < whole:
            below = groups[done + 1].start
            for block in self._made(groups[done], source, len(self._codes)):
                self._seal(block, groups[done].kind, blank=not source[below - 1].strip())
            self._prose = None
            done += 1
        if done:
            self._tail = "\n".join(source[groups[done].start :])
            return True
        if len(groups) == 1 and self._enter(groups[0], source, whole):
            return True
        self.open = list(self._opened(groups, source))
        return False

    def _opened(self, groups: Sequence[_Group], source: Sequence[str]) -> Iterator[Block]:
        """The last blocks as they are now; nothing of them is kept."""
        state = self._above, self._blank, self._prose
        count = len(self._codes)
        for number, group in enumerate(groups):
            if number:
                self._blank = not source[group.start - 1].strip()
            for block in self._made(group, source, count):
                count += len(_codes_of(block))
                yield block
            self._above, self._prose = group.kind, None
        self._above, self._blank, self._prose = state

    def _made(self, group: _Group, source: Sequence[str], number: int) -> Iterator[Block]:
        if self._prose is not None:
            go_on = group.kind == "paragraph"
            self._prose.tail = styled(group.tokens[1].children or ()) if go_on else EMPTY
            yield self._prose
            if go_on:
                return
        yield Passage(group.tokens, source, close=self._is_close(group.kind), number=number)

    def _is_close(self, kind: str) -> bool:
        """Does a block of this kind stand right below the one above?"""
        return not self._blank and kind == "item" and self._above in ("item", "paragraph")

    # --- blocks that grow

    def _enter(self, group: _Group, source: Sequence[str], whole: int) -> bool:
        """Take out of the last block what is finished of it."""
        if group.kind == "fence" and whole > group.start and (found := _OPENING.match(source[group.start])):
            fence = Fence(found[3].strip(), close=False, number=len(self._codes))
            closing = re.compile(rf" {{0,3}}{found[2][0]}{{{len(found[2])},}}[ \t]*")
            self._fence = fence, closing, len(found[1])
            self._tail = "\n".join(source[group.start + 1 :])
            return True
        if group.kind == "table" and whole >= group.start + 2:
            head = source[group.start : group.start + 2]
            self._rows = Rows(table_of(self._parser.parse("\n".join(head)), head))
            self._tail = "\n".join(source[group.start + 2 :])
            return True
        if group.kind == "paragraph" and len(group.tokens[1].content) > LONG:
            self._split(group.tokens[1].content)
            return True
        return False

    def _take_code(self, fence: Fence, closing: re.Pattern[str], indent: int) -> bool:
        *whole, partial = self._tail.split("\n")
        for number, line in enumerate(whole):
            if closing.fullmatch(line):
                fence.partial, self._fence = "", None
                self._tail = "\n".join([*whole[number + 1 :], partial])
                self._seal(fence, "fence", blank=False)
                return True
            fence.code.append(_dedented(line, indent))
        self._tail = partial
        may_close = bool(partial.strip()) and not partial.strip().strip("`~")
        fence.partial = "" if may_close else _dedented(partial, indent)
        self.open = [fence]
        return False

    def _take_rows(self, rows: Rows) -> bool:
        *whole, partial = self._tail.split("\n")
        count = self._goes_on(whole)
        for line in whole[:count]:
            rows.table.add(self._cells(line))
        self._tail = "\n".join([*whole[count:], partial])
        if count < len(whole):
            rows.partial, rows.table.closed, self._rows = [], True, None
            self._seal(rows.table, "table", blank=False)
            return True
        is_row = bool(partial.strip()) and self._goes_on([partial]) == 1
        rows.partial = self._cells(partial) if is_row else []
        self.open = [rows]
        if partial.strip() and not is_row:
            self.open.extend(self._opened(_groups(self._parser.parse(partial)), [partial]))
        return False

    def _goes_on(self, lines: Sequence[str]) -> int:
        """How many of these lines are rows of the table above them."""
        if not lines:
            return 0
        ends = self._parser.parse(_ROWS + "\n".join(lines))[0].map
        assert ends is not None
        return ends[1] - 2

    def _cells(self, line: str) -> list[Content]:
        return [styled(self._parser.parseInline(cell)[0].children or ()) for cell in cells_of(line)]

    def _split(self, text: str) -> None:
        """Close the beginning of a long paragraph, between two words that nothing spans."""
        part = text[:LONG]
        whole = self._inline(part)
        places = [found.start() for found in _WORD.finditer(part, LONG // 4, LONG - LONG // 4)][-_TRIES:]
        places = places or [LONG // 2]
        neutral = (place for place in reversed(places) if self._parted(part, place).is_same(whole))
        place = next(neutral, places[-1])
        self._prose = self._prose or Prose(close=self._is_close("paragraph"))
        self._prose.flow.add(self._begun(text, place))
        self._tail = text[place:] + self._tail[len(self._tail.rstrip()) :]

    def _parted(self, text: str, place: int) -> Content:
        return self._begun(text, place) + self._inline(text[place:])

    def _begun(self, text: str, place: int) -> Content:
        """What stands before `place`, with the space or the line end there."""
        before = text[:place]
        space = before[len(before.rstrip()) :]
        return self._inline(before) + ("\n" if "\n" in space else space)

    def _inline(self, text: str) -> Content:
        return styled(self._parser.parseInline(text.strip())[0].children or ())


def _groups(tokens: Sequence[Token]) -> list[_Group]:
    """The blocks at the top, each item of a list for itself."""
    groups: list[_Group] = []
    begin, depth, top = 0, 0, 0
    for i, token in enumerate(tokens):
        if depth == top and token.type in ("bullet_list_open", "ordered_list_open") and not top:
            top = depth = 1
            begin = i + 1
            continue
        depth += token.nesting
        if top and depth == 0:  # the list's own end
            top, begin = 0, i + 1
        elif depth == top:
            inside = list(tokens[begin : i + 1])
            first = inside[0]
            groups.append(_Group(_kind(first), inside, first.map[0] if first.map else 0))
            begin = i + 1
    return groups


def _kind(token: Token) -> str:
    return "item" if token.type == "list_item_open" else token.type.removesuffix("_open")


def _codes_of(block: Block) -> list[Fence]:
    return [block] if isinstance(block, Fence) else block.codes if isinstance(block, Passage) else []


def _dedented(line: str, indent: int) -> str:
    """`line` without the spaces that its block is indented by."""
    return line[min(indent, len(line) - len(line.lstrip(" "))) :]
