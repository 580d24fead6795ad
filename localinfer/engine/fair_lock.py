"""A lock that is given in turn."""

import threading
from types import TracebackType


class FairLock:
    """As `threading.RLock`, but who lets it go and asks again comes after whoever already waits.

    Python's own locks promise nothing of the kind: a thread that steps in a loop can keep others out for seconds.
    """

    def __init__(self) -> None:
        self._turn = threading.Lock()  # held by the one who is next
        self._lock = threading.Lock()
        self._owner: int | None = None
        self._depth = 0

    def __enter__(self) -> None:
        me = threading.get_ident()
        if self._owner != me:
            with self._turn:
                self._lock.acquire()
            self._owner = me
        self._depth += 1

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None, /
    ) -> None:
        self._depth -= 1
        if self._depth == 0:
            self._owner = None
            self._lock.release()
