"""Records a real chat of four panes, in a real terminal, as the moving picture of the README.

`python -m tests.tui.record docs/chat.svg`: needs tmux and the starter model. Not a test.
"""

import io
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from rich.ansi import AnsiDecoder
from rich.console import Console

WIDTH, HEIGHT = 120, 36
FRAME_S = 1.0
"""Seconds that a frame is shown."""

QUESTIONS = (
    "Write a short story about a river.",
    "Explain how rain is made.",
    "Name five animals and say what each eats.",
    "What should I cook with rice and beans?",
)
_STYLE = """
<style>
.frame {{ visibility: hidden; animation: show {whole}s infinite step-end; }}
@keyframes show {{ 0% {{ visibility: visible; }} {share}% {{ visibility: hidden; }} 100% {{ visibility: hidden; }} }}
</style>
"""


class Tmux:
    """One terminal."""

    def __init__(self, folder: Path) -> None:
        self._words = ["tmux", "-S", str(folder / "socket"), "-f", "/dev/null"]

    def run(self, *words: str) -> str:
        return subprocess.run([*self._words, *words], capture_output=True, text=True, check=True).stdout

    def press(self, *keys: str) -> None:
        self.run("send-keys", *keys)

    def screen(self) -> str:
        return self.run("capture-pane", "-e", "-p", "-N")

    def wait_for(self, text: str, count: int = 1) -> None:
        for _ in range(600):
            if self.run("capture-pane", "-p").count(text) >= count:
                return
            time.sleep(0.2)
        raise SystemExit(f"{text!r} did not appear in:\n{self.run('capture-pane', '-p')}")


def frames() -> Iterator[str]:
    """What stands on the screen, a moment after each thing that happens."""
    with tempfile.TemporaryDirectory() as folder:
        tmux = Tmux(Path(folder))
        command = f"{Path(sys.executable).with_name('localinfer')} chat starter:INT8 -n 300 --no-remember"
        os.environ["TERM"] = "xterm-256color"
        tmux.run("new-session", "-d", "-e", "COLORTERM=truecolor", "-x", str(WIDTH), "-y", str(HEIGHT), command)
        tmux.run("set", "-g", "default-terminal", "tmux-256color")
        try:
            tmux.wait_for("ready")
            yield tmux.screen()
            for key, wide in (("F5", 2), ("F6", 3), ("M-Left", 3), ("F6", 4)):
                tmux.press(key)
                if key != "M-Left":
                    tmux.wait_for("Message", wide)
            yield tmux.screen()
            for question in QUESTIONS:
                tmux.press("Tab")
                time.sleep(1.5)  # a slow machine takes its time to go to the other pane
                tmux.press(question, "Enter")
            for _ in range(8):
                time.sleep(0.7)
                yield tmux.screen()
            tmux.wait_for("ready", 4)
            yield tmux.screen()
            tmux.press("F3")
            time.sleep(1.5)
            yield tmux.screen()
        finally:
            tmux.run("kill-server")


def picture(screen: str, name: str) -> str:
    """One screen as the inside of an SVG."""
    console = Console(record=True, width=WIDTH, file=io.StringIO(), force_terminal=True)
    for line in list(AnsiDecoder().decode(screen))[:HEIGHT]:  # colours go on from line to line
        console.print(line, no_wrap=True, crop=True)
    svg = console.export_svg(title="localinfer chat", unique_id=name)
    return re.sub(r"\s*@font-face\s*\{.*?\}", "", svg, flags=re.DOTALL)


def moving(screens: list[str]) -> str:
    """All of them, one after the other, for ever."""
    whole = FRAME_S * len(screens)
    pictures = [picture(screen, f"f{i}") for i, screen in enumerate(screens)]
    box = re.search(r'viewBox="[^"]*"', pictures[0])
    assert box is not None
    parts = [f'<g class="frame" style="animation-delay: {i * FRAME_S}s">{one}</g>' for i, one in enumerate(pictures)]
    style = _STYLE.format(whole=whole, share=f"{100 / len(screens):.3f}")
    return f'<svg xmlns="http://www.w3.org/2000/svg" {box[0]}>{style}{"".join(parts)}</svg>\n'


if __name__ == "__main__":
    seen = list(frames())
    Path(sys.argv[1]).write_text(moving(seen), encoding="utf-8")
    sys.stdout.write(f"{len(seen)} frames, {Path(sys.argv[1]).stat().st_size} bytes\n")
