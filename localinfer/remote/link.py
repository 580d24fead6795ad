"""HTTP over a server's socket, by what Python brings: a second `run` waits for no larger library."""

import json
import socket
from contextlib import suppress
from http.client import HTTPConnection, HTTPException, HTTPResponse
from pathlib import Path
from typing import Any

from localinfer.errors import NetworkError
from localinfer.remote.sockets import connect
from localinfer.remote.wire import error_from

QUICK_S = 10.0
"""Seconds that a server may take to answer what costs it nothing."""


class Link(HTTPConnection):
    """A connection to the server at `path`. `timeout` None waits for as long as it takes."""

    def __init__(self, path: Path, timeout: float | None = QUICK_S) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path, self._patience = path, timeout

    def connect(self) -> None:
        self.sock = connect(self._path, self._patience)

    def begin(self, where: str, body: object = None) -> HTTPResponse:
        """Ask at `where`, with a JSON `body` if there is one; the answer, its head read. Raises what the server says,
        and `NetworkError` where it says nothing."""
        try:
            data = None if body is None else json.dumps(body).encode()
            self.request("GET" if data is None else "POST", where, data, {"content-type": "application/json"})
            response = self.getresponse()
            if response.status != 200:
                raise _refusal(response.read(1 << 20), response.status)
        except (OSError, HTTPException) as error:
            self.close()
            raise NetworkError(f"the server does not answer: {error}", hint="ask again, or add `--no-server`") from None
        return response

    def ask(self, where: str, body: object = None) -> Any:
        """The JSON that is answered. Raises as `begin` does."""
        response = self.begin(where, body)
        try:
            return json.loads(response.read())
        except (OSError, HTTPException, ValueError) as error:
            self.close()
            raise NetworkError(f"the server broke off: {error}", hint="ask again, or add `--no-server`") from None

    def end(self) -> None:
        """Break it off; who reads from it in another thread sees its end."""
        if self.sock is not None:
            with suppress(OSError):
                self.sock.shutdown(socket.SHUT_RDWR)
        self.close()


def ask(path: Path, where: str, body: object = None, timeout: float | None = QUICK_S) -> Any:
    """One question to the server at `path`. Raises as `Link.begin` does."""
    link = Link(path, timeout)
    try:
        return link.ask(where, body)
    finally:
        link.close()


def _refusal(body: bytes, status: int) -> Exception:
    try:
        return error_from(json.loads(body)["error"])
    except (ValueError, KeyError, TypeError):
        return NetworkError(f"the server says {status}", hint="ask again, or add `--no-server`")
