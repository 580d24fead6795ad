"""What could be typed after a slash."""

from textual.content import Content
from textual.widgets import Static

from localinfer.text import one_line

MOST = 6
"""Lines of hints; what does not fit is found by typing on."""


class Hints(Static):
    """A few lines above the box, there only while a command is typed."""

    def __init__(self) -> None:
        super().__init__(Content(""), markup=False)
        self.display = False

    def show(self, pairs: list[tuple[str, str]]) -> None:
        """Each command as it is written, with what it does; nothing hides the lines."""
        self.display = bool(pairs)
        width = max((len(name) for name, _ in pairs[:MOST]), default=0)
        lines = [
            Content.assemble(
                Content.styled(one_line(name, 60).ljust(width + 2), "bold $primary"),
                Content.styled(one_line(does, 120), "$foreground 60%"),
            )
            for name, does in pairs[:MOST]
        ]
        self.update(Content("\n").join(lines))
