"""Calls of tools: found in the text while it comes, read, and checked. Nothing of the text is ever lost."""

import json
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from localinfer.chats.call_ways import BROKEN, Way
from localinfer.chats.thinking import held_back

MOST_CHARACTERS = 1 << 18
"""Of one call; a longer one is text."""

Check = Callable[[str, Mapping[str, Any]], bool]
"""Whether there is a tool of this name that takes these arguments."""


@dataclass(frozen=True, slots=True)
class Call:
    """A tool that is to be called."""

    id: str
    name: str
    arguments: Mapping[str, Any]

    @property
    def arguments_json(self) -> str:
        return json.dumps(self.arguments, ensure_ascii=False)

    @property
    def in_openai(self) -> dict[str, Any]:
        """As OpenAI writes it."""
        return {"id": self.id, "type": "function", "function": {"name": self.name, "arguments": self.arguments_json}}


class Calls:
    """Finds calls in text that comes piece by piece; how it is cut does not matter.

    What is written like a call and cannot be read, or does not pass `check`, is given as the text that it is. White
    space around calls belongs to nobody.
    """

    def __init__(self, way: Way, check: Check) -> None:
        self._way, self._check = way, check
        self._held = ""
        self._space = ""  # before the call that is held, given back if it is none
        self._inside = False
        self._begun = False  # whether a call or anything but white space has been given
        self.found = 0

    def push(self, text: str) -> tuple[str, tuple[Call, ...]]:
        """The next piece: text and calls that are now sure."""
        self._held += text
        said, calls = list[str](), list[Call]()
        while self._inside or self._opened(said):
            raw, closing, rest = self._cut()
            if not closing and len(raw) <= MOST_CHARACTERS:
                break
            self._held = rest
            self._end_call(raw + closing, said, calls)
        return "".join(said), tuple(calls)

    def finish(self) -> tuple[str, tuple[Call, ...]]:
        """What was held back, now that nothing can follow it."""
        said, calls = list[str](), list[Call]()
        held, self._held = self._held, ""
        if self._inside:
            self._end_call(held, said, calls)
        elif held.strip() or not self.found:
            said.append(held)
        return "".join(said), tuple(calls)

    def _cut(self) -> tuple[str, str, str]:
        """What is held, up to the mark that ends the call; that mark, if it is there; what follows."""
        return self._held.partition(self._way.closing) if self._way.closing else (self._held, "", "")

    def _opened(self, said: list[str]) -> bool:
        """Look for the next call, and give the text before it."""
        mark = self._way.opening
        before, found, _ = self._held.partition(mark)
        bare = self._way.bare and not self._begun and self._held.lstrip()[:1] == "{"
        if bare:
            before = self._held[: len(self._held) - len(self._held.lstrip())]
        if found or bare:
            text = before.rstrip()
            self._space = before[len(text) :]
            self._held, self._inside = self._held[len(before) :], True
            if text:
                said.append(text)
            return True
        kept = len(self._held) - held_back(self._held, mark)
        kept = len(self._held[:kept].rstrip())
        if kept:
            said.append(self._held[:kept])
            self._held, self._begun = self._held[kept:], True
        return False

    def _end_call(self, raw: str, said: list[str], calls: list[Call]) -> None:
        self._inside, self._begun = False, True
        inner = raw.removeprefix(self._way.opening).removesuffix(self._way.closing)
        try:
            found = self._way.read(inner)
            good = bool(found) and all(self._check(name, arguments) for name, arguments in found)
        except BROKEN:
            found, good = [], False
        if good:
            calls += [Call(secrets.token_hex(5)[:9], name, arguments) for name, arguments in found]
            self.found += len(found)
        else:
            said.append(self._space + raw)
        self._space = ""
