"""Columns of rows of JSON: their names, and what all that stands in them is."""

from collections.abc import Mapping
from typing import Any

KINDS = ("whole", "large", "number", "numbers")
"""Of columns of one kind: the first one that fits is taken. What is none of these is text, or JSON."""


class Columns:
    """Columns in the order in which rows name them, `error` last."""

    def __init__(self) -> None:
        self._left: dict[str, tuple[str, ...] | None] = {}  # kinds that may be; None: nothing stood there yet

    def look_at(self, row: Mapping[str, Any]) -> None:
        """The next row."""
        for name, value in row.items():
            left = self._left.setdefault(name, None)
            if value is not None and left != ():
                self._left[name] = tuple(kind for kind in (KINDS if left is None else left) if is_of(kind, value))

    def kinds(self) -> dict[str, str]:
        """The kind of each column."""
        error = {"error": "text"} if self._left else {}
        found = {name: (left or ("text",))[0] for name, left in self._left.items() if name != "error"}
        return found | error


def is_of(kind: str, value: Any) -> bool:
    if kind == "numbers":
        return isinstance(value, list) and all(is_of("number", one) for one in value)
    whole = isinstance(value, int) and not isinstance(value, bool)
    if kind == "whole":
        return whole and -(1 << 63) <= value < 1 << 63
    return whole and 0 <= value < 1 << 64 if kind == "large" else whole or isinstance(value, float)
