"""Work of several threads, given back in the order of what is worked on, or nearly so."""

import queue
import threading
import time
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

HOLD_S = 5.0
"""Seconds for which what is done is held back at most, where it may come before its turn."""

MOST_BEFORE = 1 << 16
"""How far before its turn anything is given back, counted in items."""

Item = TypeVar("Item")
Result = TypeVar("Result")


class Flow(Generic[Item, Result]):
    """The result of `work` for each of `items`, `together` under way, and `most` taken in at most that are not given
    back. Neither who gives items nor a result that never comes is waited for at the end: the threads die with the
    process."""

    def __init__(
        self, items: Iterator[Item], work: Callable[[Item], Result], *, together: int, most: int, in_order: bool
    ) -> None:
        self._items, self._work, self._in_order = items, work, in_order
        self._room, self._ends = threading.Semaphore(most), threading.Event()
        self._asked = queue.SimpleQueue[tuple[int, Item] | None]()
        self._done = queue.SimpleQueue[tuple[int, Result | BaseException | None]]()
        self._together = together
        self._ready = dict[int, Result]()  # done, not given back
        self._before = set[int]()  # given back before their turn
        self._turn = 0
        self._total: int | None = None

    def results(self) -> Iterator[Result]:
        """In the order of the items; where that need not be, those that are done come when the next has kept them
        waiting, or when all ends early. Raises what was raised for any of them."""
        for run in (self._read, *[self._run] * self._together):
            threading.Thread(target=run, daemon=True, name="endpoint").start()
        try:
            yield from self._given()
        except GeneratorExit:
            raise
        except BaseException:
            if not self._in_order:
                yield from self._early()
            raise
        finally:
            self._ends.set()
            self._room.release()
            for _ in range(self._together):
                self._asked.put(None)

    def _given(self) -> Iterator[Result]:
        since = time.monotonic()
        while self._total is None or self._turn < self._total:
            waits = bool(self._ready) and not self._in_order
            try:
                self._take(max(since + HOLD_S - time.monotonic(), 0.0) if waits else None)
            except queue.Empty:
                yield from self._early()
                since = time.monotonic()
            while self._turn in self._ready or self._turn in self._before:
                if self._turn in self._ready:
                    yield self._ready.pop(self._turn)
                    self._room.release()
                self._before.discard(self._turn)
                self._turn, since = self._turn + 1, time.monotonic()

    def _take(self, timeout: float | None) -> None:
        """What one thread has done. Raises `queue.Empty`, or what it raised."""
        number, found = self._done.get(timeout=timeout)
        if isinstance(found, BaseException):
            raise found
        if found is None:
            self._total = number
        else:
            self._ready[number] = found

    def _early(self) -> Iterator[Result]:
        """What is done, before its turn."""
        for number in sorted(one for one in self._ready if one < self._turn + MOST_BEFORE):
            self._before.add(number)
            yield self._ready.pop(number)
            self._room.release()

    def _read(self) -> None:
        number = 0
        try:
            for item in self._items:
                self._room.acquire()
                if self._ends.is_set():
                    return
                self._asked.put((number, item))
                number += 1
            self._done.put((number, None))
        except BaseException as error:
            self._done.put((number, error))

    def _run(self) -> None:
        while (asked := self._asked.get()) is not None and not self._ends.is_set():
            try:
                self._done.put((asked[0], self._work(asked[1])))
            except BaseException as error:
                self._done.put((asked[0], error))
