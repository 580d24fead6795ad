"""A server from its first byte to its last: the socket, the signals, the end."""

import asyncio
import contextlib
import errno
import signal
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import cast

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from localinfer.errors import LocalInferError, NetworkError, NotFound, UsageError
from localinfer.remote.sockets import POSSIBLE, remove
from localinfer.remote.sockets import listen as listen_inside
from localinfer.serve.app import make_app
from localinfer.serve.http import HALF
from localinfer.serve.pipes import Pipes, by_door
from localinfer.serve.service import Service

MOST_CONNECTIONS = 512
"""More than that are answered with 503 at once."""

UNACKNOWLEDGED_MS = 60_000
"""Milliseconds after which the system drops a connection whose other end takes nothing."""

HEAD_S = 30.0
"""Seconds in which the head of a request must have come: from a new connection on, later from its first byte on."""

LAST_WORDS_S = 5
"""Seconds that connections have to be told that the server ends."""


@dataclass(frozen=True, slots=True)
class Door:
    """Where the server listens, and whom it lets in."""

    host: str
    port: int
    hosts: tuple[str, ...] = ()
    origins: tuple[str, ...] = ()
    key: str = ""


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens. Raises `NotFound` where that is not allowed or the address is not ours."""
    try:
        family, kind, proto, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        found = socket.socket(family, kind, proto)
        try:
            found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if hasattr(socket, "TCP_USER_TIMEOUT"):
                found.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, UNACKNOWLEDGED_MS)
            found.bind(address)
            found.listen(MOST_CONNECTIONS)
            found.setblocking(False)
        except BaseException:
            found.close()
            raise
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        faults: dict[int, type[LocalInferError]] = {errno.EADDRINUSE: NetworkError, errno.EADDRNOTAVAIL: UsageError}
        fault = faults.get(error.errno or 0, NotFound)
        raise fault(f"cannot listen on {host}:{port}: {reason}", hint="choose another `--port` or `--host`") from None
    except UnicodeError:
        raise UsageError(f"`{host[:100]}` is no host", hint="give an address, such as 127.0.0.1") from None
    return found


def url_of(found: socket.socket) -> str:
    """What to type to reach it."""
    host, port = found.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


async def run(
    service: Service, door: Door, found: socket.socket, ready: Callable[[], object], pipes: Pipes | None = None
) -> int:
    """Serve on `found`, and `pipes`, if there are any, on this user's own socket, until a signal comes or `stop` is
    asked for. Then all texts end, all models are closed, and the signal's number is given. `ready` is called when the
    first request can be taken."""
    app = make_app(service, hosts=door.hosts, origins=door.origins, key=door.key)
    config = uvicorn.Config(
        by_door(pipes.app(), app) if pipes else app,
        loop="asyncio",
        http=_Protocol,
        ws="none",
        lifespan="off",
        log_config=None,
        log_level="critical",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        limit_concurrency=MOST_CONNECTIONS,
        timeout_graceful_shutdown=LAST_WORDS_S,
    )
    server = _Server(config, service, ready)
    leaving = asyncio.create_task(server.leave())
    with _own_socket(service, wanted=pipes is not None) as own:
        try:
            await server.serve(sockets=[found, *own])
        finally:
            leaving.cancel()
            found.close()
            await service.models.close()
    return server.signal


@contextlib.contextmanager
def _own_socket(service: Service, *, wanted: bool) -> Iterator[list[socket.socket]]:
    """The socket for pipes of this user, for as long as this is entered; none where there can be none, which is told.
    Its file goes last, so that whoever asked for the end sees it."""
    if not (wanted and POSSIBLE):
        yield []
        return
    try:
        own, path = listen_inside()
    except NotFound as error:
        service.note(f"`run`, `map` and `chat` do not find this server: {error.message}")
        yield []
        return
    try:
        yield [own]
    finally:
        own.close()
        remove(path)


class _Protocol(H11Protocol):
    """uvicorn's, which waits no longer than `HEAD_S` for the head of a request. (Between two requests it waits by
    itself, until a first byte comes.) A client that closes its half of the connection behind its request is answered,
    if whoever answers wants that: it hears of it by the event in the scope."""

    _head: asyncio.TimerHandle | None = None
    _half = asyncio.Event()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._await_head()

    def data_received(self, data: bytes) -> None:
        before = self.cycle
        super().data_received(data)
        if self.cycle is not before and self.cycle is not None:  # whoever answers has not begun yet
            self._half = asyncio.Event()
            cast(dict[str, object], self.cycle.scope)[HALF] = self._half
        if self.cycle is None or self.cycle.response_complete:
            self._await_head()
        else:
            self._forget_head()

    def eof_received(self) -> bool:  # type: ignore[override]
        """Whether the connection stays open, to be closed behind the answer."""
        if self.cycle is None or self.cycle.response_complete or self.cycle.more_body:
            return False
        if self.cycle.scope.get(HALF) is not self._half:  # several requests were sent at once
            return False
        self.cycle.keep_alive = False
        self._half.set()
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        self._forget_head()
        super().connection_lost(exc)

    def _await_head(self) -> None:
        if self._head is None:
            self._head = self.loop.call_later(HEAD_S, self.transport.close)

    def _forget_head(self) -> None:
        if self._head is not None:
            self._head.cancel()
            self._head = None


class _Server(uvicorn.Server):
    """uvicorn, with the signals of the house: the first ends all texts, the second waits for nobody."""

    signal = 0

    def __init__(self, config: uvicorn.Config, service: Service, ready: Callable[[], object]) -> None:
        super().__init__(config)
        self._service, self._ready = service, ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._ready()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        signals = [signal.SIGINT, signal.SIGTERM]
        for number in signals:
            loop.add_signal_handler(number, self._end, number)
        try:
            yield
        finally:
            for number in signals:
                loop.remove_signal_handler(number)

    async def leave(self) -> None:
        """End when all that was asked has been answered, once nothing new is taken."""
        await self._service.left.wait()
        self.should_exit = True

    def _end(self, number: int) -> None:
        self.force_exit = self.should_exit
        self.should_exit = True
        self.signal = self.signal or number
        self._service.ends.set()
