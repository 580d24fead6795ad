"""Reading fields of config.json: every value is checked for type and range before anything is computed from it."""

import math
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from localinfer.errors import Corrupt, NotSupported

_HINT = "download the model again, or ask whoever made it for a repaired config.json"
_SHOWN = 60
Word = TypeVar("Word", bound=str)


class Fields:
    """One JSON object of config.json. Errors name the field as `where.field` and show the value.

    With `defaults`, those of the model's type, a field that is absent is what they say, and null means none: an error,
    unless the caller asks by `has`. Without, a field that is absent or null takes the `default` it is read with. Wrong
    types and values out of range raise `Corrupt`; words that mean something we do not run raise `NotSupported`.
    """

    def __init__(
        self,
        values: Mapping[str, Any],
        where: str = "",
        *,
        defaults: Mapping[str, object] | None = None,
        file: str = "config.json",
    ) -> None:
        self.values = values
        self.where = where
        self.defaults = defaults
        self.file = file

    def get(self, name: str) -> Any:
        """The value as it stands there, or that of `defaults`; None for null and for what neither has."""
        return self.values[name] if name in self.values else (self.defaults or {}).get(name)

    def has(self, name: str) -> bool:
        """True if the field is there, or has a default, and is not null."""
        return self.get(name) is not None

    def integer(self, name: str, low: int, high: int, default: int | None = None) -> int:
        """A whole number in [low, high]. `64.0`, `true` and `"64"` are not whole numbers."""
        value = self._value(name, default)
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            raise self.bad(name, f"a whole number from {low} to {high}")
        return value

    def number(self, name: str, low: float, high: float, default: float | None = None) -> float:
        """A finite number in [low, high]."""
        value = self._value(name, default)
        if not isinstance(value, int | float) or isinstance(value, bool) or not low <= value <= high:
            raise self.bad(name, f"a number from {low:g} to {high:g}")
        return float(value)

    def flag(self, name: str, default: bool | None = None) -> bool:
        """true or false."""
        value = self._value(name, default)
        if not isinstance(value, bool):
            raise self.bad(name, "true or false")
        return value

    def word(self, name: str, known: Mapping[str, Word], default: str | None = None) -> Word:
        """The meaning of a word: `known` maps the words of config.json to ours. Others raise `NotSupported`."""
        value = self._value(name, default)
        if not isinstance(value, str):
            raise self.bad(name, "a word")
        if value not in known:
            raise self.unknown(name, value, known)
        return known[value]

    def table(self, name: str) -> "Fields":
        """A nested object; empty when absent or null."""
        value = self.values.get(name)
        if value is None:
            value = {}
        if not isinstance(value, Mapping):
            raise self.bad(name, "an object")
        return Fields(value, f"{self.where}{name}.", file=self.file)

    def under(self, over: "Fields") -> "Fields":
        """The same object with the fields of `over` in place of its own; errors name the one that has a field."""
        if not over.values:
            return self
        return Fields({**self.values, **over.values}, over.where, file=self.file)

    def words(self, name: str, count: int, known: tuple[str, ...]) -> tuple[str, ...] | None:
        """A list of `count` words out of `known`; `None` when absent or null."""
        value = self.values.get(name)
        if value is None:
            return None
        if not isinstance(value, list) or len(value) != count:
            raise self.bad(name, f"a list of {count} words, one a layer")
        for item in value:
            if item not in known:
                raise self.unknown(name, item, known)
        return tuple(value)

    def refuse(self, name: str, *harmless: object) -> None:
        """Raise `NotSupported` unless the field is absent, null or one of `harmless`."""
        value = self.values.get(name)
        if value is None or any(value is h or (type(value) is type(h) and value == h) for h in harmless):
            return
        raise self.unknown(name, value, harmless)

    def unknown(self, name: str, value: object, known: Iterable[object] = ()) -> NotSupported:
        """The error for a well-formed `value` that means something we do not run."""
        words = ", ".join(str(word).lower() if isinstance(word, bool) else str(word) for word in known)
        return NotSupported(
            f"{self.file}: `{self.where}{name}` is {shown(value)}, which is not supported"
            + (f"; known: {words}" if words else ""),
            hint="choose a model without it, or use its GGUF file with `--backend llamacpp`",
        )

    def bad(self, name: str, wanted: str) -> Corrupt:
        """The error for a field that is missing, or not `wanted`."""
        where = f"{self.file}: `{self.where}{name}`"
        if name not in self.values and not self.has(name):
            return Corrupt(f"{where} is missing; it must be {wanted}", hint=_HINT)
        value = self.get(name)
        left_out = "" if name in self.values else " where it is left out"
        return Corrupt(f"{where} is {'null' if value is None else shown(value)}{left_out}, not {wanted}", hint=_HINT)

    def _value(self, name: str, default: object) -> object:
        value = self.get(name)
        if value is None:
            return None if self.defaults is not None and name in self.values else default
        if isinstance(value, float) and not math.isfinite(value):
            raise self.bad(name, "a finite number")
        return value


def shown(value: object) -> str:
    """`value` as it may stand in a message: one line, not long, no control characters."""
    if isinstance(value, int) and value.bit_length() > 256:
        return f"a number of {value.bit_length()} bits"  # Python refuses to write out the longest ones
    text = ascii(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
