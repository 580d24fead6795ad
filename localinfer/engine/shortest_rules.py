"""How long the shortest text of Lark's rules is, at least; lengths as in `shortest`.

Rules are read as far as they are understood. Of a grammar with anything else in it nothing is said: its length is 0.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from localinfer.engine.shortest import ENDLESS, shortest_of_schema
from localinfer.engine.shortest_match import shortest_match

_STATEMENT = re.compile(r"^[ \t]*%(?:import|ignore|declare|llguidance)\b[^\n]*$", re.MULTILINE)
_SPACE = re.compile(r"\s*")
_END = re.compile(r"\s*\Z")


class _Unknown(Exception):
    """A part of a grammar that is not understood here."""


_TOKEN = re.compile(
    r"""\s*(?:
    (?P<comment>(?://|\#)[^\n]*)
  | (?P<string>"(?:\\.|[^"\\\n])*")(?P<flag>i?)
  | (?P<regex>/(?:\\.|[^/\\\n])+/[imslux]*)
  | (?P<special><[^<>\s]+>)
  | (?P<rule>^[?!]*[A-Za-z_][\w-]*(?:\.-?[0-9]+)?\s*(?:\[[^\]\n]*\]\s*)?:(?!:))
  | (?P<json>%json\b)
  | (?P<name>[A-Za-z_][\w-]*)
  | (?P<count>\{[0-9,\s]*\}|~\s*[0-9]+(?:\s*\.\.\s*[0-9]+)?)
  | (?P<range>\.\.)
  | (?P<mark>[()\[\]|?*+])
  )""",
    re.VERBOSE | re.MULTILINE,
)


@dataclass(frozen=True, slots=True)
class _Part:
    """A piece of a rule: a fixed length, a name, a sequence, or a choice; so many times."""

    length: float = 0.0
    name: str = ""
    parts: "tuple[_Part, ...]" = ()
    choice: bool = False
    times: int = 1


def shortest_of_rules(text: str, start: str = "start", digit: float = 1.0) -> float:
    """The least length of a text that keeps these rules, with `digit` parts for a digit of an expression."""
    try:
        rules = _Reader(text, digit).rules()
    except _Unknown:
        return 0
    found = dict.fromkeys(rules, ENDLESS)
    users: dict[str, set[str]] = {}
    for name, part in rules.items():
        for other in _names(part):
            users.setdefault(other, set()).add(name)
    again = set(rules)
    while again:
        changed = set()
        for name in again:
            now = _length(rules[name], found)
            if now < found[name]:
                found[name] = now
                changed.add(name)
        again = {user for name in changed for user in users.get(name, ())}
    return found.get(start, 0)


def _names(part: _Part) -> Iterator[str]:
    left = [part]
    while left:
        one = left.pop()
        if one.name:
            yield one.name
        left += one.parts


def _length(part: _Part, known: dict[str, float]) -> float:
    if not part.times:
        return 0
    if part.name:
        return part.times * known.get(part.name, 0)
    inner = [_length(one, known) for one in part.parts]
    return part.times * (part.length + ((min(inner) if part.choice else sum(inner)) if inner else 0))


class _Reader:
    """The rules of a grammar, as parts."""

    def __init__(self, text: str, digit: float) -> None:
        self._digit = digit
        self._text, self._at = _STATEMENT.sub("", text), 0
        self._kind, self._word = "", ""
        self._schema: Any = None
        self._next()

    def rules(self) -> dict[str, _Part]:
        found = {}
        while self._kind != "end":
            if self._kind != "rule":
                raise _Unknown
            name = re.sub(r"[.\[:\s].*", "", self._word.lstrip("?!"), flags=re.DOTALL)
            self._next()
            found[name] = self._choice()
        return found

    def _choice(self) -> _Part:
        branches = [self._sequence()]
        while self._word == "|" and self._kind == "mark":
            self._next()
            branches.append(self._sequence())
        return branches[0] if len(branches) == 1 else _Part(parts=tuple(branches), choice=True)

    def _sequence(self) -> _Part:
        parts = []
        while self._kind not in ("end", "rule") and not (self._kind == "mark" and self._word in "|)]"):
            parts.append(self._atom())
        return _Part(parts=tuple(parts))

    def _atom(self) -> _Part:
        kind, word = self._kind, self._word
        self._next()
        if kind == "mark" and word in "([":
            part = self._choice()
            if self._word != (")" if word == "(" else "]"):
                raise _Unknown
            self._next()
            part = _Part(parts=(part,), times=int(word == "("))
        elif kind == "string":
            part = _Part(length=self._of_string(word))
        elif kind == "regex":
            part = _Part(length=shortest_match(word[1 : word.rindex("/")], self._digit))
        elif kind == "special":
            part = _Part(length=0)
        elif kind == "name":
            part = _Part(name=word)
        elif kind == "json":
            part = _Part(length=shortest_of_schema(self._schema, self._digit))
        else:
            raise _Unknown
        return self._times(part)

    def _of_string(self, word: str) -> float:
        """Its characters; one for a range of them."""
        if self._kind == "range":
            self._next()
            self._next()
            return 1
        try:
            return len(json.loads(word))
        except ValueError:
            return 0

    def _times(self, part: _Part) -> _Part:
        while self._kind == "count" or (self._kind == "mark" and self._word in "?*+"):
            numbers = re.findall("[0-9]+", self._word)
            open_below = self._word.replace(" ", "").startswith("{,")
            least = 1 if self._word == "+" else int(numbers[0]) if numbers and not open_below else 0
            part = _Part(parts=(part,), times=least)
            self._next()
        return part

    def _next(self) -> None:
        """Read the next word; `%json` is followed by its schema."""
        while True:
            if _END.match(self._text, self._at):
                self._kind, self._word = "end", ""
                return
            found = _TOKEN.match(self._text, self._at)
            if found is None:
                raise _Unknown
            self._at = found.end()
            self._kind = next(kind for kind, word in found.groupdict().items() if word)
            self._word = found[self._kind]
            if self._kind == "json":
                self._read_schema()
            if self._kind != "comment":
                return

    def _read_schema(self) -> None:
        space = _SPACE.match(self._text, self._at)
        assert space is not None
        try:
            self._schema, self._at = json.JSONDecoder().raw_decode(self._text, space.end())
        except (ValueError, RecursionError):
            raise _Unknown from None
