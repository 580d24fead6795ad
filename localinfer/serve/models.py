"""The models of a server: opened when first asked for, closed when idle, never more than memory allows."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from time import monotonic
from typing import TYPE_CHECKING

from localinfer.config import EngineConfig
from localinfer.errors import DoesNotFit, LocalInferError, NotFound
from localinfer.hub.model import LocalModel
from localinfer.loading.opening import Opened, open_model
from localinfer.loading.tell import Tell
from localinfer.protocols.errors import Closing
from localinfer.protocols.shape import Writer
from localinfer.text import one_line

if TYPE_CHECKING:
    from localinfer.engine.protocol import Engine

SHORTEST_S = 0.1
"""Seconds that a model stays open at least, so that those who wait for it find it."""


@dataclass(frozen=True, slots=True)
class Served:
    """A model that may be asked for, by the names that mean it; the first is the one that answers bear."""

    model: LocalModel
    names: tuple[str, ...]

    @property
    def name(self) -> str:
        return self.names[0]


@dataclass(slots=True)
class Held:
    """A model that is open."""

    served: Served
    opened: Opened
    keep_s: float
    users: int = 0
    """Requests that have it in use."""
    texts: int = 0
    """Texts that are being written or wait."""
    used: float = 0.0
    timer: asyncio.TimerHandle | None = None

    @property
    def engine(self) -> "Engine":
        return self.opened.engine

    @property
    def writer(self) -> Writer:
        """Who answers, by the name that answers bear."""
        return Writer(self.served.name, self.engine.tokenizer)


class Models:
    """Opens and closes models. All methods belong to one event loop.

    `served` are those that may be asked for; None means every model of `localinfer list`. `keep_s` is how long an idle
    model stays open, in seconds; infinite means for ever.
    """

    def __init__(
        self,
        served: Sequence[Served] | None,
        config: EngineConfig,
        *,
        backend: str,
        keep_s: float,
        tell: Tell,
    ) -> None:
        self._served, self._config, self._backend = served, config, backend
        self._keep_s, self._tell = keep_s, tell
        self._open: dict[str, Held] = {}
        self._opening: dict[str, asyncio.Task[Held]] = {}
        self._changing = asyncio.Lock()  # while a model is opened or closed: their memory is looked at one by one
        self._background = set[asyncio.Task[None]]()
        self._closed = False

    def open_now(self) -> list[Held]:
        """Those that are open, in the order of their opening."""
        return list(self._open.values())

    def served(self) -> list[Served]:
        """Those that may be asked for. Reads folders where all may."""
        if self._served is not None:
            return list(self._served)
        from localinfer.hub.cache import list_models

        return [Served(model, (model.ref,)) for model in list_models()]

    def find(self, name: str) -> Served:
        """What `name` means. Raises `NotFound` for what may not be asked for. Reads folders where all may."""
        listed = self.served()
        found = next((one for one in listed if name in one.names or name == one.model.ref), None)
        if found is None and self._served is None:
            found = _by_alias(name)
        if found is None:
            raise NotFound(f"the model `{one_line(name)}` is not served here", hint="`/v1/models` lists those that are")
        return found

    @asynccontextmanager
    async def use(self, name: str, keep_s: float | None = None) -> AsyncIterator[Held]:
        """The model `name`, open for as long as this is entered; `keep_s` is how long it is to stay open after that."""
        if self._closed:
            raise Closing("the server ends")
        served = await asyncio.to_thread(self.find, name)
        held = self._open.get(served.model.ref)
        while held is None or self._open.get(served.model.ref) is not held:  # it may be closed before we hold it
            held = await self._opened(served)
        held.users += 1
        if held.timer is not None:
            held.timer.cancel()
            held.timer = None
        if keep_s is not None:
            held.keep_s = keep_s
        try:
            yield held
        finally:
            held.users -= 1
            held.used = monotonic()
            self._close_later(held)

    async def open(self, served: Served) -> None:
        """Open it now, so that the first request need not wait."""
        self._close_later(await self._opened(served))

    async def close(self) -> None:
        """End all texts and close all models; nothing can be asked for after this."""
        self._closed = True
        for held in self._open.values():
            if held.timer is not None:
                held.timer.cancel()
        await asyncio.gather(*self._opening.values(), return_exceptions=True)
        async with self._changing:
            for ref in list(self._open):
                await asyncio.to_thread(self._open.pop(ref).engine.close)

    async def _opened(self, served: Served) -> Held:
        """It is opened once for all that wait for it, and also if they go away."""
        ref = served.model.ref
        task = self._opening.get(ref)
        if task is None:
            task = self._opening[ref] = asyncio.create_task(self._open_one(served))
            task.add_done_callback(lambda _: self._opening.pop(ref, None))
        return await asyncio.shield(task)

    async def _open_one(self, served: Served) -> Held:
        async with self._changing:
            held = self._open.get(served.model.ref)
            if held is None:
                held = Held(served, await self._load(served), self._keep_s, used=monotonic())
                self._open[served.model.ref] = held
        self._close_later(held)
        return held

    async def _load(self, served: Served) -> Opened:
        """Load a model; where it does not fit, close the one that has been idle for longest, and try again."""
        while True:
            # Rather close an idle model than read this one from disk.
            wholly = self._config.experts == "auto" and bool(self._idle())
            config = replace(self._config, experts="resident") if wholly else self._config
            try:
                return await asyncio.to_thread(open_model, served.model, config, backend=self._backend, tell=self._tell)
            except DoesNotFit:
                if idle := self._idle():
                    await self._shut(min(idle, key=lambda held: held.used), "to make room")
                elif not wholly:
                    raise

    def _idle(self) -> list[Held]:
        return [held for held in self._open.values() if held.users == 0]

    def _close_later(self, held: Held) -> None:
        if held.users or self._closed or held.keep_s == float("inf"):
            return
        if held.timer is not None:
            held.timer.cancel()

        def close() -> None:
            task = asyncio.create_task(self._close_idle(held))
            self._background.add(task)
            task.add_done_callback(self._background.discard)

        held.timer = asyncio.get_running_loop().call_later(max(held.keep_s, SHORTEST_S), close)

    async def _close_idle(self, held: Held) -> None:
        async with self._changing:
            if held.users == 0 and self._open.get(held.served.model.ref) is held:
                await self._shut(held, f"after {held.keep_s:.0f} s without a request")

    async def _shut(self, held: Held, why: str) -> None:
        """Close an idle model; only while `_changing` is held."""
        del self._open[held.served.model.ref]
        if held.timer is not None:
            held.timer.cancel()
        await asyncio.to_thread(held.engine.close)
        self._tell.note(f"{held.served.name} is closed, {why}")


def _by_alias(name: str) -> Served | None:
    """A model that is here, under another of its names; never a path, which whoever asks could choose."""
    from localinfer.hub.reference import parse
    from localinfer.hub.resolve import resolve

    try:
        if parse(name).path is not None:
            return None
        found = resolve(name, offline=True)
    except LocalInferError:
        return None
    return Served(found, (found.ref,))
