"""The fields of a request, each asked for by name and kind; one that nobody asked for is an error, never ignored."""

import math
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from difflib import get_close_matches
from typing import Any

from localinfer.chats.plain_json import storable, strings
from localinfer.errors import LocalInferError
from localinfer.protocols.errors import Refused
from localinfer.text import one_line

WHOLE = (1 << 64) - 1
_KINDS = {str: "text", int: "a whole number", bool: "true or false", dict: "an object"}


class Fields:
    """A JSON object. A field that is null counts as left out; with `ignore`, one nobody asks for is passed over."""

    def __init__(self, row: Mapping[str, Any], where: str = "", *, ignore: bool = False) -> None:
        self._row, self._where, self._ignore = row, where, ignore
        self._known: set[str] = set()

    def take(self, name: str) -> Any:
        """The field as it is; None where it is left out."""
        self._known.add(name)
        return self._row.get(name)

    def text(self, name: str) -> str | None:
        value = self.take(name)
        if value is None:
            return None
        if not isinstance(value, str):
            raise self.wrong(name, "must be text")
        with self.blamed(name):
            return storable(value, f"`{self.path(name)}`")

    def needed_text(self, name: str) -> str:
        value = self.text(name)
        if not value:
            raise self.wrong(name, "is missing")
        return value

    def flag(self, name: str, default: bool = False) -> bool:
        value = self.take(name)
        if value is None:
            return default
        if not isinstance(value, bool):
            raise self.wrong(name, "must be true or false")
        return value

    def whole(self, name: str, low: int, high: int = WHOLE) -> int | None:
        value = self.take(name)
        if value is None:
            return None
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise self.wrong(name, f"must be a whole number from {low} to {high}, not {_shown(value)}")
        return value

    def number(self, name: str, low: float, high: float) -> float | None:
        value = self.take(name)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
            raise self.wrong(name, f"must be a number from {low:g} to {high:g}, not {_shown(value)}")
        return float(value)

    def texts(self, name: str, most: int = 64) -> tuple[str, ...]:
        """One text or a list of texts, none of them empty."""
        value = self.take(name)
        listed = [value] if isinstance(value, str) else [] if value is None else value
        if not isinstance(listed, list) or not all(isinstance(one, str) and one for one in listed):
            raise self.wrong(name, "must be a text or a list of texts, none of them empty")
        if len(listed) > most:
            raise self.wrong(name, f"has {len(listed)} texts, more than {most}")
        with self.blamed(name):
            return tuple(storable(one, f"`{name}`") for one in listed)

    def inner(self, name: str) -> "Fields | None":
        """An object inside, whose fields are asked for in the same way."""
        value = self.take(name)
        if value is None:
            return None
        if not isinstance(value, dict):
            raise self.wrong(name, "must be an object")
        return Fields(value, self.path(name), ignore=self._ignore)

    def plain_object(self, name: str) -> dict[str, Any]:
        """An object whose fields are the caller's; empty where it is left out."""
        value = self.take(name)
        if value is not None and not isinstance(value, dict):
            raise self.wrong(name, "must be an object")
        with self.blamed(name):
            for one in strings(value):
                storable(one, f"`{name}`")
        return value or {}

    def objects(self, name: str) -> list[dict[str, Any]]:
        """A list of objects; empty where it is left out."""
        value = self.take(name)
        if value is not None and not (isinstance(value, list) and all(isinstance(one, dict) for one in value)):
            raise self.wrong(name, "must be a list of objects")
        with self.blamed(name):
            for one in strings(value):
                storable(one, f"`{name}`")
        return value or []

    def one_of(self, name: str, *allowed: str) -> str | None:
        value = self.take(name)
        if value is not None and value not in allowed:
            raise self.wrong(name, f"must be one of {', '.join(allowed)}, not {_shown(value)}")
        return None if value is None else str(value)

    def only(self, name: str, *harmless: object) -> None:
        """A field that is not supported, but for values that change nothing."""
        value = self.take(name)
        if value is not None and not any(type(value) is type(one) and value == one for one in harmless):
            raise self.wrong(name, f"is not supported (given: {_shown(value)})", hint="leave it out")

    @property
    def known(self) -> frozenset[str]:
        """The names that were asked for so far."""
        return frozenset(self._known)

    def labels(self, *names: str, kind: type = str) -> None:
        """Fields that say who asks or what for, and change no answer; all of one kind."""
        for name in names:
            value = self.take(name)
            whole = kind is int and isinstance(value, float) and value.is_integer()
            if value is not None and type(value) is not kind and not whole:
                raise self.wrong(name, f"must be {_KINDS[kind]}, not {_shown(value)}")

    def done(self) -> None:
        """Refuse the fields that nobody asked for."""
        odd = sorted(self._row.keys() - self._known - {name for name, value in self._row.items() if value is None})
        if odd and not self._ignore:
            near = get_close_matches(odd[0], sorted(self._known), n=1, cutoff=0.75)
            hint = f"did you mean `{near[0]}`?" if near else "leave it out"
            raise Refused(self.path(odd[0]), f"`{one_line(self.path(odd[0]), 80)}` is not supported here", hint=hint)

    def wrong(self, name: str, what: str, *, hint: str | None = None) -> Refused:
        """The error for the field `name`."""
        return Refused(self.path(name), f"`{self.path(name)}` {what}", hint=hint)

    def path(self, name: str) -> str:
        return f"{self._where}.{name}" if self._where else name

    @contextmanager
    def blamed(self, name: str) -> Iterator[None]:
        """What is wrong within this is the fault of the field `name`."""
        with blamed(self.path(name)):
            yield


def refuse_odd(row: Mapping[str, Any], known: Collection[str], where: str) -> None:
    """Raise `Refused` for fields of the object at `where` that are not `known`. One that is null or an empty list says
    nothing."""
    odd = sorted(name for name, value in row.items() if name not in known and value not in (None, []))
    if odd:
        path = f"{where}.{odd[0][:80]}"
        raise Refused(path, f"`{one_line(path, 160)}` is not supported here", hint="leave it out")


@contextmanager
def blamed(field: str) -> Iterator[None]:
    """Errors of input that come within this name `field`."""
    try:
        yield
    except Refused:
        raise
    except LocalInferError as error:
        if error.exit_code != 2:
            raise
        raise Refused(field, error.message, hint=error.hint) from None


def _shown(value: object) -> str:
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return one_line(repr(value), 60)
