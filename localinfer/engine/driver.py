"""Who steps an engine: requests in from any thread, the events of each out to whoever asked for it.

One loop, run in two ways: by a thread of the driver's own, which lives while somebody waits for events; or, within
`here`, by the caller, who then pays for no change of threads and has Ctrl-C inside a step.
"""

import atexit
import threading
from collections.abc import AsyncIterator, Callable, Generator, Iterator, Sequence
from contextlib import contextmanager, suppress
from queue import SimpleQueue
from typing import Protocol, Self
from weakref import WeakSet

from localinfer.engine.request import Request
from localinfer.errors import LocalInferError, UsageError, explained
from localinfer.events import Event, Finished, Started

Hear = Callable[[list[Event]], object]
"""Takes what a step said of one request. Called by the thread that steps, with `Started` alone by the one that asked:
it must not wait, nor raise in a thread of the driver's own."""

Fail = Callable[[BaseException], object]
"""Takes the error that ended a request without `Finished`; the same holds."""


class Steps(Protocol):
    """What is driven; `engine.protocol.Engine` says what each means."""

    context_size: int

    def add(self, request: Request, /) -> int: ...
    def step(self) -> list[Event]: ...
    def cancel(self, handle: int, /) -> None: ...


class Driver:
    """Steps `engine`, one thread at a time. Its methods may be called from any thread; only `turn`, `here`, `drain` and
    `close` wait for a step."""

    def __init__(self, engine: Steps) -> None:
        self._engine = engine
        self._clients: dict[int, tuple[Hear, Fail]] = {}
        self._lock = threading.Lock()  # held for a moment, never during a step
        self._thread: threading.Thread | None = None
        """Who steps now; nobody while nobody waits for events."""
        self._is_here = False

    def submit(self, request: Request, hear: Hear, fail: Fail = lambda _: None) -> int:
        """Queue a request and give its handle. `hear` gets its events: `Started` at once, then a list a step,
        `Finished` the last; `fail` gets what broke a step of a thread of the driver's own, and nothing comes after it.
        Raises as `Engine.add` does."""
        with self._lock:
            handle = self._engine.add(request)
            hear([Started(handle, len(request.prompt), self._engine.context_size)])
            self._clients[handle] = hear, fail
            if self._thread is None:
                thread = threading.Thread(target=self._run, name="engine", daemon=True)
                thread.start()
                self._thread = thread
                _driven.add(self)
        return handle

    def stream(self, request: Request) -> Iterator[Event]:
        """The events of one request, from `Started` to `Finished`.

        Raises `NotFinite` after `Finished` where the model's scores were NaN or infinite, and what broke a step.
        Leaving early cancels it. So does Ctrl-C while it waits: the last words still come, then `KeyboardInterrupt`; a
        second one comes at once.
        """
        heard = list[Event | BaseException]()
        wake: SimpleQueue[None] = SimpleQueue()

        def put(said: list[Event] | BaseException) -> None:
            heard.extend(said if isinstance(said, list) else [said])
            wake.put(None)

        handle = self.submit(request, put, put)
        interrupt: KeyboardInterrupt | None = None
        ended, at = False, 0
        try:
            while not ended:
                try:
                    while not ended:
                        self._wait(heard, at, wake)
                        event = _require(heard[at])
                        ended = isinstance(event, Finished)
                        at += 1  # Ctrl-C comes in calls and loops: an event is taken once, and is never lost
                        yield event
                except KeyboardInterrupt as error:
                    if interrupt is not None:
                        raise
                    interrupt = error
                    self._engine.cancel(handle)
            if interrupt is not None:
                raise interrupt
            _raise_error(heard[-1])
        finally:
            if not ended:
                self._engine.cancel(handle)

    async def astream(self, request: Request) -> AsyncIterator[Event]:
        """As `stream`, for one event loop; leaving early, or the task's end, cancels the request."""
        import asyncio

        loop = asyncio.get_running_loop()
        heard: asyncio.Queue[list[Event] | BaseException] = asyncio.Queue()

        def put(said: list[Event] | BaseException) -> None:
            with suppress(RuntimeError):  # the loop is closed, and nobody waits any more
                loop.call_soon_threadsafe(heard.put_nowait, said)

        handle = self.submit(request, put, put)
        ended = False
        try:
            while not ended:
                said = await heard.get()
                if isinstance(said, BaseException):
                    raise said
                for event in said:
                    ended = isinstance(event, Finished)
                    yield event
            _raise_error(event)
        finally:
            if not ended:
                self._engine.cancel(handle)

    @contextmanager
    def here(self) -> Iterator[Self]:
        """The calling thread steps within this: nothing moves but by `turn`, and while it reads a `stream`. It begins
        when all that runs has ended; what runs at its end is cancelled."""
        me = threading.current_thread()
        assert self._thread is not me
        while True:
            with self._lock:
                if self._thread is None:
                    self._thread, self._is_here = me, True
                    break
            self.drain()
        try:
            yield self
        finally:
            try:
                self._cancel_all()
                with suppress(UsageError):  # it is closed
                    self.turn()
            finally:
                with self._lock:
                    self._thread, self._is_here, left, self._clients = None, False, self._clients, {}
                for _, fail in left.values():
                    fail(UsageError("the engine is closed", hint="open it again"))

    def turn(self) -> bool:
        """Take a step, within `here`; False if nobody waits for events. Raises what the step, or who hears, raises."""
        if not self._clients:
            return False
        self._tell(self._engine.step())
        return True

    def steps(self, requests: Sequence[Request]) -> Generator[list[list[Event]], None, None]:
        """Step in the calling thread until all `requests` have ended: of each step, what it said of each request."""
        with self.here():
            said: list[list[Event]] = [[] for _ in requests]
            for request, mine in zip(requests, said, strict=True):
                self.submit(request, mine.extend)
            while self.turn():
                yield [list(mine) for mine in said]
                for mine in said:
                    mine.clear()

    def require_turn(self) -> None:
        """Raise `UsageError` if another thread steps the engine."""
        if self._thread not in (None, threading.current_thread()):
            raise UsageError(
                "another thread steps this engine: somebody reads a stream", hint="read all texts by `stream`"
            )

    def drain(self) -> None:
        """Wait until all that was asked has ended."""
        thread = self._thread
        if thread not in (None, threading.current_thread()):
            if self._is_here:
                raise UsageError("another thread has this engine to itself", hint="wait until it has finished")
            thread.join()

    def close(self) -> None:
        """Cancel all that runs, and wait for the end of the step under way."""
        self._cancel_all()
        self.drain()

    def _cancel_all(self) -> None:
        with self._lock:
            left = list(self._clients)
        for handle in left:
            self._engine.cancel(handle)

    def _wait(self, heard: Sequence[object], at: int, wake: "SimpleQueue[None]") -> None:
        """Until something is heard at `at`; whoever has the engine to itself steps it."""
        while len(heard) <= at:
            if self._thread is threading.current_thread():
                self.turn()
            else:
                wake.get()

    def _run(self) -> None:
        """The driver's own thread: step while somebody waits."""
        goes_on = True
        while goes_on:
            try:
                events = self._engine.step()
            except BaseException as error:
                goes_on = self._fail(error)
            else:
                goes_on = self._tell(events)

    def _tell(self, events: Sequence[Event]) -> bool:
        """Give each its events; says whether somebody waits for more. If not, the engine is nobody's from then on."""
        said: dict[int, list[Event]] = {}
        for event in events:
            if not isinstance(event, Started):  # told by `submit`
                said.setdefault(event.handle, []).append(event)
        told = list[tuple[Hear, list[Event]]]()
        with self._lock:
            for handle, mine in said.items():
                if handle in self._clients:
                    ended = isinstance(mine[-1], Finished)
                    hear, _ = self._clients.pop(handle) if ended else self._clients[handle]
                    told.append((hear, mine))
            goes_on = bool(self._clients)
            if not goes_on and not self._is_here:
                self._thread = None
        for hear, mine in told:
            hear(mine)
        return goes_on

    def _fail(self, error: BaseException) -> bool:
        """A step broke: all who wait are told once the engine has let go of their requests."""
        with self._lock:
            failed, self._clients = self._clients, {}
        for handle in failed:
            self._engine.cancel(handle)
        try:
            events = self._engine.step()
        except BaseException:  # it is closed, or breaks again: whoever came meanwhile is told next time
            events = []
        goes_on = self._tell(events)
        for _, fail in failed.values():
            fail(explained(error) if isinstance(error, Exception) else error)
        return goes_on


def _require(heard: Event | BaseException) -> Event:
    if isinstance(heard, BaseException):
        raise heard
    return heard


def _raise_error(last: Event | BaseException) -> None:
    if isinstance(last, Finished):
        last.raise_error()


_driven: WeakSet[Driver] = WeakSet()


@atexit.register
def _close_all() -> None:
    """No step is under way when the interpreter goes."""
    for driver in list(_driven):
        with suppress(LocalInferError):
            driver.close()
