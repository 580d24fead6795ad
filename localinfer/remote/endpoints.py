"""Lines answered by OpenAI-compatible servers: bounded together, tried again as they ask, in the order of the lines."""

import math
import random
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
from localinfer.remote.flow import Flow
from localinfer.text import one_line

AGAIN = {408, 409, 425, 429, 500, 502, 503, 504}
"""Statuses after which another try may go better."""

ALL_THE_SAME = {401, 403, 404}
"""Statuses that every line would get."""

RESPONSE_BYTES = 64 << 20
MOST_URLS = 64

SILENT_TRIES = 2
"""How often a line is asked that has no answer in time: an answer was being made, perhaps, which costs."""

TELL_AGAIN_S = 1.0
"""Seconds between two words about the tries of one server."""

Asking = Callable[[Asked], tuple[str, Mapping[str, Any]]]
"""The path and the body with which a line is asked for. Raises what keeps it from being asked."""


@dataclass(frozen=True, slots=True)
class Insistence:
    """How often and how long it is tried; times in seconds."""

    attempts: int = 8
    first_wait: float = 1.0
    longest_wait: float = 60.0
    longest_retry_after: float = 600.0
    connect: float = 10.0
    silence: float = 600.0
    """Longest wait for an answer, of which nothing comes before it is whole; and the longest that one may take that
    comes in pieces, when its last one is there."""
    sleep: Callable[[float], object] = time.sleep

    def pause(self, failures: int, retry_after: float | None) -> float:
        """Seconds to the next try: what was asked for, else twice as long each time, and not all at once."""
        if retry_after is not None:
            return min(max(retry_after, 0.0), self.longest_retry_after)
        return min(self.first_wait * 2.0 ** (failures - 1), self.longest_wait) * random.uniform(0.75, 1.25)


@dataclass(slots=True)
class Outcome:
    """The answer to a line: what the server sent, or the error."""

    asked: Asked
    status: int = 0
    body: dict[str, Any] = field(default_factory=dict)
    error: LocalInferError | None = None


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
class _Server:
    """One of those that are asked."""

    url: str
    under_way: int = 0
    failures: int = 0
    """Since it last answered."""
    rests_until: float = 0.0
    """It is not chosen before, while another may be."""
    is_known: bool = False
    """Whether it has ever answered."""
    told: float = -math.inf


class Endpoints:
    """Servers that answer alike, each asked as often as the others. `together` requests are under way at most. `tell`
    hears of each try that failed, one a second of each server."""

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
        self._servers = [_Server(url) for url in dict.fromkeys(map(base_of, urls))]
        self._turn = threading.Lock()
        self._together, self._insist, self._tell = together, insistence or Insistence(), tell
        self._ends = threading.Event()
        self._silences = 0  # lines without an answer since the last one that had one
        headers = {"authorization": f"Bearer {key}"} if key else {}
        timeout = httpx2.Timeout(self._insist.silence, connect=self._insist.connect, pool=None)
        limits = httpx2.Limits(max_connections=together)
        self._client = httpx2.Client(headers=headers, timeout=timeout, limits=limits, follow_redirects=False)

    def close(self) -> None:
        """End what is under way."""
        self._ends.set()
        self._client.close()

    def answer_all(self, lines: Iterator[Asked], asking: Asking, *, in_order: bool = True) -> Iterator[Outcome]:
        """The answer to each line, in their order, or, unless that must be, nearly so: one that is long waited for
        holds no others back. Raises what no further line would be spared: `NetworkError` where no server can be
        reached, or none answers in all tries; `NotFound` where they refuse the key, the model or the path."""
        most, ask = AHEAD * self._together, partial(self._answer, asking)
        flow = Flow(lines, ask, together=self._together, most=most, in_order=in_order)
        try:
            yield from flow.results()
        finally:
            self._ends.set()
            self._client.close()

    def _answer(self, asking: Asking, asked: Asked) -> Outcome:
        if asked.error is not None:
            return Outcome(asked, error=asked.error)
        try:
            path, body = asking(asked)
        except LocalInferError as error:
            return Outcome(asked, error=error)
        return self._ask(asked, path, body)

    def _ask(self, asked: Asked, path: str, body: Mapping[str, Any]) -> Outcome:
        failures, silences, told = 0, 0, ""
        while not self._ends.is_set():
            server = self._chosen()
            retry_after = None
            try:
                status, headers, data = self._post(server.url + path.removeprefix("/v1"), body)
            except (httpx2.TransportError, httpx2.DecodingError) as error:
                told = f"{server.url}: {self._reason(error)}"
                self._require_reachable(server, error, told)
                silences += isinstance(error, httpx2.ReadTimeout | httpx2.WriteTimeout)
            else:
                server.is_known, self._silences = True, 0
                if status not in AGAIN:
                    server.failures = 0
                    return _understood(asked, server.url, path, status, data)
                told, retry_after = f"{server.url} says {status}: {_message(data)}", _retry_after(headers)
            finally:
                with self._turn:
                    server.under_way -= 1
            failures += 1
            if silences >= SILENT_TRIES:
                return self._silent(asked)
            if failures >= self._insist.attempts:
                break
            self._wait(server, failures, retry_after, told)
        raise NetworkError(
            f"no answer in {failures} tries; the last: {one_line(told, 300)}",
            hint="the same command with `--resume` goes on",
        )

    def _silent(self, asked: Asked) -> Outcome:
        """No answer to this line in time. Raises `NetworkError` where no other had one either, lately."""
        with self._turn:
            self._silences += 1
            silences = self._silences
        hint = "`--endpoint-timeout` waits longer; `--resume` tries such lines again"
        if silences > self._together:
            raise NetworkError(f"{silences} lines, one after the other, had no answer in {self._limit()}", hint=hint)
        return Outcome(asked, error=NetworkError(f"no answer in {self._limit()}, {SILENT_TRIES} times", hint=hint))

    def _reason(self, error: Exception) -> str:
        is_silent = isinstance(error, httpx2.ReadTimeout | httpx2.WriteTimeout)
        return f"no answer in {self._limit()}" if is_silent else one_line(str(error) or type(error).__name__, 200)

    def _limit(self) -> str:
        return f"{self._insist.silence:g} s"

    def _require_reachable(self, server: _Server, error: Exception, told: str) -> None:
        """Raise `NetworkError` where no connection could be made to any server, from the first try on: waiting is for
        servers that were there before."""
        server.failures += 1
        others = [one for one in self._servers if one is not server]
        unreachable = isinstance(error, httpx2.ConnectError) and not server.is_known
        if unreachable and all(one.failures and not one.is_known for one in others):
            several = f", nor to {len(others)} more" if others else ""
            raise NetworkError(
                f"no connection to {told}{several}", hint="start the server, or check the address after `--endpoint`"
            )

    def _wait(self, server: _Server, failures: int, retry_after: float | None, told: str) -> None:
        """Wait for the next try, or not at all where another server may answer; and tell."""
        now = time.monotonic()
        pause = self._insist.pause(failures, retry_after)
        with self._turn:
            server.rests_until = now + pause
            others = any(one.rests_until <= now for one in self._servers)
            is_told = self._tell is not None and now - server.told >= TELL_AGAIN_S
            server.told = now if is_told else server.told
        if is_told and self._tell is not None:
            then = "another is asked" if others else f"again in {pause:.1f} s"
            self._tell(f"{told}; {then} (try {failures} of {self._insist.attempts})")
        if others:
            return
        if self._insist.sleep is time.sleep:
            self._ends.wait(pause)  # so that the end is not waited for
        else:
            self._insist.sleep(pause)

    def _chosen(self) -> _Server:
        """The server with the least under way, of those that do not rest."""
        now = time.monotonic()
        with self._turn:
            server = min(self._servers, key=lambda one: (one.rests_until > now, one.under_way))
            server.under_way += 1
            return server

    def _post(self, url: str, body: Mapping[str, Any]) -> tuple[int, httpx2.Headers, bytes]:
        until = time.monotonic() + self._insist.silence
        with self._client.stream("POST", url, json=body) as response:
            data = bytearray()
            for piece in response.iter_bytes():
                data += piece
                if len(data) > RESPONSE_BYTES:
                    break
                if time.monotonic() > until:
                    raise httpx2.ReadTimeout(f"no whole answer in {self._limit()}")
            return response.status_code, response.headers, bytes(data)


def _understood(asked: Asked, url: str, path: str, status: int, data: bytes) -> Outcome:
    """Raises `NotFound` where no line would fare better."""
    if status in ALL_THE_SAME:
        raise NotFound(
            f"{url} says {status}: {_message(data)}", hint="check the address, the key and `--endpoint-model`"
        )
    if status != 200:
        said = f"the endpoint says {status}: {_message(data)}"
        return Outcome(asked, status, error=UsageError(said, hint="change the line"))
    try:
        body = object_of(data, RESPONSE_BYTES, what="the endpoint's answer", hint="ask another endpoint")
        _check(body, path)
    except LocalInferError as error:
        return Outcome(asked, status, error=NetworkError(error.message, hint="ask another endpoint"))
    return Outcome(asked, status, body)


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
