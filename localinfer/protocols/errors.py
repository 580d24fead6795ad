"""What a server says no with: the project's errors as HTTP status codes, each with the field that is wrong."""

from collections.abc import Callable
from typing import Any, ClassVar

from localinfer.errors import (
    ContextOverflow,
    DoesNotFit,
    LocalInferError,
    NetworkError,
    NotFound,
    NotSupported,
    UsageError,
)


class Refused(UsageError):
    """A field of a request is wrong, or not supported."""

    def __init__(self, field: str, message: str, *, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.field = field


class HttpError(LocalInferError):
    """What only a server can say."""

    status: ClassVar[int] = 500
    retry_after: int | None = None
    """Seconds after which it may go better."""


class Unauthorized(HttpError):
    """The key is missing or wrong."""

    status = 401


class Forbidden(HttpError):
    """Asked from where nobody may ask."""

    status = 403


class WrongPath(HttpError):
    """Nothing is served there."""

    status = 404


class WrongMethod(HttpError):
    """It is served, by another method."""

    status = 405


class TooSlow(HttpError):
    """The body did not come in time."""

    status = 408


class TooLarge(HttpError):
    """The body has too many bytes."""

    status = 413


class WrongEncoding(HttpError):
    """The body is packed in a way that is not unpacked here."""

    status = 415


class Busy(HttpError):
    """The queue is full."""

    status = 429

    def __init__(self, message: str, *, retry_after: int) -> None:
        super().__init__(message, hint=f"try again in {retry_after} s")
        self.retry_after = retry_after


class Closing(HttpError):
    """The server ends."""

    status = 503


_STATUS: tuple[tuple[type[LocalInferError], int], ...] = (
    (UsageError, 400),
    (ContextOverflow, 400),
    (NotSupported, 400),
    (NotFound, 404),
    (DoesNotFit, 503),
    (NetworkError, 502),
)

_KINDS = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    405: "invalid_request_error",
    408: "invalid_request_error",
    413: "request_too_large",
    415: "invalid_request_error",
    429: "rate_limit_error",
    503: "overloaded_error",
}
"""Words that OpenAI and Anthropic share."""


def status_of(error: LocalInferError) -> int:
    """The HTTP status of an error; 500 for a model or a program that is broken."""
    if isinstance(error, HttpError):
        return error.status
    return next((status for kind, status in _STATUS if isinstance(error, kind)), 500)


def kind_of(error: LocalInferError) -> str:
    """The error's kind, a word that clients compare."""
    return _KINDS.get(status_of(error), "api_error" if status_of(error) >= 500 else "invalid_request_error")


def retry_after(error: LocalInferError) -> int | None:
    """Seconds after which it may go better; None where nobody knows."""
    if isinstance(error, HttpError):
        return error.retry_after
    return 5 if isinstance(error, DoesNotFit) else None


def words_of(error: LocalInferError) -> str:
    """What happened, and what to do, in one line."""
    return f"{error.message}; {error.hint}" if error.hint else error.message


def openai_form(error: LocalInferError) -> dict[str, Any]:
    """The body of an error as OpenAI's clients read it."""
    code = {429: "rate_limit_exceeded", 404: "not_found", 401: "invalid_api_key"}.get(status_of(error))
    if isinstance(error, ContextOverflow):
        code = "context_length_exceeded"
    field = error.field if isinstance(error, Refused) else None
    return {"error": {"message": words_of(error), "type": kind_of(error), "param": field, "code": code}}


def anthropic_form(error: LocalInferError) -> dict[str, Any]:
    """The body of an error as Anthropic's clients read it."""
    return {"type": "error", "error": {"type": kind_of(error), "message": words_of(error)}}


def ollama_form(error: LocalInferError) -> dict[str, Any]:
    """The body of an error as Ollama's clients read it."""
    return {"error": words_of(error)}


def form_of(path: str) -> Callable[[LocalInferError], dict[str, Any]]:
    """How the protocol that is spoken at `path` spells errors."""
    if path.startswith("/v1/messages"):
        return anthropic_form
    return ollama_form if path.startswith("/api/") else openai_form
