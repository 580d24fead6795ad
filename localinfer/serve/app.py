"""All that is served, by path. What each protocol says lies in a file of its own."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from http import HTTPStatus
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from localinfer.errors import explained
from localinfer.protocols import ollama
from localinfer.protocols.anthropic import MESSAGES
from localinfer.protocols.errors import WrongMethod, WrongPath, anthropic_form, form_of, openai_form
from localinfer.protocols.fields import Fields
from localinfer.protocols.openai_chat import CHAT
from localinfer.protocols.openai_text import TEXT
from localinfer.protocols.responses import RESPONSES
from localinfer.protocols.shape import Form
from localinfer.serve.embeddings import embeddings
from localinfer.serve.guard import Guard
from localinfer.serve.http import Endpoint, read_object, refusal
from localinfer.serve.models import Served
from localinfer.serve.service import Service
from localinfer.serve.tags import tags, version
from localinfer.serve.tokens import count_tokens, detokenize, tokenize

Answering = Callable[[Service, Fields], Awaitable[dict[str, Any]]]


def make_app(service: Service, *, hosts: Iterable[str] = (), origins: Iterable[str] = (), key: str = "") -> Starlette:
    """The whole server, for uvicorn or any other that speaks ASGI; see `Guard` for the last three."""
    origins = list(origins)
    cors = Middleware(CORSMiddleware, allow_origins=origins, allow_methods=["*"], allow_headers=["*"])
    guard = Middleware(Guard, hosts=hosts, origins=origins, key=key)
    return Starlette(
        routes=_routes(service),
        middleware=[guard, cors] if origins else [guard],
        exception_handlers={HTTPException: _no_route},
    )


def _routes(service: Service) -> list[BaseRoute]:
    return [
        Route("/v1/chat/completions", Endpoint(service, CHAT), methods=["POST"]),
        Route("/v1/completions", Endpoint(service, TEXT), methods=["POST"]),
        Route("/v1/embeddings", simple(service, embeddings), methods=["POST"]),
        Route("/v1/models", _models(service)),
        Route("/v1/models/{name:path}", _models(service)),
        Route("/v1/responses", Endpoint(service, RESPONSES), methods=["POST"]),
        Route("/v1/messages", Endpoint(service, MESSAGES), methods=["POST"]),
        Route("/v1/messages/count_tokens", simple(service, count_tokens, anthropic_form), methods=["POST"]),
        Route("/api/chat", Endpoint(service, ollama.CHAT), methods=["POST"]),
        Route("/api/generate", Endpoint(service, ollama.TEXT), methods=["POST"]),
        Route("/api/tags", _told(service, tags)),
        Route("/api/version", _told(service, version)),
        Route("/tokenize", simple(service, tokenize), methods=["POST"]),
        Route("/detokenize", simple(service, detokenize), methods=["POST"]),
        Route("/health", _health),
        Route("/metrics", _metrics(service)),
    ]


def simple(
    service: Service, answering: Answering, form: Form = openai_form
) -> Callable[[Request], Awaitable[Response]]:
    """An endpoint that takes an object and gives one."""

    async def endpoint(request: Request) -> Response:
        try:
            return JSONResponse(await answering(service, Fields(await read_object(request))))
        except ClientDisconnect:
            raise
        except Exception as error:
            return refusal(explained(error), form)

    return endpoint


def _told(
    service: Service, telling: Callable[[Service], Awaitable[dict[str, Any]]]
) -> Callable[[Request], Awaitable[Response]]:
    """An endpoint that takes nothing and gives an object."""

    async def endpoint(_request: Request) -> Response:
        return JSONResponse(await telling(service))

    return endpoint


async def _health(_request: Request) -> Response:
    return Response()


def _metrics(service: Service) -> Callable[[Request], Awaitable[Response]]:
    async def endpoint(_request: Request) -> Response:
        return Response(service.metrics.text(service.models.open_now()), media_type="text/plain; version=0.0.4")

    return endpoint


def _models(service: Service) -> Callable[[Request], Awaitable[Response]]:
    async def endpoint(request: Request) -> Response:
        try:
            if name := request.path_params.get("name"):
                return JSONResponse(_row(await asyncio.to_thread(service.models.find, name)))
            rows = [_row(one) for one in await asyncio.to_thread(service.models.served)]
            return JSONResponse({"object": "list", "data": rows})
        except Exception as error:
            return refusal(explained(error), openai_form)

    return endpoint


def _row(served: Served) -> dict[str, Any]:
    created = int(served.model.modified)
    return {
        "id": served.name,
        "object": "model",
        "created": created,
        "owned_by": "localinfer",
        "root": served.model.ref,
    }


async def _no_route(request: Request, error: Exception) -> Response:
    """Starlette's own errors: there is no such path, or no such method."""
    path = request.url.path[:200]
    status = error.status_code if isinstance(error, HTTPException) else HTTPStatus.NOT_FOUND
    if status == HTTPStatus.METHOD_NOT_ALLOWED:
        return refusal(WrongMethod(f"`{request.method}` does not go with `{path}`"), form_of(path))
    return refusal(WrongPath(f"nothing is served at `{path}`", hint="see `docs/guides/serve.md`"), form_of(path))
