"""Clients that send the head of a request slowly, the first or a later one, are not waited for."""

import asyncio
import socket
from collections.abc import AsyncIterator
from typing import Any

import pytest
import uvicorn

from localinfer.serve import running

HEAD = b"GET / HTTP/1.1\r\nHost: localhost\r\n"


async def app(_scope: Any, _receive: Any, send: Any) -> None:
    await asyncio.sleep(0.4)  # longer than a head may take
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})


@pytest.fixture
async def port(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[int]:
    """Where the protocol of the house listens; a head may take 0.2 s, and the time between two requests is long."""
    monkeypatch.setattr(running, "HEAD_S", 0.2)
    config = uvicorn.Config(app, http=running._Protocol, ws="none", lifespan="off", log_config=None, loop="asyncio")
    config.timeout_keep_alive = 60
    with socket.create_server(("127.0.0.1", 0)) as found:
        server = uvicorn.Server(config)
        serving = asyncio.create_task(server.serve(sockets=[found]))
        yield found.getsockname()[1]
        server.should_exit = True
        await serving


@pytest.mark.parametrize("before", [0, 1, 2])
@pytest.mark.parametrize("begun", [b"G", HEAD])
async def test_a_head_that_does_not_end_ends_the_connection(port: int, before: int, begun: bytes) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for _ in range(before):
        writer.write(HEAD + b"\r\n")
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\nok"), 20)
        assert head.startswith(b"HTTP/1.1 200")
    writer.write(begun)
    assert await asyncio.wait_for(reader.read(), 20) == b""
    writer.close()


async def test_who_asks_in_pieces_is_answered(port: int) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for _ in range(2):
        for piece in (HEAD[:5], HEAD[5:], b"\r\n"):
            writer.write(piece)
            await asyncio.sleep(0.01)
        assert (await asyncio.wait_for(reader.readuntil(b"\r\n\r\nok"), 20)).startswith(b"HTTP/1.1 200")
    writer.close()
