"""What stands in a real terminal is what is stored, after panes wrote at once while its window changed."""

import os
import random
import re
import shutil
import sys
import time
from pathlib import Path

import pytest

from localinfer.chats.store import ChatStore
from tests.tui.test_real import Terminal
from tests.tui.writing_app import PANES, answers

_WORDS = re.compile(r"(?:w|größe|語)\d+")
TALL = (150, 600)
"""Columns and lines of a window that holds a whole answer."""


def stored(path: Path) -> list[str]:
    """The answers that are kept."""
    with ChatStore(path) as store:
        chats = [store.get(chat.id)[1] for chat in store.list()]
    return sorted(turn.content for turns in chats for turn in turns if turn.role == "assistant")


def screen_with(terminal: Terminal, panes: int) -> str:
    """What is in the window when it shows so many panes and stands still."""
    end = time.monotonic() + 60
    before, now = "", "?"
    while before != now or now.count("Message") != panes:
        assert time.monotonic() < end, now
        time.sleep(0.5)
        before, now = now, terminal._run("capture-pane", "-p")
    return now


@pytest.mark.skipif(shutil.which("tmux") is None, reason="tmux is not installed")
def test_the_terminal_shows_what_is_stored(tmp_path: Path) -> None:
    env = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")}
    env |= {"TERM": "xterm-256color", "PYTHONPATH": os.pathsep.join(sys.path), "LC_ALL": "C.UTF-8"}
    path, chance = tmp_path / "chats.sqlite3", random.Random(1)
    terminal = Terminal(tmp_path / "tmux", f"{sys.executable} -m tests.tui.writing_app {path}", env)
    try:
        terminal.resize(200, 60)
        terminal.wait_for("ready")
        terminal.press("F8")
        terminal.press("go", "Enter")
        end = time.monotonic() + 300
        while stored(path) != sorted(answers()):
            assert time.monotonic() < end
            time.sleep(chance.random() / 2)
            terminal.resize(chance.randint(60, 220), chance.randint(20, 60))
        terminal.resize(*TALL)
        said = [_WORDS.findall(answer) for answer in answers()]
        left = list(range(PANES))
        while left:
            assert time.monotonic() < end, left
            screen_with(terminal, PANES)
            terminal.press("F4")  # this pane alone
            words = _WORDS.findall(screen_with(terminal, 1))
            assert words in said
            left = [number for number in left if said[number] != words]
            terminal.press("F4", "Tab")
        terminal.press("C-q")
        while terminal._run("list-sessions"):  # the app has ended when its session has
            assert time.monotonic() < end
            time.sleep(0.2)
    finally:
        terminal.close()


@pytest.mark.skipif(shutil.which("tmux") is None, reason="tmux is not installed")
def test_what_is_typed_while_the_program_starts_is_not_lost(tmp_path: Path) -> None:
    env = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")}
    env |= {"TERM": "xterm-256color", "PYTHONPATH": os.pathsep.join(sys.path), "LC_ALL": "C.UTF-8"}
    path, start = tmp_path / "chats.sqlite3", tmp_path / "start"
    program = f"while [ ! -e {start} ]; do sleep 0.1; done; {sys.executable} -m tests.tui.writing_app {path}"
    script = tmp_path / "run.sh"
    script.write_text(f'before=$(stty -g); {program}; [ "$before" = "$(stty -g)" ] && echo tty same; sleep 60')
    terminal = Terminal(tmp_path / "tmux", f"sh {script}", env)
    try:
        terminal.press("go on", "Enter", "and")
        terminal.wait_for("and")  # the terminal's own echo
        start.touch()
        terminal.press(" then")
        terminal.resize(200, 60)
        terminal.wait_for("│ and then")
        end = time.monotonic() + 60
        while len(stored(path)) < 1:
            assert time.monotonic() < end
            time.sleep(0.2)
        terminal.press("C-q")
        terminal.wait_for("tty same")
    finally:
        terminal.close()
    with ChatStore(path) as store:
        assert [store.get(chat.id)[1][0].content for chat in store.list()] == ["go on"]
