"""What every protocol is: fields to a request, answers to bytes."""

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Protocol

from localinfer.chats.saying import Said
from localinfer.engine.protocol import Tokenizer
from localinfer.errors import LocalInferError
from localinfer.protocols.answer import Answer
from localinfer.protocols.asking import Ask
from localinfer.protocols.fields import Fields

Form = Callable[[LocalInferError], dict[str, Any]]
"""An error as a protocol spells it."""


@dataclass(frozen=True, slots=True)
class Writer:
    """The model that answers."""

    name: str
    tokenizer: Tokenizer


class Shape(Protocol):
    """How a protocol spells the answers to one request."""

    media_type: str
    """Of a stream."""

    def whole(self, writer: Writer, answers: list[Answer]) -> dict[str, Any]:
        """All answers, in one object."""
        ...

    def begin(self, writer: Writer, answers: list[Answer]) -> Iterable[bytes]:
        """What a stream begins with."""
        ...

    def read(self, index: int, answer: Answer) -> Iterable[bytes]:
        """More of the prompt of answer `index` has been read."""
        ...

    def said(self, index: int, said: Said) -> Iterable[bytes]:
        """A piece of answer `index`."""
        ...

    def ended(self, index: int, answer: Answer) -> Iterable[bytes]:
        """Answer `index` is whole."""
        ...

    def end(self, answers: list[Answer]) -> Iterable[bytes]:
        """What a stream ends with."""
        ...

    def failed(self, error: LocalInferError) -> bytes:
        """An error in the middle of a stream, the last of it."""
        ...


@dataclass(frozen=True, slots=True)
class Dialect:
    """How one protocol asks, and says no."""

    understand: Callable[[Fields], tuple[Ask, Shape]]
    form: Form


def sse(value: Any, event: str = "") -> bytes:
    """One event of a stream of server-sent events."""
    head = f"event: {event}\n" if event else ""
    return f"{head}data: {compact(value)}\n\n".encode()


def compact(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
