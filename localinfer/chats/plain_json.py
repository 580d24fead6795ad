"""JSON from outside as plain values: bounded, not deep, no key twice, no number beyond all floats."""

import json
import math
import sys
from collections.abc import Iterable, Iterator
from typing import Any

from localinfer.errors import UsageError
from localinfer.text import one_line

MOST_NESTED = 100
"""Lists and objects in each other."""


def object_of(
    data: bytes,
    limit: int,
    *,
    what: str = "the line",
    hint: str = "one object a line",
    longer: str = "send less",
) -> dict[str, Any]:
    """The JSON object that `data`, called `what`, says; `longer` is the hint where it has more than `limit` bytes.
    Raises `UsageError` for anything else."""
    if len(data) > limit:
        raise UsageError(f"{what} has more than {limit} bytes", hint=longer)
    try:
        text = data.decode("utf-8").removeprefix("\ufeff")
        row = json.loads(text, parse_constant=_no_number, parse_float=_finite, object_pairs_hook=_once)
    except UnicodeDecodeError as error:
        raise UsageError(
            f"{what} is not UTF-8: byte 0x{data[error.start]:02x} at offset {error.start}",
            hint="convert it with `iconv -t utf-8`",
        ) from None
    except json.JSONDecodeError as error:
        raise UsageError(f"{what} is not JSON: {error.msg} at character {error.pos}", hint=hint) from None
    except _NoNumber as error:
        raise UsageError(f"{what} is not JSON: {error}", hint=hint) from None
    except RecursionError:
        raise _deep(what) from None
    except ValueError:  # of whole numbers: to read a long one takes the square of its digits
        digits = sys.get_int_max_str_digits()
        raise UsageError(f"{what} has a whole number of more than {digits} digits", hint="write it as text") from None
    if not isinstance(row, dict):
        raise UsageError(f"{what} is no JSON object", hint='write `{"prompt": "…"}`')
    if _is_deep(row):
        raise _deep(what)
    return row


class _NoNumber(ValueError):
    """A number that JSON does not know, or that no float holds."""


def _deep(what: str) -> UsageError:
    return UsageError(f"{what} has more than {MOST_NESTED} brackets in each other", hint="give a simpler one")


def strings(value: Any) -> Iterator[str]:
    """Every string in `value`, keys too. It is not deep: that was looked at before."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for name, inner in value.items():
            yield name
            yield from strings(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from strings(inner)


def storable(text: str, what: str) -> str:
    """`text`, if it has no half of a character: JSON may hold them, and no tokenizer takes them."""
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise UsageError(f"{what} has half a character (a lone surrogate)", hint="write it as UTF-8")
    return text


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object whose keys are all different."""
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for at, name in enumerate(names) if name in names[:at])
        raise UsageError(f"the key `{one_line(twice)[:80]}` stands twice", hint="leave one of them out")
    return found


def _is_deep(row: object) -> bool:
    """Whether what goes through `row` by calling itself could be stopped by the interpreter."""
    level = [row]
    for _ in range(MOST_NESTED):
        level = [one for value in level for one in _inside(value) if isinstance(one, dict | list)]
    return bool(level)


def _inside(value: object) -> Iterable[object]:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()


def _no_number(word: str) -> float:
    raise _NoNumber(f"{word} is no number")


def _finite(word: str) -> float:
    value = float(word)
    if math.isinf(value):
        raise _NoNumber(f"{word[:40]} is too large")
    return value
