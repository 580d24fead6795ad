"""The texts of one request while the engine writes them: what they say, in pieces."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import suppress
from functools import partial

from localinfer.chats.saying import Said
from localinfer.engine.protocol import Engine
from localinfer.events import Event, Finished, Progress
from localinfer.protocols.answer import Listener
from localinfer.protocols.asking import Task


class Writing:
    """Submits texts to an engine, at once, and is then read by `pieces`. Raises as `Engine.add` does.

    `close` ends what is not finished: its place is free with the next step.
    """

    def __init__(self, engine: Engine, tasks: Sequence[Task], *, one_call: bool = False) -> None:
        self._engine = engine
        self._heard: asyncio.Queue[tuple[int, list[Event] | BaseException]] = asyncio.Queue()
        self._handles: dict[int, int] = {}
        self._tasks = tasks
        self._listeners = [Listener(engine, task, one_call=one_call) for task in tasks]
        self.answers = [listener.answer for listener in self._listeners]
        loop = asyncio.get_running_loop()

        def put(index: int, said: list[Event] | BaseException) -> None:
            with suppress(RuntimeError):  # the loop is closed, and nobody waits any more
                loop.call_soon_threadsafe(self._heard.put_nowait, (index, said))

        try:
            for index, task in enumerate(tasks):
                hear = partial(put, index)
                self._handles[index] = engine.driver.submit(task.request, hear, hear)
        except BaseException:
            self.close()
            raise

    async def pieces(self) -> AsyncGenerator[tuple[int, Said], None]:
        """What the texts say, each piece with the number of its text; an empty one when a text has ended, or more of
        its prompt was read. Raises what broke a step, and `NotFinite`."""
        while self._handles:
            index, heard = await self._heard.get()
            if isinstance(heard, BaseException):
                self._handles.pop(index, None)
                raise heard
            hear = self._listeners[index].hear
            said = await asyncio.to_thread(hear, heard) if self._tasks[index].calls else hear(heard)
            ended = isinstance(heard[-1], Finished)
            if isinstance(heard[-1], Finished):
                self._handles.pop(index, None)
                heard[-1].raise_error()
            if not ended and any(isinstance(one, Progress) for one in heard):
                yield index, Said()
            if said:
                yield index, said
            if ended:
                yield index, Said()

    def close(self) -> None:
        """End all that has not ended."""
        for handle in list(self._handles.values()):
            self._engine.cancel(handle)
        self._handles.clear()
