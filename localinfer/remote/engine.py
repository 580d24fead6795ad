"""An `Engine` whose steps another process takes."""

import itertools
import json
import secrets
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from queue import SimpleQueue
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from localinfer.engine.driver import Driver
from localinfer.engine.elsewhere import Elsewhere
from localinfer.engine.request import Request, not_a_request
from localinfer.errors import LocalInferError, NetworkError, UsageError
from localinfer.events import Event, Finished
from localinfer.remote.link import Link
from localinfer.remote.wire import event_from, info_from, of_request, sampling_from

if TYPE_CHECKING:
    from localinfer.engine.load import Load
    from localinfer.engine.protocol import TextStream
    from localinfer.engine.protocol import Tokenizer as ProtocolTokenizer
    from localinfer.formats.tokenizer import Tokenizer

LOOKS_AGAIN_S = 0.25
"""Seconds between two questions how much a server has to do."""

Said = list[Event] | NetworkError


class RemoteEngine:
    """What the server at `path` says of a model it has open (`described`), as an engine. `here` is where the model
    lies, for the parts of its tokenizer that are seldom needed; with `remember` false nothing of the texts is left on
    disk."""

    def __init__(self, path: Path, described: Mapping[str, Any], here: Path, *, remember: bool) -> None:
        self._path, self._ref, self._remember = path, described["ref"], remember
        self.info = info_from(described["info"])
        self._far = RemoteTokenizer(path, self._ref, described["tokenizer"], here)
        self.tokenizer: ProtocolTokenizer = self._far
        self.chat_template: str | None = described["chat_template"]
        self.tools_template: str | None = described["tools_template"]
        self.context_size: int = described["context_size"]
        self.default_sampling = sampling_from(described["default_sampling"])
        self.driver = Driver(self)
        self._handles = itertools.count(1)
        self._running: dict[int, tuple[str, Link]] = {}
        self._heard: SimpleQueue[tuple[int, Said]] = SimpleQueue()
        self._load: Load | None = None
        self._looking = threading.Lock()
        self._closed = False

    def add(self, request: Request) -> int:
        """See `Engine.add`; waits until the server has taken it. Raises `NetworkError` where it is gone."""
        if self._closed:
            raise UsageError("the engine is closed", hint="open it again")
        if not isinstance(request, Request):
            raise not_a_request(request)
        key, link = secrets.token_hex(16), Link(self._path, timeout=None)
        row = of_request(request)
        row["remember"] = row["remember"] and self._remember
        try:
            response = link.begin("/pipe/text", row | {"model": self._ref, "key": key})
        except BaseException:
            link.end()  # the server ends what it may have begun
            raise
        handle = next(self._handles)
        self._running[handle] = key, link
        threading.Thread(target=self._read, args=(handle, response), daemon=True).start()
        return handle

    def step(self) -> list[Event]:
        """What is next said of the requests that run; waits for it. Raises `NetworkError` where the server is gone."""
        if not self._running:
            return []
        events = list[Event]()
        while not events or not self._heard.empty():
            handle, said = self._heard.get()
            if handle not in self._running:
                continue
            if isinstance(said, NetworkError):
                self._break_off()
                raise said
            events += said
            if isinstance(said[-1], Finished):
                self._running.pop(handle)[1].close()
        return events

    def stream(self, request: Request) -> Iterator[Event]:
        return self.driver.stream(request)

    def cancel(self, handle: int) -> None:
        """See `Engine.cancel`."""
        if (running := self._running.get(handle)) is not None:
            with suppress(LocalInferError):  # it has ended, or its reader will say that the server is gone
                self._ask("/pipe/cancel", {"key": running[0]})

    def focus(self, *handles: int) -> None:
        """The server knows no eyes."""

    def load(self) -> "Load":
        """See `Engine.load`; of all that the server does with this model, as it was a moment ago."""
        from localinfer.engine.load import Load

        self._load = self._load or Load()
        if not self._looking.locked():
            threading.Thread(target=self._look, daemon=True).start()
        return self._load

    def close(self) -> None:
        self.driver.close()
        self._closed = True
        self._break_off()
        self._far.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None, /
    ) -> None:
        self.close()

    def _ask(self, where: str, body: object) -> Any:
        link = Link(self._path)
        try:
            return link.ask(where, body)
        finally:
            link.close()

    def _look(self) -> None:
        """Ask how much there is to do; for a thread, so that no screen waits for a server."""
        from localinfer.engine.load import Load

        with self._looking, suppress(LocalInferError):
            self._load = Load(**self._ask("/pipe/load", {"model": self._ref}))
            time.sleep(LOOKS_AGAIN_S)

    def _break_off(self) -> None:
        """The server ends what nobody reads."""
        while self._running:
            _, (_, link) = self._running.popitem()
            link.end()

    def _read(self, handle: int, response: HTTPResponse) -> None:
        """Hand on what is said of a request, line by line; for a thread."""
        ended = False
        try:
            while not ended and (line := response.readline()):
                events = [event_from(row, handle) for row in json.loads(line)]
                ended = bool(events) and isinstance(events[-1], Finished)
                self._heard.put((handle, events))
        except (OSError, HTTPException, ValueError, KeyError, TypeError, AttributeError):
            pass
        if not ended:
            gone = NetworkError("the server ended before the answer did", hint="ask again; `localinfer ps` lists them")
            self._heard.put((handle, gone))


class RemoteTokenizer(Elsewhere):
    """The tokenizer of a model that is open elsewhere: to read a large vocabulary takes longer than to ask. What needs
    the vocabulary itself is read from the model's folder when it is first asked for."""

    def __init__(self, path: Path, ref: str, described: Mapping[str, Any], here: Path) -> None:
        self._link, self._ref, self._here = Link(path, timeout=None), ref, here
        self._turn = threading.Lock()
        self._read: Tokenizer | None = None
        self.vocab_size: int = described["vocab_size"]
        self.eos_ids = tuple[int, ...](described["eos_ids"])
        self.bos_id: int | None = described["bos_id"]
        self.adds_bos: bool = described["adds_bos"]
        self.after = tuple[int, ...](described["after"])
        self.bos_token: str = described["bos_token"]
        self.eos_token: str = described["eos_token"]
        self.special_strings = tuple[str, ...](described["special_strings"])
        self.special_tokens: Mapping[str, str] = described["special_tokens"]

    @staticmethod
    def described(tokenizer: Any) -> dict[str, Any]:
        """What there is to know of `tokenizer` beforehand, as JSON."""
        names = ("vocab_size", "eos_ids", "bos_id", "adds_bos", "after", "bos_token", "eos_token", "special_strings")
        return {name: getattr(tokenizer, name) for name in names} | {"special_tokens": dict(tokenizer.special_tokens)}

    def encode_text(self, text: str) -> list[int]:
        return self._ask("encode", {"text": text})["tokens"]  # type: ignore[no-any-return]

    def encode_rendered(self, text: str, guard: str = "") -> list[int]:
        return self._ask("encode", {"text": text, "guard": guard})["tokens"]  # type: ignore[no-any-return]

    def decode(self, ids: Iterable[int], *, specials: bool = False) -> str:
        return self._ask("decode", {"tokens": list(ids), "specials": specials})["text"]  # type: ignore[no-any-return]

    def stream(self, *, specials: bool = False, continues: bool = False) -> "TextStream":
        return self._whole().stream(specials=specials, continues=continues)

    def token_bytes(self, token: int, *, specials: bool = False) -> bytes:
        return self._whole().token_bytes(token, specials=specials)

    def close(self) -> None:
        with self._turn:
            self._link.close()

    def _ask(self, what: str, body: dict[str, Any]) -> Any:
        where, body = f"/pipe/{what}", body | {"model": self._ref}
        with self._turn:
            try:
                return self._link.ask(where, body)
            except NetworkError:  # the server closes connections that rest for some seconds; a new one tells
                return self._link.ask(where, body)

    def _whole(self) -> "Tokenizer":
        from localinfer.formats.tokenizer import Tokenizer

        self._read = self._read or Tokenizer(self._here)
        return self._read
