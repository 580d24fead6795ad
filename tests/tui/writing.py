"""Random Markdown of every kind whose words are numbered, and what of it stands on the screen."""

import random
import re
from collections.abc import Iterator

from textual.geometry import Region
from textual.widget import Widget

from localinfer.tui.app import ChatApp

_WORD = re.compile(r"[^\W_]+")


class Writer:
    """Writes answers; each word is another one, so that none can be lost, doubled or moved unseen."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self._count = 0

    def word(self) -> str:
        self._count += 1
        return self.chance.choice(("w{}", "w{}", "w{}", "größe{}", "語{}")).format(self._count)

    def words(self, most: int) -> str:
        return " ".join(self._marked() for _ in range(self.chance.randint(1, most)))

    def _marked(self) -> str:
        form = self.chance.choice(
            ("{}", "{}", "{}", "**{}**", "*{}*", "`{}`", "~~{}~~", "{} 👩‍👧", "({}),", "$a_{{{}}}$")
        )
        return form.format(self.word())

    def answer(self, blocks: int) -> str:
        kinds = (self._prose, self._heading, self._list, self._table, self._code, self._quote, self._math)
        return "\n\n".join(self.chance.choice(kinds)() for _ in range(blocks)) + "\n"

    def pieces(self, text: str, most: int = 9) -> list[str]:
        """`text` cut at random places."""
        cut, at = [], 0
        while at < len(text):
            size = self.chance.randint(1, most)
            cut.append(text[at : at + size])
            at += size
        return cut

    def _prose(self) -> str:
        return "\n".join(self.words(self.chance.choice((5, 40))) for _ in range(self.chance.randint(1, 3)))

    def _heading(self) -> str:
        return "#" * self.chance.randint(1, 4) + " " + self.words(5)

    def _list(self) -> str:
        lines = []
        for number in range(1, self.chance.randint(2, 9)):
            mark = self.chance.choice((f"{number}.", "-", "  -"))
            lines.append(f"{mark} {self.words(8)}")
        return "\n".join(lines)

    def _table(self) -> str:
        columns = self.chance.randint(1, 3)
        rules = [self.chance.choice(("---", ":---", ":-:", "---:")) for _ in range(columns)]
        rows = [[self.word() for _ in range(columns)] for _ in range(self.chance.randint(2, 40))]
        return "\n".join("| " + " | ".join(row) + " |" for row in (rows[0], rules, *rows[1:]))

    def _code(self) -> str:
        lines = ["    " * self.chance.randint(0, 1) + self.word() for _ in range(self.chance.randint(1, 20))]
        mark = self.chance.choice(("```", "~~~"))
        return "\n".join([mark + self.chance.choice(("", "python")), *lines, mark])

    def _quote(self) -> str:
        return "\n".join(f"> {self.words(9)}" for _ in range(self.chance.randint(1, 3)))

    def _math(self) -> str:
        return f"\\[\n{self.word()} \\\\\n= {self.word()}\n\\]"


def words_of(text: str) -> list[str]:
    return _WORD.findall(text)


def leaves(widget: Widget) -> Iterator[Widget]:
    """The widgets in this one that draw something."""
    for child in widget.walk_children(with_self=True):
        if isinstance(child, Widget) and not child.children:
            yield child


def text_on(widget: Widget) -> str:
    """What `widget` and those in it draw, on the screen or scrolled away."""
    return "\n".join(leaf.render_line(y).text for leaf in leaves(widget) for y in range(leaf.size.height))


def misdrawn(app: ChatApp, widget: Widget, window: Region) -> list[str]:
    """Lines in `window` of the screen that are not what `widget` draws there."""
    rows = app.screen._compositor.render_strips()
    wrong = []
    for leaf in leaves(widget):
        region = leaf.content_region
        for y in range(region.height):
            row = region.y + y
            if window.y <= row < window.bottom:
                shown, meant = rows[row].crop(region.x, region.right).text.rstrip(), leaf.render_line(y).text.rstrip()
                if shown != meant:
                    wrong.append(f"row {row} is {shown!r}, not {meant!r}")
    return wrong
