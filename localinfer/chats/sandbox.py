"""Runs a chat template in a process that can be killed, so that no template can hang or fill this one."""

import atexit
import contextlib
import json
import os
import subprocess
import sys
import threading
from collections import OrderedDict
from pathlib import Path
from typing import Any, Self

from localinfer.errors import Corrupt, LocalInferError, UsageError
from localinfer.text import one_line

RENDER_SECONDS = 2.0
"""Processor time that one rendering may take; a real template takes some milliseconds, the first time some more."""

PATIENCE = 15
"""How many times as long it may take on the clock of a busy machine."""

START_SECONDS = 60.0
"""Longest wait for the process itself, on a machine that is busy loading a model."""

SOURCE_LIMIT = 256_000
OUTPUT_LIMIT = 4_000_000
"""Characters a template may be long, and may add to the text of the messages."""

_HINT = "pull the model again, or send plain text with `--raw`"


MOST_IDLE = 4
"""Processes that are kept, each for a template of its own: none sees what another model's template was given."""


class Sandbox:
    """One child process that renders templates, started when first needed. Safe to call from any thread."""

    command = "from localinfer.chats.sandbox_child import main; main()"

    def __init__(self, *, seconds: float = RENDER_SECONDS) -> None:
        self._seconds = seconds
        self._lock = threading.Lock()
        self._child: subprocess.Popen[str] | None = None
        self.held: tuple[str, ...] = ()
        """What the running child has given up, such as `Landlock 7`; it is asked for by `start`."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def start(self) -> tuple[str, ...]:
        """Start the child if there is none, and say what it has given up. Raises `Corrupt` if it cannot start."""
        self._ask({"template": "", "data": {}, "limit": 0})
        return self.held

    def render(self, template: str, data: dict[str, Any], *, limit: int = OUTPUT_LIMIT) -> str:
        """The template's output for `data` (plain strings, numbers, lists and dicts only).

        Raises `Corrupt` if the template is broken, takes too long, or wants too much memory or output (`limit`
        characters); `UsageError` if it refuses the conversation through `raise_exception`.
        """
        if len(template) > SOURCE_LIMIT:
            raise Corrupt(f"chat template refused: {len(template)} characters long, over {SOURCE_LIMIT}", hint=_HINT)
        answer = self._ask({"template": template, "data": data, "limit": limit})
        if "text" in answer:
            return answer["text"]
        if "refused" in answer:
            raise UsageError(
                f"chat template refused this conversation: {one_line(answer['refused'], 300)}",
                hint="leave out the system prompt, start a new chat, or send plain text",
            )
        raise Corrupt(f"chat template refused: {one_line(answer['error'], 300)}", hint=_HINT)

    def close(self) -> None:
        """End the child, if there is one."""
        with self._lock:
            self._stop()

    def give_up(self) -> None:
        """End the child while it starts, without waiting for it."""
        if self._child is not None:
            self._child.kill()
        self.close()

    def _ask(self, request: dict[str, Any]) -> dict[str, str]:
        line = json.dumps(request | {"seconds": self._seconds}) + "\n"
        with self._lock:
            try:
                line = self._exchange(self._running_child(), line, PATIENCE * self._seconds)
            except OSError as error:  # the child cannot start, or was killed while we wrote
                self._stop()
                raise Corrupt(f"chat template refused: its process failed ({error})", hint=_HINT) from None
            except BaseException:  # Ctrl-C between question and answer: the next question must not read this answer
                self._stop()
                raise
            if line:
                answer: dict[str, str] = json.loads(line)
                return answer
            self._stop()
            return {"error": f"it took over {self._seconds:g} s, or too much memory"}

    def _running_child(self) -> subprocess.Popen[str]:
        if self._child is not None and self._child.poll() is None:
            return self._child
        self._stop()
        return self._start()

    def _start(self) -> subprocess.Popen[str]:
        """Start the child with little of our environment, out of reach of the terminal's Ctrl-C."""
        # the path is there where we are not installed, too
        prelude = f"import sys; sys.path.insert(0, {str(Path(__file__).parents[2])!r})"
        passed = ("PATH", "PYTHONPATH", "PYTHONHOME", "SYSTEMROOT", "LD_LIBRARY_PATH", "TZ")
        self._child = subprocess.Popen(
            [sys.executable, "-P", "-W", "ignore", "-c", f"{prelude}\n{self.command}"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            encoding="utf-8",
            env={name: os.environ[name] for name in passed if name in os.environ} | {"PYTHONUTF8": "1"},
            start_new_session=True,
        )
        said = self._exchange(self._child, "", START_SECONDS)
        if not said:
            raise OSError("it did not start")
        self.held = tuple(json.loads(said)["held"])
        return self._child

    @staticmethod
    def _exchange(child: subprocess.Popen[str], request: str, seconds: float) -> str:
        """Send one line, read one line; empty if the child ended or had to be killed."""
        assert child.stdin is not None
        assert child.stdout is not None
        alarm = threading.Timer(seconds, child.kill)
        alarm.daemon = True
        alarm.start()
        try:
            child.stdin.write(request)
            child.stdin.flush()
            line = child.stdout.readline()
            return line if line.endswith("\n") else ""
        finally:
            alarm.cancel()

    def _stop(self) -> None:
        child, self._child = self._child, None
        if child is not None:
            child.kill()
            child.wait()
            for pipe in (child.stdin, child.stdout):
                if pipe is not None:
                    with contextlib.suppress(OSError):  # bytes that a dead child did not read
                        pipe.close()


_shared: OrderedDict[str, Sandbox] = OrderedDict()
_spare: list[Sandbox] = []
_shared_lock = threading.Lock()


def prepare() -> None:
    """Start a process for the next template while the caller does something else, such as loading a model."""
    with _shared_lock:
        if _spare:
            return
        box = Sandbox()
        _spare.append(box)

    def start() -> None:
        with contextlib.suppress(LocalInferError):  # whoever needs it then tries again, and says why
            box.start()

    threading.Thread(target=start, daemon=True).start()


def render(template: str, data: dict[str, Any], *, limit: int = OUTPUT_LIMIT) -> str:
    """`Sandbox.render` in the process that all chats of this template share."""
    with _shared_lock:
        box = _shared.get(template) or (_spare.pop() if _spare else Sandbox())
        _shared[template] = box
        _shared.move_to_end(template)
        oldest = _shared.popitem(last=False)[1] if len(_shared) > MOST_IDLE else None
    if oldest is not None:
        oldest.close()
    return box.render(template, data, limit=limit)


@atexit.register
def close() -> None:
    """End all processes."""
    with _shared_lock:
        for box in _spare:
            box.give_up()
        while _shared:
            _shared.popitem()[1].close()
        _spare.clear()
