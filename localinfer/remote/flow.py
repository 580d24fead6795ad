"""Work of several threads, given back in the order of what is worked on, or nearly so."""

import heapq
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from queue import Empty, SimpleQueue
from typing import Generic, TypeVar

HOLD_S = 5.0
"""Seconds for which what is done is held back at most, where it may come before its turn."""

MOST_BEFORE = 1 << 16
"""How far before its turn anything is given back, counted in items."""

MOST_TAKEN = 4096
"""Items taken in at most that are not given back: so many go on while one is waited for."""

MOST_HELD = 256 << 20
"""Bytes of what is done and not given back, beyond which nothing new is begun but what others are behind."""

Item = TypeVar("Item")
Result = TypeVar("Result")


class Later(Exception):  # not an error: the thread that says so is free meanwhile
    """The item is to be worked on again, after so many seconds."""

    def __init__(self, seconds: float) -> None:
        super().__init__(seconds)
        self.due = time.monotonic() + seconds


class _Waiting(Generic[Item]):
    """What is to be worked on: what is due again, oldest first, before what is new. While too much is held, of that
    only the next `ahead`."""

    def __init__(self, ahead: int) -> None:
        self._new = deque[tuple[int, Item]]()
        self._again = list[tuple[float, int, Item]]()
        self._changed, self._ended = threading.Condition(), False
        self._ahead, self._turn, self._held = ahead, 0, 0

    def put(self, number: int, item: Item) -> None:
        with self._changed:
            self._new.append((number, item))
            self._changed.notify()

    def again(self, number: int, item: Item, due: float) -> None:
        with self._changed:
            heapq.heappush(self._again, (due, number, item))
            self._changed.notify()

    def hold(self, weight: int, turn: int = 0) -> None:
        """So many bytes more are held, or less; the first item that is not given back is number `turn`."""
        with self._changed:
            if self._held >= MOST_HELD:
                self._changed.notify_all()
            self._held, self._turn = self._held + weight, max(self._turn, turn)

    def end(self) -> None:
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def get(self) -> tuple[int, Item, bool] | None:
        """The next one, with its number, and whether it is new; None at the end."""
        with self._changed:
            while not self._ended:
                wait = self._again[0][0] - time.monotonic() if self._again else None
                is_due = wait is not None and wait <= 0
                may_begin = self._new and (self._held < MOST_HELD or self._new[0][0] < self._turn + self._ahead)
                if is_due or may_begin:
                    self._changed.notify()  # another looks after what is due next
                    return (*heapq.heappop(self._again)[1:], False) if is_due else (*self._new.popleft(), True)
                self._changed.wait(wait)
        return None


class Flow(Generic[Item, Result]):
    """The result of `work` for each of `items`, `together` under way, and `ahead` read that are not begun. `work` may
    raise `Later`; `weigh` says how many bytes a result holds. Neither who gives items nor a result that never comes is
    waited for at the end: the threads die with the process."""

    def __init__(
        self,
        items: Iterator[Item],
        work: Callable[[Item], Result],
        *,
        together: int,
        ahead: int,
        in_order: bool,
        weigh: Callable[[Result], int] = lambda result: 0,
    ) -> None:
        self._items, self._work, self._weigh, self._in_order = items, work, weigh, in_order
        self._ahead, self._room = threading.Semaphore(ahead), threading.Semaphore(max(MOST_TAKEN, ahead))
        self._ends = threading.Event()
        self._waiting = _Waiting[Item](ahead)
        self._done = SimpleQueue[tuple[int, Result | BaseException | None]]()
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
            self._ahead.release()
            self._waiting.end()

    def _given(self) -> Iterator[Result]:
        since = time.monotonic()
        while self._total is None or self._turn < self._total:
            waits = bool(self._ready) and not self._in_order
            try:
                self._take(max(since + HOLD_S - time.monotonic(), 0.0) if waits else None)
            except Empty:
                yield from self._early()
                since = time.monotonic()
            while self._turn in self._ready or self._turn in self._before:
                if self._turn in self._ready:
                    yield self._next(self._turn)
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

    def _next(self, number: int) -> Result:
        """What is done, and held no longer."""
        found = self._ready.pop(number)
        self._waiting.hold(-self._weigh(found), self._turn + (number == self._turn))
        self._room.release()
        return found

    def _early(self) -> Iterator[Result]:
        """What is done, before its turn."""
        for number in sorted(one for one in self._ready if one < self._turn + MOST_BEFORE):
            self._before.add(number)
            yield self._next(number)

    def _read(self) -> None:
        number = 0
        try:
            for item in self._items:
                self._room.acquire()
                self._ahead.acquire()
                if self._ends.is_set():
                    return
                self._waiting.put(number, item)
                number += 1
            self._done.put((number, None))
        except BaseException as error:
            self._done.put((number, error))

    def _run(self) -> None:
        while (asked := self._waiting.get()) is not None:
            number, item, is_new = asked
            if is_new:
                self._ahead.release()
            try:
                found = self._work(item)
                self._waiting.hold(self._weigh(found))
                self._done.put((number, found))
            except Later as later:
                self._waiting.again(number, item, later.due)
            except BaseException as error:
                self._done.put((number, error))
