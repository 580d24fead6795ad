"""Text with its styles: what stands inside a block of Markdown, code, and how both break into lines."""

import re
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple

from markdown_it.token import Token
from pygments.lexer import Lexer  # type: ignore[import-untyped]
from pygments.lexers import get_lexer_by_name  # type: ignore[import-untyped]
from pygments.util import ClassNotFound  # type: ignore[import-untyped]
from textual.content import Content, Span
from textual.highlight import HighlightTheme
from textual.style import Style

TAB = 8
EMPTY = Content("")

_MARKS = {"strong": "bold", "em": "italic", "s": "strike"}
CODE_STYLE = "$text-warning on $warning-muted"
MATH_STYLE = "italic"
LINK_STYLE = "underline $text-primary"


class Line(NamedTuple):
    """One line on the screen."""

    content: Content
    joint: str | None = None
    """What stood in the text between the line above and this one, if only the width parted them."""
    fill: str = ""
    """The style from the end of the line to the right edge."""

    def behind(self, prefix: Content) -> "Line":
        """The same line with `prefix` before it."""
        return Line(prefix + self.content, self.joint, self.fill)


class _Writer:
    """Gathers text and spans."""

    def __init__(self) -> None:
        self._parts: list[str] = []
        self._spans: list[Span] = []
        self._open: list[tuple[int, Style | str]] = []
        self._length = 0

    def text(self, text: str, style: str = "") -> None:
        if style and text:
            self._spans.append(Span(self._length, self._length + len(text), style))
        self._parts.append(text)
        self._length += len(text)

    def begin(self, style: Style | str) -> None:
        self._open.append((self._length, style))

    def end(self) -> None:
        start, style = self._open.pop()
        if start < self._length and style:
            self._spans.append(Span(start, self._length, style))

    def content(self) -> Content:
        return Content("".join(self._parts), self._spans)


def styled(tokens: Iterable[Token]) -> Content:
    """The children of an `inline` token as text; line ends are `\\n`."""
    writer = _Writer()
    for token in tokens:
        _write(writer, token)
    return writer.content()


def _write(writer: _Writer, token: Token) -> None:
    kind = token.type
    if kind.endswith("_open"):
        _begin(writer, token)
    elif kind.endswith("_close"):
        if kind == "link_close":
            writer.end()
        writer.end()
    elif kind == "hardbreak":
        writer.text("\n")
    elif kind == "code_inline":
        writer.text(token.content, CODE_STYLE)
    elif kind == "math":
        writer.text(token.content, MATH_STYLE)
    elif kind == "image":
        _link(writer, str(token.attrs.get("src", "")))
        writer.text(token.content or str(token.attrs.get("src", "")))
        writer.end()
        writer.end()
    else:
        writer.text(token.content)


def _begin(writer: _Writer, token: Token) -> None:
    if token.type == "link_open":
        _link(writer, str(token.attrs.get("href", "")))
    else:
        writer.begin(_MARKS.get(token.type.removesuffix("_open"), ""))


def _link(writer: _Writer, address: str) -> None:
    writer.begin(Style.from_meta({"@click": ("show_address", (address,))}))
    writer.begin(LINK_STYLE)


def pieces(line: Content, width: int) -> Iterator[tuple[int, Content]]:
    """A line without `\\n`, broken at `width` cells: where each part begins, and the part."""
    if line.cell_length <= width:
        yield 0, line
        return
    plain, at = line.plain, 0
    for part in line.wrap(max(1, width)):
        while plain[at : at + 1].isspace() and not part.plain[:1].isspace():
            at += 1
        yield at, part
        at += len(part.plain)


def wrapped(content: Content, width: int, fill: str = "") -> list[Line]:
    """`content` in lines of at most `width` cells, broken between words where possible."""
    lines: list[Line] = []
    for line in content.split("\n", allow_blank=True):
        expanded, end = line.expand_tabs(TAB), 0
        for at, part in pieces(expanded, width):
            lines.append(Line(part, None if not end and not at else " " * (at - end), fill))
            end = at + len(part.plain)
    return lines


class Flow:
    """Text that grows at its end and is broken into lines as it comes; what is broken stays so."""

    def __init__(self) -> None:
        self._parts: list[Content] = []
        self._width = 0
        self._taken = 0
        self._lines: list[Line] = []
        self._rest = Line(EMPTY)

    def add(self, content: Content) -> None:
        """Go on with `content`."""
        if content:
            self._parts.append(content)

    def lines(self, width: int, tail: Content = EMPTY) -> list[Line]:
        """All lines, with `tail` at the end, which is not kept."""
        if width != self._width:
            self._width, self._taken, self._lines, self._rest = width, 0, [], Line(EMPTY)
        if self._taken < len(self._parts):
            fresh = EMPTY.join(self._parts[self._taken :])
            self._taken = len(self._parts)
            self._lines.extend(self._broken(fresh, width))
            self._rest = self._lines.pop()
        return [*self._lines, *(self._broken(tail, width) if tail else (self._rest,))]

    def _broken(self, more: Content, width: int) -> list[Line]:
        """The last line with `more`, in lines."""
        lines: list[Line] = []
        for number, line in enumerate((self._rest.content + more).split("\n", allow_blank=True)):
            expanded, end, begin = line.expand_tabs(TAB), 0, 0
            for at, part in pieces(expanded, width):
                joint = " " * (at - end) if end or at else None if number else self._rest.joint
                lines.append(Line(part, joint))
                end, begin = at + len(part.plain), at
            lines[-1] = Line(expanded[begin:], lines[-1].joint)  # with the spaces that go on from here
        return lines


@lru_cache(maxsize=32)
def _lexer(language: str) -> Lexer | None:
    try:
        return get_lexer_by_name(language, stripnl=False, ensurenl=False, tabsize=0)
    except ClassNotFound:
        return None


def highlighted(lines: Sequence[str], language: str) -> list[Content]:
    """Lines of code in colours; as they are if nobody knows the language."""
    lexer = _lexer(language.lower()) if re.fullmatch(r"[\w+#.-]{1,30}", language) else None
    code = "\n".join(lines)
    if lexer is None:
        return [Content(line) for line in lines]
    at, spans = 0, []
    for kind, text in lexer.get_tokens(code):
        while kind is not None and kind not in HighlightTheme.STYLES:
            kind = kind.parent
        if kind is not None and (style := HighlightTheme.STYLES[kind]):
            spans.append(Span(at, at + len(text), style))
        at += len(text)
    shown = list(Content(code, spans).split("\n", allow_blank=True))
    return shown if len(shown) == len(lines) else [Content(line) for line in lines]
