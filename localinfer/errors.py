"""Every error meant for a person: what happened, what to do, and the exit code.

The exit codes are a contract with scripts and are listed in the README; code 1 is kept for bugs of ours.
"""

from typing import ClassVar


class LocalInferError(Exception):
    """Base of every error meant for a person. `hint` is one thing they can do now."""

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


def explained(error: Exception) -> LocalInferError:
    """An error for a person; one of an unknown kind is a bug of ours."""
    if isinstance(error, LocalInferError):
        return error
    found = LocalInferError(
        f"{type(error).__name__}: {error}", hint="this is a bug; please report it with the steps that led here"
    )
    found.__cause__ = error
    return found


class UsageError(LocalInferError):
    """The words or the input given cannot be used as they are."""

    exit_code = 2


class DoesNotFit(LocalInferError):
    """Not enough memory or disk; the message holds both numbers."""

    exit_code = 3


class NotFound(LocalInferError):
    """No such model, file or chat; or it is gated, or not allowed."""

    exit_code = 4


class NotSupported(LocalInferError):
    """A well-formed thing that this program does not run: architecture, format, dtype, missing extra."""

    exit_code = 5


class NetworkError(LocalInferError):
    """The network or the Hub failed; worth trying again."""

    exit_code = 6


class Corrupt(LocalInferError):
    """A file lies about itself: hash, header, shape, size, NaN."""

    exit_code = 7


class NotFinite(Corrupt):
    """The model's scores of the next token are NaN, infinite, or all the same: its numbers overflowed."""


class ContextOverflow(LocalInferError):
    """The conversation is longer than the context."""

    exit_code = 8


class Changed(LocalInferError):
    """What a stopped job was begun with is not what is there now; going on would mix the two."""

    exit_code = 9


def size(n_bytes: float) -> str:
    """`1234567` → `1.2 MB`: decimal units, as disks and downloads are sold."""
    value = float(n_bytes)
    for unit in ("B", "kB", "MB", "GB"):
        if abs(value) < 1000:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} TB"


_UNITS = {"": 1, "k": 1000, "m": 1000**2, "g": 1000**3, "t": 1000**4}


def bytes_of(words: str, name: str) -> int:
    """`1.2GB` → 1200000000; `name` is the flag that an error names."""
    number = words.strip().lower().removesuffix("b")
    unit = number[-1:] if number[-1:] in _UNITS else ""
    try:
        value = float(number.removesuffix(unit)) * _UNITS[unit]
    except ValueError:
        value = 0.0
    if not 1 <= value < 1e18:
        raise UsageError(f"{name} is {words[:40]!r}, which is no size", hint="write it like 90MB or 1.2GB")
    return int(value)


def seconds_of(words: str, name: str) -> float:
    """`90s`, `30m`, `2h` → seconds; `name` is the flag that an error names."""
    number = words.strip().lower()
    try:
        value = float(number[:-1]) * {"s": 1, "m": 60, "h": 3600}[number[-1:]]
    except (ValueError, KeyError):
        value = 0.0
    if not 1 <= value < 1e7:
        raise UsageError(f"{name} is {words[:40]!r}, which is no time", hint="write it like 90s, 30m or 2h")
    return value
