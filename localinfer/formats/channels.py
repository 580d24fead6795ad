"""Answers in channels (harmony; OpenAI, 2025), read as other models write: reasoning between `<think>` marks, calls of
tools between `<tool_call>` marks, and the answer.

An answer is messages: `<|channel|>`, a header such as `analysis`, `final` or `commentary to=functions.name`,
`<|message|>`, text, and `<|end|>`; between messages stands `<|start|>assistant`, which the first one has in the prompt.
"""

import json
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Literal, Protocol

START, CHANNEL, MESSAGE, END, CALL = "<|start|>", "<|channel|>", "<|message|>", "<|end|>", "<|call|>"
FINAL = "final"
"""The channel of the answer itself."""

MARKS = (START, CHANNEL, MESSAGE, END, CALL)

LONGEST_HEADER = 512
"""Characters; a longer one is text."""

_RECIPIENT = re.compile(r"to=(?:functions\.)?([\w.-]+)")
_TO = " to="


class Stream(Protocol):
    """Text from tokens one by one."""

    def push(self, token: int) -> str: ...
    def finish(self) -> str: ...


def marks_of(id_of: Callable[[str], int | None]) -> dict[int, str]:
    """The marks by their tokens; empty for a tokenizer that has not all of them."""
    found = {id_of(mark): mark for mark in MARKS}
    return {} if None in found else {token: mark for token, mark in found.items() if token is not None}


class Channels:
    """Turns tokens into text, message by message. `inner` gives the text of tokens that are no marks."""

    def __init__(self, inner: Stream, marks: Mapping[int, str]) -> None:
        self._inner, self._marks = inner, marks
        self._at: Literal["begin", "header", "body"] = "begin"
        self._header = ""
        self._open: Literal["", "thinking", "call"] = ""
        self._said = False  # whether a part of the answer stands before

    def push(self, token: int) -> str:
        """The text that `token` makes sure."""
        mark = self._marks.get(token)
        if mark is None:
            return self._text(self._inner.push(token))
        begun = self._text(self._inner.finish())
        if mark in (END, CALL):
            return begun + self._end()
        if mark == MESSAGE:
            return begun + (self._begin_body() if self._at == "header" else "")
        header = "" if self._at == "body" else self._header
        self._at, self._header = "header", f"{header} " if mark == CHANNEL else ""
        return begun

    def push_all(self, tokens: Iterable[int]) -> str:
        """The text that all `tokens` make sure."""
        return "".join(map(self.push, tokens))

    def finish(self) -> str:
        """What was held back; a call that is open ends."""
        rest = self._text(self._inner.finish())
        if self._at == "begin":
            rest += self._header
            self._header = ""
        return rest + (self._end() if self._open == "call" else "")

    def _text(self, text: str) -> str:
        if self._at == "body":
            return text
        self._header += text
        held = self._header
        could_be = _TO.startswith(held[: len(_TO)]) if self._at == "begin" else True
        if could_be and len(held) <= LONGEST_HEADER:
            return ""
        self._at, self._header, self._said = "body", "", True  # a text without channels
        return held

    def _begin_body(self) -> str:
        """What stands before the text of a message."""
        header, self._header, self._at = self._header, "", "body"
        recipient = _RECIPIENT.search(header)
        if recipient is None and header.split()[:1] == ["assistant"]:
            header = header.split("assistant", 1)[1]
        if recipient is None and header.split()[:1] == ["analysis"]:
            if self._open == "thinking":
                return "\n\n"
            self._open = "thinking"
            return "\n\n<think>\n" if self._said else "<think>\n"
        before = "\n</think>\n\n" if self._open == "thinking" else "\n\n" if self._said else ""
        self._open, self._said = "", True
        if recipient is None:
            return before
        self._open = "call"
        return f'{before}<tool_call>\n{{"name": {json.dumps(recipient[1])}, "arguments": '

    def _end(self) -> str:
        """What stands behind it. Reasoning stays open: more of it may follow."""
        self._at, self._header = "header", ""
        if self._open != "call":
            return ""
        self._open = ""
        return "}\n</tool_call>"
