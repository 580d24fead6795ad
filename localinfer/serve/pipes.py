"""What is answered over the socket of this user alone: engines for `run`, `map` and `chat`, and what `ps` and `stop`
ask. The events are those of the engine itself, a line of JSON for each step."""

import asyncio
import json
import os
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from time import strftime, time
from typing import TYPE_CHECKING, Any

from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from localinfer import __version__
from localinfer.config import EngineConfig
from localinfer.errors import LocalInferError, NetworkError, UsageError, explained
from localinfer.events import Event, Finished, Stats
from localinfer.protocols.answer import Answer
from localinfer.protocols.errors import Closing, status_of
from localinfer.remote import wire
from localinfer.remote.engine import RemoteTokenizer
from localinfer.serve.http import half_closed, read_object, while_wanted
from localinfer.serve.models import Held
from localinfer.serve.service import Service, in_words
from localinfer.text import one_line

if TYPE_CHECKING:
    from localinfer.engine.protocol import Engine

Answering = Callable[[dict[str, Any]], Awaitable[dict[str, Any]]]
Heard = asyncio.Queue[list[Event] | BaseException]


def about(address: str, config: EngineConfig, backend: str) -> dict[str, Any]:
    """What a server says of itself, as JSON."""
    settings = asdict(config)
    if config.draft_model is not None:
        settings["draft_model"] = str(config.draft_model)
    isa = os.environ.get("LOCALINFER_ISA", "")
    return {
        "pid": os.getpid(),
        "address": address,
        "started": time(),
        "config": settings,
        "backend": backend,
        "isa": isa,
    }


class Pipes:
    """The app for the socket; `about` is what the server says of itself, JSON."""

    def __init__(self, service: Service, about: Mapping[str, Any]) -> None:
        self._service, self._about = service, about
        self._texts: dict[str, tuple[Engine, int]] = {}

    def app(self) -> Starlette:
        posts: dict[str, Answering] = {"open": self._open, "encode": self._encode, "decode": self._decode}
        posts |= {"load": self._load, "cancel": self._cancel, "stop": self._stop}
        routes = [Route(f"/pipe/{name}", _answering(call), methods=["POST"]) for name, call in posts.items()]
        told = Route("/pipe", self._told)
        return Starlette(routes=[told, Route("/pipe/text", _Texts(self._text), methods=["POST"]), *routes])

    async def _told(self, _request: Request) -> Response:
        """The server and its models."""
        models = self._service.models
        held = {one.served.model.ref: one for one in models.open_now()}
        rows = list[dict[str, Any]]()
        for served in await asyncio.to_thread(models.served):
            model, one = served.model, held.get(served.model.ref)
            path = str(await asyncio.to_thread(Path(model.path).resolve))
            row = {"ref": model.ref, "path": path, "revision": model.revision, "modified": model.modified}
            rows.append(row | {"names": served.names, "open": one is not None} | _figures(one))
        says = {"version": __version__, "ends": self._service.is_closing, "requests": self._service.asked}
        return JSONResponse({**self._about, **says, "models": rows})

    async def _open(self, row: dict[str, Any]) -> dict[str, Any]:
        """Open a model, and say what there is to know of its engine."""
        async with self._service.models.use(row["ref"]) as held:
            engine, opened = held.engine, held.opened
            return {
                "ref": opened.model.ref,
                "info": wire.of_info(engine.info),
                "context_size": engine.context_size,
                "chat_template": engine.chat_template,
                "tools_template": engine.tools_template,
                "default_sampling": asdict(engine.default_sampling),
                "tokenizer": RemoteTokenizer.described(engine.tokenizer),
            }

    async def _encode(self, row: dict[str, Any]) -> dict[str, Any]:
        async with self._service.models.use(row["model"]) as held:
            tokenizer, text = held.engine.tokenizer, row["text"]

            def encoded() -> list[int]:
                return tokenizer.encode_rendered(text, row["guard"]) if "guard" in row else tokenizer.encode_text(text)

            return {"tokens": await asyncio.to_thread(encoded) if len(text) > 10_000 else encoded()}

    async def _decode(self, row: dict[str, Any]) -> dict[str, Any]:
        async with self._service.models.use(row["model"]) as held:
            return {"text": held.engine.tokenizer.decode(row["tokens"], specials=row["specials"])}

    async def _load(self, row: dict[str, Any]) -> dict[str, Any]:
        """What the engine does; none where the model is closed meanwhile."""
        held = next((one for one in self._service.models.open_now() if one.served.model.ref == row["model"]), None)
        load = asdict(held.engine.load()) if held else {}
        load.pop("queued", None)  # handles mean nothing elsewhere
        return load

    async def _cancel(self, row: dict[str, Any]) -> dict[str, Any]:
        engine, handle = self._texts.get(row["key"], (None, 0))
        if engine is not None:
            engine.cancel(handle)
        return {}

    async def _stop(self, _row: dict[str, Any]) -> dict[str, Any]:
        """Take nothing new, and end when all that was asked has been answered."""
        self._service.close_door()
        return {"texts": self._service.texts}

    async def _text(self, scope: Scope, receive: Receive, send: Send) -> None:
        row = await read_object(Request(scope, receive))
        writing = self._write(row, send)
        await while_wanted(writing, receive, self._service.ends, half_closed(scope))

    async def _write(self, row: dict[str, Any], send: Send) -> None:
        """One text, its events to `send`. A client that stands still keeps nobody from being answered: the engine
        writes on, and what it says waits."""
        async with self._service.models.use(row["model"]) as held, self._service.place(held):
            engine, loop = held.engine, asyncio.get_running_loop()
            request = await asyncio.to_thread(wire.request_from, row, engine.tokenizer)
            heard: Heard = asyncio.Queue()

            def put(said: list[Event] | BaseException) -> None:
                with suppress(RuntimeError):  # the loop is closed, and nobody waits any more
                    loop.call_soon_threadsafe(heard.put_nowait, said)

            answer = Answer(request.sampling.seed, len(request.prompt))
            handle = engine.driver.submit(request, put, put)
            self._texts[row["key"]] = engine, handle
            try:
                await _hand_on(heard, send, answer)
            finally:
                del self._texts[row["key"]]
                if answer.reason is None:
                    engine.cancel(handle)
                self._service.count(held, [answer])
                told = in_words([answer], "cancelled, the client left")
                self._service.note(one_line(f"{strftime('%H:%M:%S')} pipe {held.served.name}: {told}", 2000))


async def _hand_on(heard: Heard, send: Send, answer: Answer) -> None:
    """Send what is heard, from `Started` to `Finished`, and keep in `answer` what the log says."""
    headers = [(b"content-type", b"application/x-ndjson")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    while answer.reason is None:
        said = await heard.get()
        if isinstance(said, BaseException):
            raise said
        for event in said:
            if isinstance(event, Stats):
                answer.stats = event
            elif isinstance(event, Finished):
                answer.stats, answer.reason = event.stats, event.reason
        line = json.dumps([wire.of_event(event) for event in said], separators=(",", ":")).encode() + b"\n"
        await send({"type": "http.response.body", "body": line, "more_body": True})
    await send({"type": "http.response.body", "body": b"", "more_body": False})


def _figures(held: Held | None) -> dict[str, Any]:
    """What an open model takes and does."""
    if held is None:
        return {"bytes": 0, "running": 0, "waiting": 0, "context_size": None}
    info, load = held.engine.info, held.engine.load()
    bytes_ = info.weight_bytes + info.kv_bytes
    texts = {"running": load.running, "waiting": max(held.texts - load.running, load.waiting)}
    return {"bytes": bytes_, **texts, "context_size": held.engine.context_size}


class _Texts:
    """An endpoint that is an app, so that it hears when its client leaves."""

    def __init__(self, call: Callable[[Scope, Receive, Send], Awaitable[None]]) -> None:
        self._call = call

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        begun = False

        async def sent(message: Any) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            await self._call(scope, receive, sent)
        except ClientDisconnect:
            pass
        except Exception as error:
            if begun:
                raise  # the connection breaks off in the middle, which the client notices
            await _refusal(error)(scope, receive, send)


def _answering(call: Answering) -> Callable[[Request], Awaitable[Response]]:
    async def endpoint(request: Request) -> Response:
        try:
            return JSONResponse(await call(await read_object(request)))
        except ClientDisconnect:
            raise
        except Exception as error:
            return _refusal(error)

    return endpoint


def _refusal(error: Exception) -> Response:
    if isinstance(error, KeyError):
        error = UsageError(f"{error} is missing")
    told = explained(error)
    if isinstance(told, Closing):
        told = _ended()
    return JSONResponse({"error": wire.of_error(told)}, status_of(told))


def _ended() -> LocalInferError:
    return NetworkError("the server ends", hint="ask again; `--no-server` opens the model here")


def by_door(pipes: ASGIApp, others: ASGIApp) -> ASGIApp:
    """The app that answers by where a connection came in: a Unix socket's address has no port."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        server = scope.get("server")
        inside = scope["type"] == "http" and server is not None and server[1] is None
        await (pipes if inside else others)(scope, receive, send)

    return app
