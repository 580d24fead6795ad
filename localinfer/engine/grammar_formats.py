"""What llguidance takes more loosely than it is meant: a second 60 in any minute, a 29th of February in any year, keys
that are said twice counted as two, whole numbers beyond what a float holds. A pattern of ours beside a format leaves
the first out, limits are moved to where they hold; the others are refused."""

import math
import re
from typing import Any

from localinfer.errors import UsageError
from localinfer.text import one_line

_HOURS = "(?:[01][0-9]|2[0-3])"
_TIME = rf"{_HOURS}:[0-5][0-9]:[0-5][0-9](?:\.[0-9]{{1,9}})?(?:Z|[+-]{_HOURS}:[0-5][0-9])"
_LEAP = "(?:[12][0-9](?:0[48]|[2468][048]|[13579][26])|(?:1[26]|2[048])00)"
_DAY = "(?:0[1-9]|1[0-9]|2[0-8])"
_DATE = (
    f"(?:[12][0-9]{{3}}-(?:(?:0[1-9]|1[0-2])-{_DAY}|(?:0[13-9]|1[0-2])-(?:29|30)|(?:0[13578]|1[02])-31)|{_LEAP}-02-29)"
)
PATTERNS = {"time": f"^{_TIME}$", "date": f"^{_DATE}$", "date-time": f"^{_DATE}T{_TIME}$"}
"""Of RFC 3339, without leap seconds, and years from 1000 to 2999."""

_DATA = ("const", "enum", "default", "examples")
"""Keywords whose values are data, not schemas."""

ESCAPES = 'bfnrt"\\'
"""What strings have behind a backslash. Without `u`, since a key that is written so would be another one for the
automaton."""

_CONTROL = re.compile(r"[\x00-\x07\x0b\x0e-\x1f\x7f]")
"""Characters that only `u` could write."""

_BESIDE = ("allOf", "anyOf", "oneOf")
"""Keywords whose schemas are of the same value."""

_LIMITS = {"minimum": 1, "exclusiveMinimum": 1, "maximum": -1, "exclusiveMaximum": -1}
"""Keywords of limits, and which way is inwards."""

MOST_EXACT = 1 << 53
"""Up to here every whole number is a float of its own."""

MOST_LIMIT = (1 << 63) - 1024
"""The last float that the automaton counts up to."""

_NAMED = ("properties", "patternProperties", "$defs", "definitions", "dependentSchemas")
"""Keywords with schemas under names of the schema's own."""


def narrowed(schema: Any, named: frozenset[str] = frozenset()) -> Any:
    """The schema with a pattern beside each format of `PATTERNS`; what keeps it keeps the schema that was given. Keys
    that are `named` are required beside it. Raises `UsageError` where nothing would see to that."""
    if isinstance(schema, list):
        return [narrowed(one, named) for one in schema]
    if not isinstance(schema, dict):
        return schema
    named |= _required(schema)
    _require_countable(schema, len(named))
    _require_writable(schema)
    found = {key: value if key in _DATA else _inside(key, value, named) for key, value in schema.items()}
    found |= {key: _held(key, value) for key, value in schema.items() if key in _LIMITS and _is_inexact(value)}
    pattern = PATTERNS.get(kind) if isinstance(kind := schema.get("format"), str) else None
    if pattern is not None:
        others = found.get("allOf", [])
        found["allOf"] = [*(others if isinstance(others, list) else [others]), {"pattern": pattern}]
    return found


def _required(schema: Any) -> frozenset[str]:
    """Keys that whatever keeps the schema has, as far as it says so without references."""
    if not isinstance(schema, dict):
        return frozenset()
    required, all_of = schema.get("required"), schema.get("allOf")
    found = frozenset(map(str, required)) if isinstance(required, list) else frozenset[str]()
    found = found.union(*map(_required, all_of)) if isinstance(all_of, list) else found
    for ways in (schema.get("anyOf"), schema.get("oneOf")):
        if isinstance(ways, list) and ways:
            found |= frozenset.intersection(*map(_required, ways))
    return found


def _require_countable(schema: dict[str, Any], named: int) -> None:
    """One key beside the required ones is another than they are; of two that are free nobody knows."""
    least = schema.get("minProperties")
    if isinstance(least, int | float) and least > named + 1:
        raise UsageError(
            f"`minProperties: {least}` cannot be kept: {named} keys are required, and of others one may be said twice",
            hint="name more keys in `required`, or ask for an array with `minItems`",
        )


def _require_writable(schema: dict[str, Any]) -> None:
    """Of what is wanted word by word, each character and number can be written."""
    left = [schema.get("const"), schema.get("enum")]
    while left:
        value = left.pop()
        if isinstance(value, dict):
            left += [*value, *value.values()]
        elif isinstance(value, list):
            left += value
        elif isinstance(value, str) and (found := _CONTROL.search(value)):
            raise UsageError(
                f"`const` or `enum` holds the control character U+{ord(found[0]):04X}, which no answer can have",
                hint="leave it out",
            )
        elif _is_inexact(value):
            raise UsageError(
                f"`const` or `enum` holds {one_line(str(value), 40)}: numbers beyond 2^53 cannot be written exactly",
                hint="ask for it as a string",
            )


def _is_inexact(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and MOST_EXACT < abs(value) < math.inf


def _held(keyword: str, limit: float) -> int:
    """The next limit inwards that a float and the automaton hold. Raises `UsageError` where there is none."""
    inwards, whole = _LIMITS[keyword], int(limit)
    if whole * inwards > MOST_LIMIT:
        raise UsageError(
            f"`{keyword}: {one_line(str(limit), 40)}` leaves only numbers beyond 2^63, which cannot be counted",
            hint="ask for a string with a `pattern`",
        )
    if whole * inwards < -MOST_LIMIT:
        return -inwards * MOST_LIMIT
    near = float(whole)
    while (int(near) - whole) * inwards < 0:
        near = math.nextafter(near, inwards * math.inf)
    return int(near)


def _inside(key: str, value: Any, named: frozenset[str]) -> Any:
    if key in _NAMED and isinstance(value, dict):
        return {name: narrowed(one) for name, one in value.items()}
    return narrowed(value, named if key in _BESIDE else frozenset())
