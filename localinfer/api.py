"""What Python programs need besides the parts themselves: a model by its name, and events for `async for`."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING, TypeVar

from localinfer.config import EngineConfig
from localinfer.events import OnProgress
from localinfer.hub.resolve import resolve
from localinfer.loading.opening import open_model
from localinfer.loading.tell import Tell

if TYPE_CHECKING:
    from localinfer.engine.protocol import Engine

T = TypeVar("T")


def load(
    ref: str,
    config: EngineConfig | None = None,
    *,
    revision: str | None = None,
    backend: str = "auto",
    on_progress: OnProgress | None = None,
) -> "Engine":
    """An engine for the model `ref`, named as on the command line, which must be here already; it is checked, opened
    and sampled as there.

    Raises `NotFound`, whose hint is the command that gets it, `DoesNotFit` before anything is loaded, and what
    `open_engine` raises.
    """
    found = resolve(ref, revision=revision)
    return open_model(found, config or EngineConfig(), backend=backend, tell=Tell(on_progress)).engine


async def astream(events: Iterator[T]) -> AsyncIterator[T]:
    """What `events` gives, of `Engine.stream` or `Chat.reply`, each waited for on another thread.

    Several may be read at once: their requests run together. Leaving early, or being cancelled, closes `events` once
    the step that is under way has ended, and so cancels the request.
    """
    end = object()
    waited: asyncio.Future[object] | None = None
    try:
        while True:
            waited = asyncio.ensure_future(asyncio.to_thread(next, events, end))
            event = await asyncio.shield(waited)
            waited = None
            if event is end:
                return
            yield event  # type: ignore[misc]
    finally:
        if waited is not None:
            await asyncio.wait([waited])
        close = getattr(events, "close", None)
        if close is not None:
            await asyncio.to_thread(close)
