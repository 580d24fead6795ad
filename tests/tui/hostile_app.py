"""Run in a terminal by the tests: the real app, on an engine that says hostile things. Not a test itself."""

import sys
from pathlib import Path

from localinfer.engine.protocol import Engine
from localinfer.errors import UsageError
from localinfer.tui.app import run_app
from localinfer.tui.workers import LoadProgress
from tests.test_text import CORPUS
from tests.tui.scripted import ScriptedEngine

MARK = "SAFE-END"


def pieces() -> list[str]:
    """Every control sequence of the corpus, cut in three at awkward places, then Markdown that hides things."""
    cut: list[str] = []
    for sequence in CORPUS:
        half = max(1, len(sequence) // 2)
        cut += [sequence[:half], sequence[half:], "."]
    entities = "&#27;]0;OWNED&#7; &#x1b;[2J &#x9b;2J &#x202e;&ZeroWidthSpace;"
    links = "[x\x1b]8;;http://e\x07](http://e/\x1b]0;OWNED\x07) ![i\x9d0;OWNED\x9c](\x1b[2J) <http://e/%1b]0;OWNED>"
    return [*cut, "\n\n", entities, "\n\n", links, "\n\n```\x1b]0;OWNED\x07\n\x1b]0;OWNED\x07code\n```\n\n", MARK]


def main() -> None:
    def open_model(_ref: str, progress: LoadProgress) -> Engine:
        progress("\x1b]0;OWNED\x07weights", 1, 2)
        hint = "hint \x1b]0;OWNED\x07 [/b]"
        return ScriptedEngine(pieces(), [UsageError("\x1b]0;OWNED\x07[@click=app.exit]failed[/]", hint=hint)])

    sys.exit(run_app(open_model, models=["evil/\x1b]0;OWNED\x07name"], store=Path(sys.argv[1])))


if __name__ == "__main__":
    main()
