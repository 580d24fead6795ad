"""Run in a terminal by the tests: the real app, on an engine that writes random Markdown. Not a test itself."""

import random
import sys
import time
from pathlib import Path

from localinfer.engine.protocol import Engine
from localinfer.tui.app import run_app
from localinfer.tui.workers import LoadProgress
from tests.tui.scripted import ScriptedEngine
from tests.tui.writing import Writer

PANES = 4


def answers() -> list[str]:
    """What the panes will say."""
    writer = Writer(1)
    return [writer.answer(12) for _ in range(PANES)]


def main() -> None:
    engine = ScriptedEngine(*(Writer(2).pieces(answer) for answer in answers()), context=100_000)
    chance = random.Random(1)

    def wait(_index: int) -> None:
        time.sleep(chance.choice((0, 0.005, 0.02)))

    engine.before_piece = wait

    def open_model(_ref: str, _progress: LoadProgress) -> Engine:
        return engine

    sys.exit(run_app(open_model, models=["m"] * PANES, store=Path(sys.argv[1])))


if __name__ == "__main__":
    main()
