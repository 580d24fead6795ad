"""What a model thinks before it answers, folded into one line until someone wants to read it."""

from textual.content import Content
from textual.style import Style

from localinfer.tui.blocks import PROSE
from localinfer.tui.inline import Flow, Line, wrapped

_INDENT = Content("  ")


class Thought:
    """Text that grows behind its heading; a click on that unfolds and folds it."""

    close = False

    def __init__(self) -> None:
        self.unfolded = False
        self.over = False
        """Has the answer begun?"""
        self._flow = Flow()
        self._words = 0
        self._inside = False  # the last piece ended inside a word

    def __bool__(self) -> bool:
        return self._words > 0

    def add(self, text: str) -> None:
        """Go on with `text`, which is clean."""
        self._words += len(text.split()) - (self._inside and text[:1].strip() != "")
        self._inside = text[-1:].strip() != ""
        self._flow.add(Content.styled(text, "$text-muted"))

    def lines(self, width: int) -> list[Line]:
        what = f"thought, {self._words} words" if self.over else f"thinking, {self._words} words …"
        head = Content.styled(f"{'▾' if self.unfolded else '▸'} {what}", "italic $text-muted")
        lines = list(wrapped(head.stylize(Style.from_meta({"@click": ("fold", ())})), max(1, width)))
        if self.unfolded:
            room = max(1, min(width, PROSE) - len(_INDENT))
            lines += [line.behind(_INDENT) for line in self._flow.lines(room)]
        return lines
