"""Models that are opened on demand and closed when idle, and readers that do not read; in this process."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from localinfer.config import EngineConfig
from localinfer.errors import DoesNotFit, NotFound
from localinfer.hub.model import LocalModel
from localinfer.hub.resolve import resolve
from localinfer.loading.fitting import Fitted, check_fit
from localinfer.loading.tell import Tell
from localinfer.serve import http, running
from localinfer.serve.app import make_app
from localinfer.serve.models import Models, Served
from localinfer.serve.service import Service
from tests.serve.conftest import PATIENCE_S
from tests.tiny import make_checkpoint

CONFIG = EngineConfig(draft="off", parallel=2)


@pytest.fixture
def two(tmp_path: Path) -> list[Served]:
    made = [make_checkpoint(tmp_path / name, seed=seed) for seed, name in enumerate(("one", "other"))]
    return [Served(resolve(str(path)), (path.name,)) for path in made]


@asynccontextmanager
async def models_of(served: list[Served] | None, keep_s: float = 1000) -> AsyncIterator[Models]:
    models = Models(served, CONFIG, backend="cpu", keep_s=keep_s, tell=Tell())
    try:
        yield models
    finally:
        await models.close()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not condition():
            await asyncio.sleep(0.01)


async def test_a_model_is_opened_once_and_closed_when_idle(two: list[Served]) -> None:
    async with models_of(two, keep_s=0) as models:

        async def user() -> object:
            async with models.use("one") as held:
                await asyncio.sleep(0)
                return held.engine

        assert models.open_now() == []
        assert len(set(await asyncio.gather(*(user() for _ in range(8))))) == 1
        await until(lambda: not models.open_now())
        async with models.use("one"):
            pass


async def test_who_goes_while_it_opens_takes_it_from_nobody(two: list[Served]) -> None:
    async with models_of(two) as models:

        async def user() -> str:
            async with models.use("one") as held:
                return held.served.name

        first, second = asyncio.create_task(user()), asyncio.create_task(user())
        await asyncio.sleep(0.01)
        first.cancel()
        assert await second == "one"
        await asyncio.wait({first})
        assert first.cancelled()


def let_one_fit(patch: pytest.MonkeyPatch, models: Models) -> None:
    """As if memory had room for one model."""

    def check(model: LocalModel, config: EngineConfig) -> Fitted:
        if any(held.served.model != model for held in models.open_now()):
            raise DoesNotFit("it needs 2 GB, but 1 GB is free")
        return check_fit(model, config)

    patch.setattr("localinfer.loading.opening.check_fit", check)


async def test_an_idle_model_makes_room_and_a_busy_one_does_not(
    two: list[Served], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with models_of(two) as models:
        let_one_fit(monkeypatch, models)
        async with models.use("one"):
            with pytest.raises(DoesNotFit):
                async with models.use("other"):
                    pass
        async with models.use("other"):
            assert [held.served.name for held in models.open_now()] == ["other"]


async def test_a_model_is_rather_closed_than_another_read_from_disk(
    two: list[Served], monkeypatch: pytest.MonkeyPatch
) -> None:
    """While there is one to close, a model is to fit as a whole; `auto` may map its experts after that."""
    asked: list[str] = []

    def check(model: LocalModel, config: EngineConfig) -> Fitted:
        asked.append(config.experts)
        if config.experts == "resident":
            raise DoesNotFit("it needs 2 GB, but 1 GB is free")
        return check_fit(model, config)

    async with models_of(two) as models:
        async with models.use("one"):
            pass
        monkeypatch.setattr("localinfer.loading.opening.check_fit", check)
        async with models.use("other"):
            assert [held.served.name for held in models.open_now()] == ["other"]
    assert asked == ["resident", "auto"]


async def test_without_names_all_that_is_here_may_be_asked_for_and_no_path(two: list[Served], isolated: Path) -> None:
    async with models_of(None) as models:
        assert models.served() == []
        for name in (str(two[0].model.path), "", "../one", "me/tiny"):
            with pytest.raises(NotFound):
                models.find(name)
        make_checkpoint(isolated / "localinfer" / "models" / "me--tiny" / "BF16")
        assert [one.name for one in models.served()] == ["me/tiny:BF16"]
        for name in ("me/tiny", "me/tiny:BF16"):
            async with models.use(name) as held:
                assert held.served.name == "me/tiny:BF16"


class Reader:
    """A client of `app` in this process, which takes as many messages as it is let."""

    def __init__(self, app: Any, body: dict[str, Any], takes: int) -> None:
        self._app, self._body, self._takes = app, json.dumps(body).encode(), takes
        self.messages: list[Any] = []
        self._asked = False

    async def run(self) -> None:
        headers = [(b"host", b"localhost")]
        scope: dict[str, Any] = {"type": "http", "method": "POST", "path": "/v1/chat/completions", "headers": headers}
        scope |= {"query_string": b"", "root_path": "", "scheme": "http", "http_version": "1.1"}
        await self._app(scope, self._receive, self._send)

    async def _receive(self) -> Any:
        if self._asked:
            await asyncio.Event().wait()
        self._asked = True
        return {"type": "http.request", "body": self._body, "more_body": False}

    async def _send(self, message: Any) -> None:
        if len(self.messages) == self._takes:
            await asyncio.Event().wait()  # it takes no more, and does not go either
        self.messages.append(message)


@pytest.mark.parametrize("stream", [True, False])
async def test_a_stream_that_nobody_takes_is_no_longer_written(
    endless: Path, monkeypatch: pytest.MonkeyPatch, stream: bool
) -> None:
    monkeypatch.setattr(http, "STALLED_S", 0.2)
    config = EngineConfig(draft="off", context=200_000 if stream else 512, parallel=1)
    models = Models([Served(resolve(str(endless)), ("m",))], config, backend="cpu", keep_s=1000, tell=Tell())
    notes = list[str]()
    tell = Tell()
    monkeypatch.setattr(tell, "note", notes.append)
    service = Service(models, parallel=1, queue=0, tell=tell)
    body = {"model": "m", "messages": [{"role": "user", "content": "go on"}], "stream": stream}
    reader = Reader(make_app(service), body, takes=5 if stream else 0)
    try:
        async with asyncio.timeout(PATIENCE_S):
            await reader.run()
        (held,) = models.open_now()
        await until(lambda: held.engine.load().running == held.engine.load().used == 0)
        assert held.texts == held.users == 0
        assert "took nothing" in notes[-1]
        assert len(reader.messages) == (5 if stream else 0)
    finally:
        await models.close()


async def test_a_connection_that_asks_nothing_is_closed(two: list[Served], monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor does it help to send the head a byte at a time; who has asked is waited for."""
    monkeypatch.setattr(running, "HEAD_S", 1.0)
    async with models_of(two) as models:
        service, found = Service(models, parallel=1, queue=0, tell=Tell()), running.listen("127.0.0.1", 0)
        ready = asyncio.Event()
        host, port = found.getsockname()
        serving = asyncio.create_task(running.run(service, running.Door(host, port), found, ready.set))
        await asyncio.wait_for(ready.wait(), PATIENCE_S)
        silent, slow, good = [await asyncio.open_connection(host, port) for _ in range(3)]
        slow[1].write(b"GET /health HT")
        good[1].write(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert (await asyncio.wait_for(good[0].readline(), PATIENCE_S)).startswith(b"HTTP/1.1 200")
        for reader, _ in (silent, slow):
            assert await asyncio.wait_for(reader.read(), PATIENCE_S) == b""
        good[1].write(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await asyncio.wait_for(good[0].readuntil(b"HTTP/1.1 200"), PATIENCE_S)
        for _, writer in (silent, slow, good):
            writer.close()
        serving.cancel()
        await asyncio.wait({serving})
