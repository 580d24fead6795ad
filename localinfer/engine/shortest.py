"""How long the shortest text of a JSON schema is, at least: of one that no end can be written of, endless.

Lengths are in parts of a token. A value and a key take a token each, and text one for each 8 characters: real text has
4 to 5. What is not understood here costs nothing, so a length is never too long for that.
"""

import json
import math
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from localinfer.engine.shortest_match import shortest_match

PARTS = 8.0
"""Parts of a token: as many as a character has of it."""

ENDLESS = math.inf
MOST = 10**12
"""No count is taken for more."""


class Known(NamedTuple):
    """Lengths of references, and of a digit."""

    lengths: Mapping[str, float]
    digit: float


def shortest_of_schema(schema: Any, digit: float = 1.0) -> float:
    """The least length of what keeps `schema`, in which a digit of a pattern has `digit` parts. What nothing keeps for
    another reason is not endless but 0."""
    targets = dict.fromkeys(_references(schema))
    if _length(schema, Known({}, digit)) == ENDLESS:
        return 0
    return _length(schema, Known(_lengths(schema, list(targets), digit), digit))


def _lengths(schema: Any, names: list[str], digit: float) -> dict[str, float]:
    """The length of what each reference leads to: the least ones that go with each other, from endless down."""
    places = {name: _found(schema, name) for name in names}
    found = {name: ENDLESS if places[name] else 0.0 for name in names}
    users: dict[str, set[str]] = {}
    for name, place in places.items():
        for other in _references(place[0]) if place else ():
            users.setdefault(other, set()).add(name)
    again = {name for name, place in places.items() if place}
    while again:
        changed = set()
        for name in again:
            place = places[name]
            assert place is not None
            now = _length(place[0], Known(found, digit))
            if now < found[name]:
                found[name] = now
                changed.add(name)
        again = {user for name in changed for user in users.get(name, ())}
    return found


def _references(schema: Any) -> Iterator[str]:
    left = [schema]
    while left:
        value = left.pop()
        if isinstance(value, dict):
            if isinstance(name := value.get("$ref"), str):
                yield name
            left += value.values()
        elif isinstance(value, list):
            left += value


def _found(schema: Any, name: str) -> tuple[Any] | None:
    """What a reference within the schema leads to; None for one that leads elsewhere, or nowhere,
    or is not understood here."""
    if (name != "#" and not name.startswith("#/")) or "%" in name:
        return None
    value = schema
    for step in name[2:].split("/") if len(name) > 2 else ():
        step = step.replace("~1", "/").replace("~0", "~")
        if isinstance(value, list) and step.isascii() and step.isdigit() and int(step) < len(value):
            value = value[int(step)]
        elif isinstance(value, dict) and step in value:
            value = value[step]
        else:
            return None
    return (value,)


def _length(schema: Any, known: Known) -> float:
    if schema is False:
        return ENDLESS
    if not isinstance(schema, dict):
        return PARTS
    least = [PARTS]
    if isinstance(name := schema.get("$ref"), str):
        least.append(known.lengths.get(name, 0.0))
    if "const" in schema:
        least.append(_written(schema["const"]))
    if isinstance(values := schema.get("enum"), list) and values:
        least.append(min(map(_written, values)))
    for key, of in (("allOf", max), ("anyOf", min), ("oneOf", min)):
        if isinstance(inner := schema.get(key), list) and inner:
            least.append(of(_length(one, known) for one in inner))
    kinds = schema.get("type")
    kinds = [kinds] if isinstance(kinds, str) else kinds
    if isinstance(kinds, list) and kinds:
        least.append(min(_of_kind(kind, schema, known) for kind in kinds))
    return max(least)


def _of_kind(kind: Any, schema: dict[str, Any], known: Known) -> float:
    if kind == "string":
        pattern = schema.get("pattern")
        inside = shortest_match(pattern, known.digit) if isinstance(pattern, str) else 0
        return 2 + max(_count(schema, "minLength"), inside)
    if kind == "array":
        return _of_array(schema, known)
    return _of_object(schema, known) if kind == "object" else PARTS


def _of_array(schema: dict[str, Any], known: Known) -> float:
    count = _count(schema, "minItems")
    first = schema.get("prefixItems")
    first = first[:count] if isinstance(first, list) else []
    total = 2.0 + max(0, count - 1) + sum(_length(one, known) for one in first)
    rest = count - len(first)
    return total + (rest * _length(schema.get("items", True), known) if rest else 0)


def _of_object(schema: dict[str, Any], known: Known) -> float:
    required = schema.get("required")
    names = {one for one in required if isinstance(one, str)} if isinstance(required, list) else set()
    properties, total = schema.get("properties"), 2.0
    inside = properties if isinstance(properties, dict) else {}
    for name in names:
        value = inside.get(name, True if schema.get("patternProperties") else schema.get("additionalProperties", True))
        total += max(PARTS, len(name) + 2) + 1 + _length(value, known)
    more = max(0, _count(schema, "minProperties") - len(names))
    return total + more * (2 * PARTS + 1) + max(0, len(names) + more - 1)


def _written(value: Any) -> float:
    """A value as JSON."""
    if isinstance(value, dict):
        return 2 + sum(max(PARTS, len(name) + 2) + 1 + _written(one) for name, one in value.items())
    if isinstance(value, list):
        return 2 + sum(map(_written, value))
    return max(PARTS, len(json.dumps(value, ensure_ascii=False)))


def _count(schema: dict[str, Any], key: str) -> int:
    value = schema.get(key)
    return max(0, int(min(value, MOST))) if isinstance(value, int | float) and value == value else 0
