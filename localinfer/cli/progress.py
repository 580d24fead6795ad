"""How far a job is, on standard error: a line that rewrites itself on a terminal; elsewhere one plain line, or none."""

import contextlib
import json as json_text
import os
import sys
import time
from collections import deque
from collections.abc import Callable

from localinfer.cli.output import is_terminal, note
from localinfer.errors import size
from localinfer.events import Speed
from localinfer.text import one_line

REDRAW_S = 0.1
"""Seconds between two drawings of the line."""

LINE_S = 1.0
"""Seconds between two lines of JSON within a phase."""

LOOK_BACK_S = 60.0
"""What is left is told from the pace of these last seconds: what an earlier run has done goes by much faster."""


class Progress:
    """`with Progress(quiet) as progress: progress("weights", done, total)`; also the callback of every job.

    On a terminal one line is drawn over itself and removed at the end. Elsewhere a `long` job says each new phase in a
    plain line, and a short one says nothing. With `json` every line is an object `{"event": "progress", "phase",
    "done", "total", "per_second", "seconds_left"}`, one a second at most and one at each end of a phase. A job that
    knows its `speed` sets it before it tells how far it is.
    """

    def __init__(
        self,
        *,
        quiet: bool = False,
        in_bytes: bool = False,
        long: bool = False,
        json: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ):
        self._quiet = quiet
        self._long = long
        self._json = json
        self.speed: Speed | None = None
        self._live = not json and is_terminal(sys.stderr) and os.environ.get("TERM", "dumb") != "dumb"
        self._in_bytes = in_bytes
        self._clock = clock
        self._phase = ""
        self._drawn_at = -REDRAW_S
        self._is_drawn = False
        self._marks: deque[tuple[float, int]] = deque()

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *_: object) -> None:
        self.clear()

    def __call__(self, phase: str, done: int, total: int) -> None:
        """`done` of `total` steps (or bytes) of `phase`; total 0 when nobody knows."""
        told, self.speed = self.speed, None
        if self._quiet:
            return
        if phase != self._phase:
            self._marks.clear()
        if self._json:
            self._write_json(phase, done, total, told)
            return
        if not self._live:
            if self._long and phase != self._phase:
                note(f"{phase}: {size(total)}" if self._in_bytes and total > 0 else f"{phase} …")
            self._phase = phase
            return
        now = self._clock()
        if phase == self._phase and done < total and now - self._drawn_at < REDRAW_S:
            return
        share = f"  {100 * done // total:3d} %{self._pace(now, done, total, told)}" if total > 0 else ""
        self._phase, self._drawn_at = phase, now
        amount = f"  {size(done)} of {size(total)}" if self._in_bytes and total > 0 else ""
        self._draw(f"{one_line(phase, 60)}{share}{amount}")

    def _pace(self, now: float, done: int, total: int, told: Speed | None) -> str:
        """How fast a long job goes, if it knows, and how long it will still take; nothing before that can be told."""
        if not self._long or done >= total:
            return ""
        speed = told or self._speed(now, done, total)
        rate = f"  {_short(speed.per_second)}{speed.unit}/s" if speed.unit and speed.per_second else ""
        return rate + ("" if speed.seconds_left is None else f"  {_rounded(speed.seconds_left)} left")

    def _speed(self, now: float, done: int, total: int) -> Speed:
        """From how far it has come lately."""
        if not self._marks or now - self._marks[-1][0] >= 1:
            self._marks.append((now, done))
        while len(self._marks) > 2 and now - self._marks[1][0] >= LOOK_BACK_S:
            self._marks.popleft()
        then, before = self._marks[0]
        if now - then < 3 or done <= before:
            return Speed(0.0, None)
        rate = (done - before) / (now - then)
        return Speed(rate, (total - done) / rate)

    def _write_json(self, phase: str, done: int, total: int, told: Speed | None) -> None:
        now = self._clock()
        if phase == self._phase and done < total and now - self._drawn_at < LINE_S:
            return
        self._phase, self._drawn_at = phase, now
        speed = told or self._speed(now, done, total)
        left = None if speed.seconds_left is None else round(speed.seconds_left, 1)
        event = {"event": "progress", "phase": phase, "done": done, "total": total}
        note(json_text.dumps(event | {"per_second": float(f"{speed.per_second:.4g}"), "seconds_left": left}))

    def clear(self) -> None:
        """Take the line away, so that other words can be written."""
        if self._is_drawn:
            self._draw("")
            self._is_drawn = False
            _drawn.discard(self)

    def _draw(self, text: str) -> None:
        with contextlib.suppress(OSError, ValueError):
            width = os.get_terminal_size(sys.stderr.fileno()).columns
            sys.stderr.write("\r" + text[: max(width - 1, 1)] + "\x1b[K")
            sys.stderr.flush()
            self._is_drawn = True
            _drawn.add(self)


_drawn = set[Progress]()


def note_over(text: str) -> None:
    """One line of text, from any thread, where a line that rewrites itself may stand."""
    for one in list(_drawn):
        one.clear()
    note(text)


def _short(number: float) -> str:
    """`2.3 M ` of 2345678: three digits at most."""
    for unit in ("", "k ", "M "):
        if number < 1000:
            return f"{number:.0f} " if not unit else f"{number:.1f} {unit}"
        number /= 1000
    return f"{number:.1f} G "


def _rounded(seconds: float) -> str:
    unit, name = (1, "s") if seconds < 100 else (60, "min") if seconds < 6000 else (3600, "h")
    return f"{seconds / unit:.0f} {name}"
