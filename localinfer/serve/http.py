"""A request over HTTP, whatever protocol: its body in, one answer or a stream out, and its end when the client goes."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine
from contextlib import aclosing, suppress
from time import monotonic, strftime
from typing import Any

from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from localinfer.chats.plain_json import object_of
from localinfer.errors import LocalInferError, UsageError, explained
from localinfer.protocols.asking import Ask
from localinfer.protocols.errors import Closing, TooLarge, TooSlow, WrongEncoding, retry_after, status_of
from localinfer.protocols.fields import Fields
from localinfer.protocols.shape import Dialect, Form, Shape
from localinfer.serve.models import Held
from localinfer.serve.service import Service, in_words
from localinfer.serve.writing import Writing
from localinfer.text import one_line

BODY_BYTES = 16 << 20
"""Most bytes of a body."""

BODY_S = 60.0
"""Seconds in which a body must have come."""

LINGER_S = 2.0
"""Seconds for which more of a body that is too large is taken, so that its client reads the answer."""

STALLED_S = 30.0
"""Seconds that a client may take nothing of its stream; then the text is no longer written."""


class Endpoint:
    """Where texts are asked for in one protocol."""

    def __init__(self, service: Service, dialect: Dialect) -> None:
        self._service, self._dialect = service, dialect

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        exchange = _Exchange(self._service, self._dialect, scope, receive, send)
        await exchange.run()


class _Exchange:
    """One request and its answer."""

    def __init__(self, service: Service, dialect: Dialect, scope: Scope, receive: Receive, send: Send) -> None:
        self._service, self._dialect = service, dialect
        self._scope, self._receive, self._send = scope, receive, send
        self._model = ""
        self._writing: Writing | None = None
        self._begun = False  # whether the head of the answer has been sent
        self._shape: Shape | None = None

    async def run(self) -> None:
        """Answer, unless the client goes or the server ends before."""
        ended = "cancelled, the client left"
        try:
            ask, self._shape = await self._understood()
            self._model = ask.model
            leaves = None if says_last(self._scope) else half_closed(self._scope)
            answering = self._answer(ask, self._shape)
            await while_wanted(answering, self._receive, self._service.ends, leaves, self._goes_on)
            ended = ""
        except ClientDisconnect:
            if (half := half_closed(self._scope)) is not None and half.is_set() and not self._begun:
                await self._refuse(UsageError("the connection was closed behind the request", hint=_SAY_LAST))
        except _Stalled:
            ended = f"cancelled, the client took nothing for {STALLED_S:.0f} s"
        except Exception as error:
            ended = await self._refuse(explained(error))
        finally:
            self._log(ended)

    def _goes_on(self) -> bool:
        """Whether a client that says no more still hears: a stream notices by itself when nobody is there."""
        return self._begun

    async def _understood(self) -> tuple[Ask, Shape]:
        row = await read_object(Request(self._scope, self._receive))
        fields = Fields(row)
        ask, shape = self._dialect.understand(fields)
        fields.done()
        return ask, shape

    async def _answer(self, ask: Ask, shape: Shape) -> None:
        async with self._service.writing(ask) as (held, self._writing):
            self._model = held.served.name
            if ask.stream:
                await self._stream(self._frames(held, self._writing, shape, progress=ask.progress), shape)
            else:
                async with aclosing(self._writing.pieces()) as pieces:
                    async for _ in pieces:
                        pass
                self._begun = True
                whole = shape.whole(held.writer, self._writing.answers)
                await JSONResponse(whole)(self._scope, self._receive, self._bounded_send)

    async def _frames(
        self, held: Held, writing: Writing, shape: Shape, *, progress: bool
    ) -> AsyncGenerator[bytes, None]:
        for frame in shape.begin(held.writer, writing.answers):
            yield frame
        async with aclosing(writing.pieces()) as pieces:
            async for index, said in pieces:
                answer = writing.answers[index]
                if said:
                    frames = shape.said(index, said)
                elif answer.reason is not None:
                    frames = shape.ended(index, answer)
                else:
                    frames = shape.read(index, answer) if progress else ()
                for frame in frames:
                    yield frame
        for frame in shape.end(writing.answers):
            yield frame

    async def _stream(self, frames: AsyncIterator[bytes], shape: Shape) -> None:
        await self._head(shape)
        async for frame in frames:
            await self._bounded_send({"type": "http.response.body", "body": frame, "more_body": True})
        await self._bounded_send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _head(self, shape: Shape) -> None:
        self._begun = True
        headers = [(b"content-type", shape.media_type.encode()), (b"cache-control", b"no-store")]
        await self._bounded_send({"type": "http.response.start", "status": 200, "headers": headers})

    async def _bounded_send(self, message: Any) -> None:
        """Send, and wait for the client no longer than it may take."""
        try:
            async with asyncio.timeout(STALLED_S):
                await self._send(message)
        except TimeoutError:
            raise _Stalled from None

    async def _refuse(self, error: LocalInferError) -> str:
        """Tell the client what went wrong, if it still can be told."""
        try:
            if not self._begun:
                await refusal(error, self._dialect.form)(self._scope, self._receive, self._bounded_send)
            elif self._shape is not None:
                body = self._shape.failed(error)
                await self._bounded_send({"type": "http.response.body", "body": body, "more_body": False})
        except (_Stalled, OSError):
            pass
        return f"{status_of(error)}, {error.message}"

    def _log(self, ended: str) -> None:
        path = self._scope["path"]
        answers = self._writing.answers if self._writing else []
        told = in_words(answers, ended or "ended") or ended
        if answers and ended and all(answer.reason is not None for answer in answers):
            told += f"; {ended}"
        self._service.note(one_line(f"{strftime('%H:%M:%S')} {path} {self._model}: {told}", 2000))


class _Stalled(Exception):  # not an error: nobody is there to be told
    """The client takes nothing."""


_SAY_LAST = "send `Connection: close` to be answered all the same"

HALF = "localinfer.half"
"""Where a scope has the event that is set when the client has closed its half of the connection."""


def half_closed(scope: Scope) -> asyncio.Event | None:
    """Set when the client has closed its half of the connection; None where nobody would tell."""
    found: asyncio.Event | None = scope.get(HALF)
    return found


def says_last(scope: Scope) -> bool:
    """Whether the client said that this is its last request: closing its half of the connection then tells nothing.
    Any other that does so has most likely left."""
    closes = any(name == b"connection" and b"close" in value.lower() for name, value in scope["headers"])
    return closes or scope["http_version"] == "1.0"


async def while_wanted(
    work: Coroutine[Any, Any, None],
    receive: Receive,
    ends: asyncio.Event,
    leaves: asyncio.Event | None,
    goes_on: Callable[[], bool] = lambda: False,
) -> None:
    """Await `work`; cancel it when the client leaves, or the server ends. Raises what ended it. `leaves` is set when
    the client has closed its half of the connection, which means that it left unless the work `goes_on`."""
    working = asyncio.ensure_future(work)
    left = asyncio.ensure_future(_until_left(receive))
    ending = asyncio.ensure_future(ends.wait())
    half = asyncio.ensure_future((leaves or asyncio.Event()).wait())
    try:
        await asyncio.wait({working, left, ending, half}, return_when=asyncio.FIRST_COMPLETED)
        if half.done() and goes_on():
            await asyncio.wait({working, left, ending}, return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            return working.result()
        await _cancelled(working)
        raise Closing("the server ends") if ending.done() else ClientDisconnect
    finally:
        for task in (working, left, ending, half):
            await _cancelled(task)


async def _until_left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _cancelled(task: "asyncio.Future[Any]") -> None:
    """Cancel it, and wait until it has ended."""
    task.cancel()
    await asyncio.wait({task})
    if not task.cancelled():
        task.exception()  # it was looked at


def refusal(error: LocalInferError, form: Form) -> Response:
    """The response for an error that comes before any answer."""
    after = retry_after(error)
    headers = {} if after is None else {"retry-after": str(after)}
    if isinstance(error, TooLarge | TooSlow):
        headers["connection"] = "close"  # what is still to come of the body is not waited for
    if status_of(error) == 401:
        headers["www-authenticate"] = "Bearer"
    kind = _BeforeTheBody if isinstance(error, TooLarge) else JSONResponse
    return kind(form(error), status_of(error), headers)


class _BeforeTheBody(JSONResponse):
    """A response that is sent while the body still comes: that is taken for a moment, and thrown away. A client whose
    bytes nobody takes would find the connection broken before it reads why."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        await send({"type": "http.response.body", "body": self.body, "more_body": True})
        with suppress(TimeoutError):
            async with asyncio.timeout(LINGER_S):
                while (await receive()).get("more_body"):
                    pass
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def read_object(request: Request) -> dict[str, Any]:
    """The JSON object that a request has for its body. Raises `TooLarge`, as soon as it is announced so, `TooSlow`,
    `ClientDisconnect`."""
    data, begun = bytearray(), monotonic()
    if (packed := request.headers.get("content-encoding", "").strip()).lower() not in ("", "identity"):
        raise WrongEncoding(f"the body's encoding is `{packed[:40]}`", hint="send it as it is, without one")
    announced = request.headers.get("content-length", "")
    if announced.isdigit() and int(announced[:20]) > BODY_BYTES:
        raise TooLarge(f"the body has {announced[:20]} bytes, more than {BODY_BYTES}", hint="send less")
    try:
        async with asyncio.timeout(BODY_S):
            async for chunk in request.stream():
                data += chunk
                if len(data) > BODY_BYTES:
                    raise TooLarge(f"the body has more than {BODY_BYTES} bytes", hint="send less")
    except TimeoutError:
        raise TooSlow(f"the body did not come in {monotonic() - begun:.0f} s", hint="send it faster") from None
    if not data:
        raise UsageError("the body is empty", hint="send a JSON object")
    if len(data) < 1 << 16:
        return _parsed(bytes(data))
    return await asyncio.to_thread(_parsed, bytes(data))


def _parsed(data: bytes) -> dict[str, Any]:
    return object_of(data, BODY_BYTES, what="the body", hint="send one JSON object")
