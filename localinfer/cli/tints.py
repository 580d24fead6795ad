"""`run --show-drafts`: the colours of those who guess, on a terminal."""

import os
from collections import Counter
from typing import TextIO

from localinfer.errors import UsageError

COLOURS = {"suffix": 36, "lookup": 34, "head": 32, "mtp": 92, "early": 33, "model": 35}
"""ANSI colours of the names of drafters."""

_MARKS = {"suffix": ("‹", "›"), "lookup": ("«", "»"), "head": ("⟨", "⟩"), "mtp": ("⟪", "⟫")} | {
    "early": ("⟦", "⟧"),
    "model": ("{", "}"),
}


class Tints:
    """Tints pieces of text and counts their tokens. Without colours guesses stand between brackets."""

    def __init__(self, *, colours: bool) -> None:
        self._colours = colours
        self._counts: Counter[str] = Counter()

    def piece(self, text: str, drafter: str | None, tokens: int) -> str:
        """`text`, cleaned already, as it is to be shown."""
        self._counts[drafter or ""] += tokens
        if drafter is None or not text:
            return text
        if self._colours:
            return f"\x1b[{COLOURS.get(drafter, 31)}m{text}\x1b[39m"
        left, right = _MARKS.get(drafter, ("[", "]"))
        return f"{left}{text}{right}"

    def legend(self) -> str:
        """Who guessed how many of the tokens."""
        parts = [
            f"{self.piece(name, name, 0)} {count}" for name, count in sorted(self._counts.items()) if name and count
        ]
        return "tokens by who guessed them: " + ", ".join([*parts, f"nobody {self._counts['']}"])


def tints_of(stream: TextIO | None) -> Tints:
    """Raises `UsageError` where `stream` is no terminal: a pipe gets the text alone."""
    from localinfer.cli.output import is_terminal

    if not is_terminal(stream):
        raise UsageError(
            "`--show-drafts` needs a terminal: what is piped on is the text alone",
            hint="`--json` has the counts by drafter, under `speculation`",
        )
    return Tints(colours="NO_COLOR" not in os.environ and os.environ.get("TERM") != "dumb")
