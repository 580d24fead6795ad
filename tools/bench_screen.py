"""What the screen costs while answers are written: CPU a token as they get longer, and how soon Esc acts.

`python -m tools.bench_screen --panes 8 --tokens 4000 --speed 40`: the real app in a terminal of its own, on an engine
that says what it is told at that speed, or on `--model FOLDER`. A figure holds for an idle machine only.
"""

import argparse
import asyncio
import fcntl
import itertools
import json
import os
import pty
import select
import struct
import sys
import tempfile
import termios
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from localinfer.config import EngineConfig, SamplingParams
from localinfer.engine.opening import open_engine
from localinfer.engine.protocol import Engine, Request
from localinfer.events import Event, Finished, Stats
from localinfer.tui.app import ChatApp, make_app
from localinfer.tui.pacing import spare_pauses
from localinfer.tui.widgets.pane import ChatPane
from tests.tui.scripted import ScriptedEngine
from tests.tui.writing import Writer

PARTS = 4
"""The answers are looked at in so many parts."""


def text_of(kind: str, tokens: int) -> str:
    """An answer of this kind, long enough."""
    writer = Writer(1)
    if kind == "table":
        head = "| a | b | c |\n|---|:-:|--:|\n"
        return head + "".join(f"| {writer.word()} | {writer.word()} | {writer.word()} |\n" for _ in range(tokens))
    if kind == "code":
        return "```python\n" + "".join(f"    {writer.word()} = {writer.word()} + 1\n" for _ in range(tokens))
    if kind == "prose":
        return "".join(f"{writer.words(40)}.\n\n" for _ in range(tokens // 5))
    return "\n".join(writer.answer(10) for _ in range(tokens // 10 + 1))


class Writing(ScriptedEngine):
    """One that tells its streams apart, so that each is stopped by its own key."""

    def __init__(self, *scripts: Sequence[str], context: int) -> None:
        super().__init__(*scripts, context=context)
        self._handles = itertools.count(1)
        self._stopped: set[int] = set()

    def stream(self, request: Request) -> Iterator[Event]:
        handle = next(self._handles)
        for event in super().stream(request):
            if handle in self._stopped and isinstance(event, Stats):
                yield Finished(handle, "cancelled", tuple(range(event.completion_tokens)), event)
                return
            yield replace(event, handle=handle)

    def cancel(self, handle: int) -> None:
        self._stopped.add(handle)


def engine_of(kind: str, panes: int, tokens: int, speed: float) -> ScriptedEngine:
    text = text_of(kind, tokens)
    pieces = [text[at : at + 4] for at in range(0, 16 * tokens, 4)]  # as much again three times, to be stopped in it
    engine = Writing(*(pieces for _ in range(panes)), context=1_000_000)
    due = threading.local()

    def wait(index: int) -> None:
        if index <= 0:
            due.begin = time.monotonic()
        time.sleep(max(0.0, due.begin + index / speed - time.monotonic()))

    engine.before_piece = wait
    return engine


class Bench:
    """Drives the app from inside, and says what it saw as lines of JSON on `out`."""

    def __init__(self, app: ChatApp, panes: int, tokens: int, out: int) -> None:
        self._app, self._panes, self._tokens, self._out = app, panes, tokens, out
        self._tasks: list[asyncio.Task[None]] = []

    def begin(self) -> None:
        self._tasks.append(asyncio.ensure_future(self._run()))

    def _say(self, **what: object) -> None:
        os.write(self._out, json.dumps(what).encode() + b"\n")

    async def _run(self) -> None:
        app, across = self._app, True
        await asyncio.sleep(1)
        while len(panes := app.chats.panes) < self._panes:
            for pane in panes[: self._panes - len(panes)]:
                if await app.chats.split(pane, across=across) is None:
                    app.exit(message="there is no room for so many panes")
                    return
            across = not across
            await asyncio.sleep(1)
        for pane in app.chats.panes:
            await pane.send("go on")
        await self._watch(app.chats.panes)
        for pane in app.chats.panes:
            await self._stop(pane)
        app.exit()

    async def _watch(self, panes: tuple[ChatPane, ...]) -> None:
        """The CPU seconds of the app's thread for each part of the answers."""
        said, part = self._said(panes), 1
        cpu, now, whole = time.thread_time(), time.monotonic(), len(panes) * self._tokens
        while part <= PARTS:
            await asyncio.sleep(0.02)
            if self._said(panes) >= whole * part / PARTS:
                done, used, took = self._said(panes) - said, time.thread_time() - cpu, time.monotonic() - now
                self._say(part=part, tokens=done, cpu_s=used, wall_s=took)
                said, cpu, now, part = said + done, time.thread_time(), time.monotonic(), part + 1

    @staticmethod
    def _said(panes: tuple[ChatPane, ...]) -> int:
        return sum(pane.status.stats.completion_tokens if pane.status.stats else 0 for pane in panes)

    async def _stop(self, pane: ChatPane) -> None:
        """Ask for the key, and say when it had its effect."""
        self._app.chats.go(pane)
        await asyncio.sleep(0.05)
        if pane.busy:
            self._say(press=True)
            while not pane.stopping:
                await asyncio.sleep(0.001)
            stopped = time.monotonic()
            while pane.busy:
                await asyncio.sleep(0.001)
            self._say(stopped=stopped, over=time.monotonic())
            await asyncio.sleep(0.1)


def run_app(options: argparse.Namespace, out: int) -> None:
    """The app, in this process's terminal."""
    with tempfile.TemporaryDirectory() as folder:

        def opened(_ref: str, _progress: object) -> Engine:
            if options.model is not None:
                return open_engine(options.model, EngineConfig(parallel=options.panes))
            return engine_of(options.kind, options.panes, options.tokens, options.speed)

        app = make_app(
            opened,
            models=["m"],
            sampling=SamplingParams(ignore_eos=True),
            on_overflow="shift",
            store=Path(folder) / "chats.sqlite3",
            start_meter=lambda: None,
        )
        bench = Bench(app, options.panes, options.tokens, out)
        app.call_later(bench.begin)
        spare_pauses()
        app.run()


def lines_from(out: int, terminal: int) -> Iterator[dict[str, float]]:
    """What the app says, while what it draws is read and forgotten."""
    rest = b""
    while True:
        for ready in select.select([out, terminal], [], [])[0]:
            try:
                data = os.read(ready, 1 << 16)
            except OSError:  # the terminal is gone
                return
            if not data:
                return
            if ready == out:
                *whole, rest = (rest + data).split(b"\n")
                yield from map(json.loads, whole)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--panes", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=4000)
    parser.add_argument("--speed", type=float, default=40.0, help="tokens a second of each pane")
    parser.add_argument("--kind", choices=["mixed", "prose", "table", "code"], default="mixed")
    parser.add_argument("--model", type=Path, help="a folder with a model, which answers instead")
    parser.add_argument("--size", default="200x60")
    options = parser.parse_args()
    width, height = map(int, options.size.split("x"))
    read, write = os.pipe()
    child, terminal = pty.fork()
    if not child:
        fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))
        os.environ.update(TERM="xterm-256color", COLORTERM="truecolor")
        run_app(options, write)
        os._exit(0)
    os.close(write)
    pressed, waits, ends = 0.0, [], []
    sys.stdout.write("| tokens | CPU, ms a token | of the time |\n|---|---|---|\n")
    for line in lines_from(read, terminal):
        if "part" in line:
            each, share = 1000 * line["cpu_s"] / line["tokens"], line["cpu_s"] / line["wall_s"]
            sys.stdout.write(f"| {line['tokens']:.0f} | {each:.2f} | {share:.0%} |\n")
        elif "press" in line:
            pressed = time.monotonic()
            os.write(terminal, b"\x1b")
        elif "stopped" in line:
            waits.append(1000 * (line["stopped"] - pressed))
            ends.append(1000 * (line["over"] - pressed))
    os.waitpid(child, 0)
    for what, times in (("Esc acts after", waits), ("the answer is over after", ends)):
        sys.stdout.write(f"\n{what} {', '.join(f'{one:.0f}' for one in times)} ms\n")


if __name__ == "__main__":
    main()
