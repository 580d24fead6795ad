"""How often answers are drawn: the engine needs the interpreter and the cores more than the screen does."""

import gc
import time
from collections.abc import Callable

SHARE = 0.2
"""Of the time, what the app's thread may compute while answers are drawn."""

FASTEST_S, SLOWEST_S = 0.1, 0.5
"""Seconds from one drawing to the next."""

_STEP = 1.3


class Pacing:
    """Where drawing takes long, on many panes and slow machines, fewer panes are drawn at a time, and less often, so
    that it takes `SHARE` at most.

    `cpu` gives the seconds that this thread has computed.
    """

    def __init__(self, clock: Callable[[], float], cpu: Callable[[], float] = time.thread_time) -> None:
        self._clock = clock
        self._cpu = cpu
        self._drawn_at = clock() - SLOWEST_S
        self._cpu_then = cpu()
        self.every_s = FASTEST_S
        self.together = 1
        """Panes to draw at a time."""

    @property
    def wait_s(self) -> float:
        """Seconds until the next drawing is due; 0 if it is."""
        return max(0.0, self._drawn_at + self.every_s - self._clock())

    def drawn(self, waiting: int) -> None:
        """Draw now, while so many panes wait for it; what was computed since the last time tells how long to wait for
        the next."""
        now, cpu = self._clock(), self._cpu()
        between = now - self._drawn_at
        if between > 0 and cpu - self._cpu_then > SHARE * between:
            if self.together > 1:
                self.together -= 1
            else:
                self.every_s = min(SLOWEST_S, self.every_s * _STEP)
        elif self.every_s > FASTEST_S:
            self.every_s = max(FASTEST_S, self.every_s / _STEP)
        elif self.together < waiting:
            self.together += 1
        self._drawn_at, self._cpu_then = now, cpu


def spare_pauses() -> None:
    """Let the garbage collector leave alone what is there when the app starts, and look at all of the rest more rarely:
    keys wait meanwhile, 0.2 s on a slow core."""
    gc.freeze()
    gc.set_threshold(20_000, 20, 100)
