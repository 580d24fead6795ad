"""Lines answered by OpenAI-compatible servers: bounded together, tried again as they ask, in the order of the lines."""

import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from functools import partial
from typing import Any
from urllib.parse import urlsplit

import httpx2

from localinfer.chats.mapping import AHEAD
from localinfer.chats.plain_json import object_of
from localinfer.chats.rows import Asked
from localinfer.errors import LocalInferError, NetworkError, NotFound, UsageError
from localinfer.remote.flow import Flow, Later
from localinfer.remote.servers import SILENT_TRIES, Failure, Insistence, Servers, Tries
from localinfer.text import one_line

AGAIN = {408, 409, 425, 429, 500, 502, 503, 504}
"""Statuses after which another try may go better."""

OF_ALL = {429, 503}
"""Of these, those that speak of the server where they say how long to wait."""

RESPONSE_BYTES = 64 << 20
MOST_URLS = 64

Asking = Callable[[Asked], tuple[str, Mapping[str, Any]]]
"""The path and the body with which a line is asked for. Raises what keeps it from being asked."""


@dataclass(slots=True)
class Outcome:
    """The answer to a line: what the server sent, or the error."""

    asked: Asked
    status: int = 0
    body: dict[str, Any] = field(default_factory=dict)
    error: LocalInferError | None = None
    weight: int = 0
    """Bytes that came and went for it."""


def base_of(url: str) -> str:
    """The address that paths are put behind; `/v1` where it has no path. Raises `UsageError` for what is no address."""
    try:
        parts = urlsplit(url.strip())
        ours = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        parts, ours = urlsplit(""), False
    if not ours or parts.query or parts.fragment or "@" in parts.netloc:
        raise UsageError(f"`{one_line(url, 100)}` is no address", hint="write it like `http://127.0.0.1:8080/v1`")
    return f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/') or '/v1'}"


@dataclass(slots=True)
class _Line:
    """A line on its way: where it is asked, with which bytes, and what became of that."""

    asked: Asked
    tries: Tries
    path: str = ""
    data: bytes = b""


class Endpoints:
    """Servers that answer alike; see `Servers`."""

    def __init__(
        self,
        urls: list[str],
        *,
        key: str,
        together: int,
        insistence: Insistence | None = None,
        tell: Callable[[str], object] | None = None,
    ) -> None:
        if not 0 < len(urls) <= MOST_URLS:
            raise UsageError(f"there are {len(urls)} endpoints", hint=f"give up to {MOST_URLS}")
        self._together, self._insist = together, insistence or Insistence()
        self._ends = threading.Event()
        bases = list(dict.fromkeys(map(base_of, urls)))
        self._servers = Servers(bases, together=together, insistence=self._insist, tell=tell, ends=self._ends)
        headers = {"content-type": "application/json"} | ({"authorization": f"Bearer {key}"} if key else {})
        timeout = httpx2.Timeout(self._insist.silence, connect=self._insist.connect, pool=None)
        limits = httpx2.Limits(max_connections=together)
        self._client = httpx2.Client(headers=headers, timeout=timeout, limits=limits, follow_redirects=False)

    def close(self) -> None:
        """End what is under way."""
        self._ends.set()
        self._client.close()

    def answer_all(self, lines: Iterator[Asked], asking: Asking, *, in_order: bool = True) -> Iterator[Outcome]:
        """The answer to each line, in their order, or, unless that must be, nearly so. One that is long waited for
        keeps no others from being asked. Raises what no further line would be spared: `NetworkError` where no server
        can be reached, or none answers any more; `NotFound` where they refuse the key, the model or the path."""
        ahead, ask = AHEAD * self._together, partial(self._answer, asking)
        begun = (_Line(one, Tries(one.index)) for one in lines)
        flow = Flow(begun, ask, together=self._together, ahead=ahead, in_order=in_order, weigh=lambda one: one.weight)
        try:
            yield from flow.results()
        finally:
            self._ends.set()
            self._client.close()

    def _answer(self, asking: Asking, line: _Line) -> Outcome:
        """Raises `Later` where it is to be tried again."""
        asked = line.asked
        if asked.error is not None:
            return Outcome(asked, error=asked.error)
        if not line.data:
            try:
                line.path, body = asking(asked)
                line.data = _spelled(body)
            except LocalInferError as error:
                return Outcome(asked, error=error)
        return self._ask(line)

    def _ask(self, line: _Line) -> Outcome:
        server, begun = self._servers.chosen(line.tries), time.monotonic()
        try:
            status, headers, data = self._post(server.url + line.path.removeprefix("/v1"), line.data)
        except (httpx2.TransportError, httpx2.DecodingError) as error:
            told = f"{server.url}: {self._reason(error)}"
            no_way = isinstance(error, httpx2.ConnectError | httpx2.ConnectTimeout)
            failure = Failure(told, begun, is_of_all=no_way)
            if isinstance(error, httpx2.ConnectError):
                self._servers.require_reachable(server, told)
            line.tries.silences += isinstance(error, httpx2.ReadTimeout | httpx2.WriteTimeout)
        else:
            server.is_known = True
            if status not in AGAIN:
                if self._servers.answered(server, status):
                    told = f"{server.url} says {status}: {_message(data)}"
                    raise NotFound(told, hint="check the address, the key and `--endpoint-model`")
                return _understood(line, status, data)
            after = _retry_after(headers)
            told = one_line(f"{server.url} says {status}: {_message(data)}", 400)
            failure = Failure(told, begun, after, is_of_all=after is not None and status in OF_ALL)
        finally:
            self._servers.left(server)
        pause = self._servers.failed(server, line.tries, failure)
        if pause is not None:
            raise Later(pause)
        return Outcome(line.asked, error=self._no_answer(line.tries, failure), weight=len(line.data))

    def _no_answer(self, tries: Tries, failure: Failure) -> NetworkError:
        if tries.silences >= SILENT_TRIES:
            hint = "`--endpoint-timeout` waits longer; `--resume` tries such lines again"
            return NetworkError(f"no answer in {self._limit()}, {tries.silences} times", hint=hint)
        return NetworkError(
            f"no answer in {tries.failures} tries; the last: {failure.told}", hint="`--resume` tries such lines again"
        )

    def _reason(self, error: Exception) -> str:
        is_silent = isinstance(error, httpx2.ReadTimeout | httpx2.WriteTimeout)
        return f"no answer in {self._limit()}" if is_silent else one_line(str(error) or type(error).__name__, 200)

    def _limit(self) -> str:
        return f"{self._insist.silence:g} s"

    def _post(self, url: str, body: bytes) -> tuple[int, httpx2.Headers, bytes]:
        until = time.monotonic() + self._insist.silence
        with self._client.stream("POST", url, content=body) as response:
            data = bytearray()
            for piece in response.iter_bytes():
                data += piece
                if len(data) > RESPONSE_BYTES:
                    break
                if time.monotonic() > until:
                    raise httpx2.ReadTimeout(f"no whole answer in {self._limit()}")
            return response.status_code, response.headers, bytes(data)


def _spelled(body: Mapping[str, Any]) -> bytes:
    """The bytes of a request. Raises `UsageError` for what no JSON holds."""
    try:
        return json.dumps(body, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()
    except ValueError as error:
        raise UsageError(f"the line is nothing to send: {one_line(str(error), 80)}", hint="change the line") from None


def _understood(line: _Line, status: int, data: bytes) -> Outcome:
    outcome = Outcome(line.asked, status, weight=len(line.data) + len(data))
    if status != 200:
        said = f"the endpoint says {status}: {_message(data)}"
        outcome.error = UsageError(said, hint="change the line")
        return outcome
    try:
        outcome.body = object_of(data, RESPONSE_BYTES, what="the endpoint's answer", hint="ask another endpoint")
        _check(outcome.body, line.path)
    except LocalInferError as error:
        outcome.error = NetworkError(error.message, hint="ask another endpoint")
    return outcome


_LISTS = {"/v1/chat/completions": "choices", "/v1/completions": "choices", "/v1/responses": "output"}


def _check(body: Mapping[str, Any], path: str) -> None:
    """Raise `UsageError` unless it is an answer of what was asked at `path`: of chats, one with a text, or with
    calls."""
    listed, usage = body.get(_LISTS.get(path, "data")), body.get("usage")
    if not isinstance(listed, list) or not listed or not isinstance(usage, dict | None):
        raise UsageError(f"the endpoint's answer is none to a request to {path}")
    if path != "/v1/chat/completions":
        return
    message = listed[0].get("message") if isinstance(listed[0], dict) else None
    content = message.get("content") if isinstance(message, dict) else 0
    if not isinstance(content, str | None):
        raise UsageError("the endpoint's answer is no chat completion")


def _message(data: bytes) -> str:
    """What an error's body says."""
    text = data[:2000].decode("utf-8", "replace")
    with suppress(LocalInferError):
        error = object_of(data, RESPONSE_BYTES).get("error")
        text = str(error.get("message", text)) if isinstance(error, dict) else str(error or text)
    return one_line(text, 300)


def _retry_after(headers: httpx2.Headers) -> float | None:
    """Seconds that a server asks to wait, as a number or as a date."""
    value = headers.get("retry-after", "").strip()
    with suppress(ValueError, OverflowError, TypeError):
        return float(value) if value[:1].isdigit() else parsedate_to_datetime(value).timestamp() - time.time()
    return None
