"""The one cleaner of text that came from outside: model output, files, repositories, error bodies.

A terminal obeys bytes that look like text. Every sink that may be a terminal passes foreign text through here first:
whole ECMA-48 control sequences are dropped, characters that reorder or hide text are shown as `<U+202E>`.
"""

import re

SEQUENCE_LIMIT = 4096
"""Characters one unfinished sequence may swallow, so that a lone ESC cannot silence the rest of a stream."""

_ESC = "\x1b"
_STRING_OPENERS = {"]": "osc", "P": "string", "X": "string", "^": "string", "_": "string", "[": "csi"}
_C1_OPENERS = {"\x9d": "osc", "\x90": "string", "\x98": "string", "\x9e": "string", "\x9f": "string", "\x9b": "csi"}

_HIDDEN = (
    "\u061c\u180e\u200b\u200e\u200f\u202a-\u202e\u2060-\u2064\u2066-\u206f\ufeff\ufff9-\ufffb\U000e0000-\U000e007f"
)
"""Direction marks, zero-width and tag characters. ZWJ and ZWNJ stay: emoji and many scripts need them."""

_UNSAFE = re.compile(f"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff{_HIDDEN}]")
_IS_HIDDEN = re.compile(f"[{_HIDDEN}]")

# What a sequence of each kind may hold before the character that ends it.
_BODY = {
    "escape": re.compile("[ -/]*"),
    "csi": re.compile("[\x00-\x08\x0b-\x17\x19\x1c-\x1f -?\x7f]*"),
    "osc": re.compile("[^\x07\x18\x1a\x1b\x9c]*"),
    "string": re.compile("[^\x18\x1a\x1b\x9c]*"),
}


class StreamCleaner:
    """Cleans a text that arrives in pieces; the joined output does not depend on where it was cut."""

    def __init__(self) -> None:
        self._state = "ground"
        self._swallowed = 0

    def push(self, text: str) -> str:
        """Clean the next piece. Text inside an unfinished sequence is dropped, never held back for later."""
        out: list[str] = []
        at = 0
        while at < len(text):
            at = self._ground(text, at, out) if self._state == "ground" else self._sequence(text, at)
        return "".join(out)

    def finish(self) -> str:
        """End the stream: an unfinished sequence is forgotten. Always empty, since nothing is held back."""
        self._enter("ground")
        return ""

    def _enter(self, state: str) -> None:
        self._state = state
        self._swallowed = 0

    def _ground(self, text: str, at: int, out: list[str]) -> int:
        """Copy up to the next unsafe character and replace that one; return where to go on."""
        found = _UNSAFE.search(text, at)
        if found is None:
            out.append(text[at:])
            return len(text)
        out.append(text[at : found.start()])
        char = found.group()
        if char == _ESC:
            self._enter("escape")
        elif char in _C1_OPENERS:
            self._enter(_C1_OPENERS[char])
        else:
            out.append(_visible(char))
        return found.end()

    def _sequence(self, text: str, at: int) -> int:
        """Skip what belongs to the current sequence; return where to go on."""
        body = _BODY[self._state].match(text, at, at + SEQUENCE_LIMIT - self._swallowed)
        assert body is not None  # every body may be empty
        self._swallowed += body.end() - at
        at = body.end()
        if self._swallowed >= SEQUENCE_LIMIT:
            self._enter("ground")
        elif at < len(text):
            return at + self._end(text[at])
        return at

    def _end(self, char: str) -> int:
        """Leave the current sequence at `char`; return 1 if `char` is part of it, else 0."""
        state, bare = self._state, self._swallowed == 0
        if char == _ESC:  # also the first half of ST, ESC \, which then ends as a sequence of its own
            self._enter("escape")
            return 1
        if state == "escape" and bare and char in _STRING_OPENERS:
            self._enter(_STRING_OPENERS[char])
            return 1
        self._enter("ground")
        if state == "escape":
            return int("0" <= char <= "~")
        if state == "csi":
            return int("@" <= char <= "~" or char in "\x18\x1a")
        return 1  # BEL, CAN, SUB or ST


def clean(text: str) -> str:
    """`text` without control sequences and controls (newline and tab stay), hidden characters made visible.

    Idempotent; linear in time. A terminal shows the result as it reads.
    """
    return StreamCleaner().push(text)


def one_line(text: str, limit: int = 200) -> str:
    """`text` cleaned, on one line, at most `limit` characters: for titles, names and table cells."""
    line = " ".join(clean(text[: 8 * limit]).split())
    return line if len(line) <= limit else line[: limit - 1] + "…"


def _visible(char: str) -> str:
    if char in "\u2028\u2029":
        return "\n"
    if "\ud800" <= char <= "\udfff":
        return "\ufffd"  # a lone surrogate cannot be written to any terminal
    return f"<U+{ord(char):04X}>" if _IS_HIDDEN.match(char) else ""
