"""Lines answered by OpenAI-compatible servers: bounded together, tried again as they ask, in the order of the lines."""

import random
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit

import httpx2

from localinfer.chats.mapping import AHEAD
from localinfer.chats.plain_json import object_of
from localinfer.chats.rows import Asked
from localinfer.errors import LocalInferError, NetworkError, NotFound, UsageError
from localinfer.text import one_line

AGAIN = {408, 409, 425, 429, 500, 502, 503, 504}
"""Statuses after which another try may go better."""

ALL_THE_SAME = {401, 403, 404}
"""Statuses that every line would get."""

RESPONSE_BYTES = 64 << 20
MOST_URLS = 64


@dataclass(frozen=True, slots=True)
class Insistence:
    """How often and how long it is tried; times in seconds."""

    attempts: int = 8
    first_wait: float = 1.0
    longest_wait: float = 60.0
    longest_retry_after: float = 600.0
    connect: float = 10.0
    silence: float = 900.0
    """Longest wait for an answer, of which nothing comes before it is whole."""
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


class Endpoints:
    """Servers that answer alike, each asked as often as the others. `together` requests are under way at most."""

    def __init__(self, urls: list[str], *, key: str, together: int, insistence: Insistence | None = None) -> None:
        if not 0 < len(urls) <= MOST_URLS:
            raise UsageError(f"there are {len(urls)} endpoints", hint=f"give up to {MOST_URLS}")
        self._under_way = dict.fromkeys(map(base_of, urls), 0)
        self._turn = threading.Lock()
        self._together, self._insist = together, insistence or Insistence()
        self._ends = threading.Event()
        headers = {"authorization": f"Bearer {key}"} if key else {}
        timeout = httpx2.Timeout(self._insist.silence, connect=self._insist.connect, pool=None)
        limits = httpx2.Limits(max_connections=together)
        self._client = httpx2.Client(headers=headers, timeout=timeout, limits=limits, follow_redirects=False)

    def close(self) -> None:
        """End what is under way."""
        self._ends.set()
        self._client.close()

    def answer_all(self, lines: Iterator[Asked], body_of: Callable[[Asked], Mapping[str, Any]]) -> Iterator[Outcome]:
        """The answer to each line, in their order. Raises what no further line would be spared: `NetworkError` where
        no server answers in all tries, `NotFound` where they refuse the key, the model or the path."""
        waiting = deque[tuple[Asked, Future[Outcome] | Outcome]]()
        with ThreadPoolExecutor(self._together, thread_name_prefix="endpoint") as pool:
            try:
                for asked in lines:
                    waiting.append((asked, self._begun(pool, asked, body_of)))
                    while waiting and (len(waiting) >= AHEAD * self._together or _is_done(waiting[0][1])):
                        yield _outcome(waiting.popleft()[1])
                while waiting:
                    yield _outcome(waiting.popleft()[1])
            finally:
                self._ends.set()
                pool.shutdown(wait=False, cancel_futures=True)
                self._client.close()

    def _begun(
        self, pool: ThreadPoolExecutor, asked: Asked, body_of: Callable[[Asked], Mapping[str, Any]]
    ) -> "Future[Outcome] | Outcome":
        if asked.error is not None:
            return Outcome(asked, error=asked.error)
        try:
            return pool.submit(self._ask, asked, body_of(asked))
        except LocalInferError as error:
            return Outcome(asked, error=error)

    def _ask(self, asked: Asked, body: Mapping[str, Any]) -> Outcome:
        failures, told = 0, ""
        while not self._ends.is_set():
            url = self._chosen()
            retry_after = None
            try:
                status, headers, data = self._post(f"{url}/chat/completions", body)
            except (httpx2.TransportError, httpx2.DecodingError) as error:
                told = f"{url}: {str(error) or type(error).__name__}"
            else:
                if status not in AGAIN:
                    return _understood(asked, url, status, data)
                told, retry_after = f"{url} says {status}: {_message(data)}", _retry_after(headers)
            finally:
                with self._turn:
                    self._under_way[url] -= 1
            failures += 1
            if failures >= self._insist.attempts:
                break
            self._wait(self._insist.pause(failures, retry_after))
        raise NetworkError(
            f"no answer in {failures} tries; the last: {one_line(told, 300)}",
            hint="the same command with `--resume` goes on",
        )

    def _wait(self, seconds: float) -> None:
        if self._insist.sleep is time.sleep:
            self._ends.wait(seconds)  # so that the end is not waited for
        else:
            self._insist.sleep(seconds)

    def _chosen(self) -> str:
        """The server with the least under way."""
        with self._turn:
            url = min(self._under_way, key=lambda one: self._under_way[one])
            self._under_way[url] += 1
            return url

    def _post(self, url: str, body: Mapping[str, Any]) -> tuple[int, httpx2.Headers, bytes]:
        with self._client.stream("POST", url, json=body) as response:
            data = bytearray()
            for piece in response.iter_bytes():
                data += piece
                if len(data) > RESPONSE_BYTES:
                    break
            return response.status_code, response.headers, bytes(data)


def _is_done(one: "Future[Outcome] | Outcome") -> bool:
    return isinstance(one, Outcome) or one.done()


def _outcome(one: "Future[Outcome] | Outcome") -> Outcome:
    return one if isinstance(one, Outcome) else one.result()


def _understood(asked: Asked, url: str, status: int, data: bytes) -> Outcome:
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
        _check(body)
    except LocalInferError as error:
        return Outcome(asked, status, error=NetworkError(error.message, hint="ask another endpoint"))
    return Outcome(asked, status, body)


def _check(body: Mapping[str, Any]) -> None:
    """Raise `UsageError` unless it is a chat completion with a text, or with calls."""
    choices = body.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices else None
    message = choice.get("message") if isinstance(choice, dict) else None
    content = message.get("content") if isinstance(message, dict) else 0
    usage = body.get("usage")
    if not isinstance(content, str | None) or not isinstance(usage, dict | None):
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
