"""What was typed before: Up brings it back, Down goes on to what was being typed."""

from collections.abc import Callable, Sequence

from localinfer.errors import LocalInferError
from localinfer.tui.commands import escaped

MOST_PROMPTS = 200
"""Prompts of earlier chats that can be brought back."""


class History:
    """Lines as they stood in the box, the latest first. `load` gives the prompts of earlier chats, the latest first."""

    def __init__(self, load: Callable[[int], Sequence[str]]) -> None:
        self._load = load
        self._typed: list[str] = []
        self._lines: list[str] = []
        self._index = 0  # 0 is what is being typed
        self._draft = ""
        self._changed: dict[str, str] = {}  # lines that were brought back and written on, as they stand now

    def add(self, line: str) -> None:
        """This was sent."""
        if line.strip():
            self._typed.insert(0, line)
        self._index = 0
        self._changed.clear()

    def move(self, now: str, by: int) -> str | None:
        """The line that is `by` further back (or nearer, if negative); `now` stands in the box. None at either end."""
        if self._index == 0:
            self._draft, self._lines = now, self._all()
        else:
            self._changed[self._lines[self._index - 1]] = now
        index = self._index + by
        if not 0 <= index <= len(self._lines):
            return None
        self._index = index
        if not index:
            return self._draft
        line = self._lines[index - 1]
        return self._changed.get(line, line)

    def _all(self) -> list[str]:
        try:
            earlier = [escaped(prompt) for prompt in self._load(MOST_PROMPTS)]
        except LocalInferError:  # told where the chat is saved
            earlier = []
        return list(dict.fromkeys([*self._typed, *earlier]))
