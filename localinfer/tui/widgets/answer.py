"""What the model says, drawn while it says it: each line once, and again only where the width changes."""

import re
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rich.segment import Segment
from textual.content import Content
from textual.geometry import Region, Size
from textual.message import Message
from textual.selection import Selection
from textual.strip import Strip
from textual.widget import Widget

from localinfer.chats.thinking import CLOSING, Thinking
from localinfer.text import StreamCleaner
from localinfer.tui.blocks import PROSE, Block
from localinfer.tui.document import Document
from localinfer.tui.inline import EMPTY, Flow, Line
from localinfer.tui.thought import Thought

_CLOSED = re.compile(rf"(?:^|\n){re.escape(CLOSING)}")
"""Where a thought ends that began in the prompt."""

TINTS = {
    "suffix": "$primary",
    "lookup": "$accent",
    "head": "$success",
    "mtp": "$success",
    "early": "$warning",
    "model": "$secondary",
}
"""The colours of those who guess."""


class _Page:
    """Blocks below each other, as lines of one width."""

    def __init__(self) -> None:
        self.width = 0
        self._ends: list[int] = []
        """Of each closed block, the line after its last."""
        self._closed: list[Sequence[Line]] = []
        self._open: list[Line] = []
        self.strips: dict[int, Strip] = {}
        """Lines as they were drawn, by number."""

    def lay_out(self, closed: Sequence[Block], opened: Sequence[Block], width: int) -> None:
        """Lay out the closed blocks that are new, and all that are open."""
        if width != self.width:
            self.width, self._ends, self._closed, self._open = width, [], [], []
            self.strips.clear()
        for number in range(self.begin, len(self)):
            self.strips.pop(number, None)
        for block in closed[len(self._closed) :]:
            lines = list(_spaced(block, width, first=not self._closed))
            self._closed.append(lines)
            self._ends.append(self.begin + len(lines))
        self._open = []
        for number, block in enumerate(opened):
            self._open.extend(_spaced(block, width, first=not self._closed and not number))

    @property
    def begin(self) -> int:
        """The first line that may still change."""
        return self._ends[-1] if self._ends else 0

    def __len__(self) -> int:
        return self.begin + len(self._open)

    def __getitem__(self, number: int) -> Line:
        if number >= self.begin:
            return self._open[number - self.begin]
        block = bisect_right(self._ends, number)
        return self._closed[block][number - (self._ends[block - 1] if block else 0)]


def _spaced(block: Block, width: int, *, first: bool) -> Iterator[Line]:
    if not (first or block.close):
        yield Line(EMPTY)
    yield from block.lines(width)


class Drawn(Widget):
    """Blocks that grow. Nothing here waits for anything: what was written is there at the next drawing."""

    ALLOW_SELECT = True

    @dataclass
    class Address(Message):
        """The user asks where a link leads."""

        address: str

    @dataclass
    class Copied(Message):
        """The user takes this code."""

        code: str

    def __init__(self) -> None:
        super().__init__()
        self._page = _Page()

    def blocks(self) -> tuple[Sequence[Block], Sequence[Block]]:
        """Those that are closed, and those that may change."""
        raise NotImplementedError

    @property
    def drawn(self) -> str:
        """The text on the widget, without the line ends that only its width makes."""
        return _joined([self._page[number] for number in range(len(self._page))])

    def redraw(self) -> None:
        """The blocks have changed."""
        width, height = self.size
        begin = self._page.begin if self._page.width == width else 0
        if width:
            self._page.lay_out(*self.blocks(), width)
        if begin < height:
            self.refresh(Region(0, begin, width, height - begin))
        if not width or len(self._page) != height:
            self._layout_updates += 1  # a layout for another widget may have measured this one since it last asked
            self.refresh(layout=True)

    def get_content_width(self, container: Size, viewport: Size) -> int:
        return container.width

    def get_content_height(self, container: Size, viewport: Size, width: int) -> int:
        self._page.lay_out(*self.blocks(), width)
        return len(self._page)

    def notify_style_update(self) -> None:
        super().notify_style_update()
        self._page.strips.clear()

    def render_line(self, y: int) -> Strip:
        if self._page.width != self.size.width:  # another width was only asked about
            self._page.lay_out(*self.blocks(), self.size.width)
        if y >= len(self._page):
            return Strip.blank(self.size.width, self.visual_style.rich_style)
        selection = self.text_selection
        span = selection.get_span(y) if selection is not None else None
        if span is not None:
            return self._strip(y, span)
        if y not in self._page.strips:
            self._page.strips[y] = self._strip(y, None)
        return self._page.strips[y]

    def _strip(self, y: int, selected: tuple[int, int] | None) -> Strip:
        content, _, fill = self._page[y]
        if selected is not None:
            start, end = selected
            style = self.screen.get_visual_style("screen--selection", partial=True)
            content = content.stylize(style, start, len(content) if end == -1 else end)
        base, x = self.visual_style, 0
        segments: list[Segment] = []
        for text, style in content.render(base, end="", parse_style=self._get_style):
            segments.append(Segment(text, (base + style).rich_style_with_offset(x, y)))
            x += len(text)
        space = base + self._get_style(fill) if fill else base
        return Strip(segments, content.cell_length).adjust_cell_length(self.size.width, space.rich_style)

    def get_selection(self, selection: Selection) -> tuple[str, str] | None:
        start, end = selection
        last = len(self._page) - 1 if end is None else min(end.y, len(self._page) - 1)
        lines = [self._page[number] for number in range(start.y if start else 0, last + 1)]
        if lines and end is not None and end.y == last:
            lines[-1] = lines[-1]._replace(content=lines[-1].content[: end.x])
        if lines and start is not None:
            lines[0] = lines[0]._replace(content=lines[0].content[start.x :])
        return _joined(lines), "\n"

    def selection_updated(self, selection: Selection | None) -> None:
        self.refresh()

    def action_show_address(self, address: str) -> None:
        self.post_message(self.Address(address))


def _joined(lines: Sequence[Line]) -> str:
    parts: list[str] = []
    for number, (content, joint, _) in enumerate(lines):
        parts += [("\n" if joint is None else joint) if number else "", content.plain]
    return "".join(parts)


class Answer(Drawn):
    """What the model says, as Markdown; what it thinks before that is folded."""

    def __init__(self, text: str = "") -> None:
        super().__init__()
        self._cleaner = StreamCleaner()
        self._source: list[str] = []
        self._begin(inside=False)
        if text:
            self.write(text)
            self.finish()

    @property
    def source(self) -> str:
        """All that was written, clean."""
        return "".join(self._source)

    @property
    def codes(self) -> list[str]:
        """The blocks of code in it."""
        return [fence.text for fence in self._document.codes]

    def write(self, piece: str, drafter: str | None = None) -> None:
        """Add a piece, whoever guessed it."""
        text = self._cleaner.push(piece)
        self._source.append(text)
        self._take(*self._thinking.push(text))
        self.redraw()

    def finish(self) -> None:
        """No more pieces."""
        self._take(*self._thinking.finish())
        self._thought.over = True
        self._document.finish()
        self.redraw()

    def _begin(self, *, inside: bool) -> None:
        """Nothing is drawn yet; `inside`: the prompt ended where the model thinks already."""
        self._thinking = Thinking(begun=inside)
        self._thought = Thought()
        self._document = Document()
        self._content = ""  # the end of what was fed, in which a mark may begin

    def _take(self, thought: str, content: str) -> None:
        if thought:
            self._thought.add(thought)
        self._thought.over = not self._thinking.inside
        if not content:
            return
        if not self._thought and _CLOSED.search(self._content + content):
            self._begin(inside=True)
            self._page = _Page()
            self._take(*self._thinking.push(self.source))
            return
        self._content = (self._content + content)[-len(CLOSING) - 1 :]
        self._document.feed(content)

    def blocks(self) -> tuple[Sequence[Block], Sequence[Block]]:
        closed, opened = self._document.closed, self._document.open
        if not self._thought:
            return closed, opened
        return ([self._thought, *closed], opened) if self._thought.over else ((), (self._thought,))

    def action_fold(self) -> None:
        """Show the thinking, or hide it again."""
        self._thought.unfolded = not self._thought.unfolded
        self._page = _Page()
        self.redraw()

    def action_copy_code(self, number: int) -> None:
        codes = self.codes
        if number < len(codes):
            self.post_message(self.Copied(codes[number]))


class _Tinted:
    """Plain text that grows."""

    close = True

    def __init__(self) -> None:
        self.flow = Flow()

    def lines(self, width: int) -> list[Line]:
        return self.flow.lines(max(1, min(width, PROSE)))


class TintedAnswer(Drawn):
    """What the model says as it comes, no Markdown, each token in the colour of who guessed it."""

    def __init__(self) -> None:
        super().__init__()
        self._cleaner = StreamCleaner()
        self._text = _Tinted()
        self._source: list[str] = []

    @property
    def source(self) -> str:
        """All that was written, clean."""
        return "".join(self._source)

    def write(self, piece: str, drafter: str | None = None) -> None:
        """Add a piece that `drafter` guessed."""
        text = self._cleaner.push(piece)
        self._source.append(text)
        style = f"underline {TINTS.get(drafter, '$error')}" if drafter else ""
        self._text.flow.add(Content.styled(text, style))
        self.redraw()

    def finish(self) -> None:
        """No more pieces; it stays as it is."""

    def blocks(self) -> tuple[Sequence[Block], Sequence[Block]]:
        return (), (self._text,)
