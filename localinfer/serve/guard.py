"""Who may ask at all: hosts and origins against DNS rebinding and foreign web pages, and the key."""

import hmac
import ipaddress
from collections.abc import Iterable

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from localinfer.errors import LocalInferError
from localinfer.protocols.errors import Forbidden, Unauthorized, form_of
from localinfer.serve.http import refusal

OPEN = {"/health"}
"""Paths that need no key."""


class Guard:
    """Lets requests through to `app`.

    The `Host` must be an address, `localhost` or one of `hosts`: a name that somebody else made point here is none of
    them. An `Origin`, which browsers send, must be that same host or one of `origins`. With a `key` it must be given
    as a bearer token, or as `x-api-key`.
    """

    def __init__(self, app: ASGIApp, *, hosts: Iterable[str] = (), origins: Iterable[str] = (), key: str = "") -> None:
        self._app, self._key = app, key.encode()
        self._hosts = {host.lower() for host in hosts}
        self._origins = {origin.lower().rstrip("/") for origin in origins}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        error = self._wrong(Headers(scope=scope), scope["path"], scope["method"])
        app = self._app if error is None else refusal(error, form_of(scope["path"]))
        await app(scope, receive, send)

    def _wrong(self, headers: Headers, path: str, method: str) -> LocalInferError | None:
        host = headers.get("host", "")
        if not self._is_ours(host):
            return Forbidden(
                f"the host `{host[:100]}` is not known here",
                hint="ask by address, or serve with `--allow-host NAME`",
            )
        origin = headers.get("origin")
        if origin is not None and not self._may_ask(origin, host):
            return Forbidden(
                f"pages of `{origin[:100]}` may not ask here", hint="serve with `--allow-origin ORIGIN` to let them"
            )
        preflight = method == "OPTIONS" and origin is not None  # browsers send no key with it
        if self._key and path not in OPEN and not preflight and not self._has_key(headers):
            return Unauthorized("the key is missing or wrong", hint="send it as `Authorization: Bearer KEY`")
        return None

    def _is_ours(self, host: str) -> bool:
        name = _name_of(host)
        if name == "localhost" or name.endswith(".localhost") or name in self._hosts:
            return True
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return True

    def _may_ask(self, origin: str, host: str) -> bool:
        return origin.lower() in self._origins or origin.lower() == f"http://{host.lower()}"

    def _has_key(self, headers: Headers) -> bool:
        scheme, _, bearer = headers.get("authorization", "").partition(" ")
        given = [bearer.strip()] if scheme.lower() == "bearer" else []
        given.append(headers.get("x-api-key", ""))
        return any(hmac.compare_digest(one.encode("utf-8", "replace"), self._key) for one in given)


def _name_of(host: str) -> str:
    """The host without its port, brackets of an IPv6 address taken off."""
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.rpartition(":")[0].lower() if ":" in host else host.lower()
