"""A lock that is given in turn."""

import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType


class FairLock:
    """As `threading.RLock`, but those who wait get it in the order in which they asked.

    Python's own locks promise nothing of the kind: threads that step in a loop can keep others out for minutes.
    """

    def __init__(self) -> None:
        self._door = threading.Lock()  # held for a moment, to look at the line
        self._line: deque[threading.Lock] = deque()  # each is let go of when it is its turn
        self._taken = False
        self._owner: int | None = None
        self._depth = 0

    def __enter__(self) -> None:
        me = threading.get_ident()
        if self._owner != me:
            self._wait()
            self._owner = me
        self._depth += 1

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None, /
    ) -> None:
        self._depth -= 1
        if self._depth == 0:
            self._owner = None
            self._pass_on()

    @contextmanager
    def ahead(self) -> Iterator[None]:
        """Hold it next, before all who wait: for what is short and rare."""
        if self._owner != threading.get_ident():
            self._wait(ahead=True)
            self._owner = threading.get_ident()
        self._depth += 1
        try:
            yield
        finally:
            self.__exit__(None, None, None)

    def _wait(self, *, ahead: bool = False) -> None:
        turn = threading.Lock()
        turn.acquire()
        with self._door:
            if not self._taken:
                self._taken = True
                return
            if ahead:
                self._line.appendleft(turn)
            else:
                self._line.append(turn)
        try:
            turn.acquire()
        except BaseException:  # Ctrl-C while waiting: out of the line, or on to the next if it was our turn just now
            with self._door:
                waits = turn in self._line
                if waits:
                    self._line.remove(turn)
            if not waits:
                self._pass_on()
            raise

    def _pass_on(self) -> None:
        with self._door:
            if self._line:
                self._line.popleft().release()
            else:
                self._taken = False
