"""Where words go: the answer to standard output, everything else to standard error.

A terminal gets text without control sequences of others; a pipe or file gets the text as it is. Nothing here ever
writes an escape byte unless standard error is a terminal that can show progress.
"""

import contextlib
import errno
import io
import json
import os
import re
import sys
import time
from collections.abc import Sequence
from typing import Any, Protocol, TextIO

from localinfer.errors import DoesNotFit, UsageError
from localinfer.text import StreamCleaner, clean


class ReaderGone(Exception):  # not an error: who read our output has seen enough
    """Standard output was closed by its reader (`| head -1`). The program ends quietly."""


begun = time.monotonic()
"""When the command began."""


def prepare() -> None:
    """Both streams speak UTF-8 whatever the locale says; what cannot be encoded is shown, never fatal. The time of
    the command begins here."""
    global begun
    begun = time.monotonic()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding="utf-8", errors="backslashreplace")


def is_terminal(stream: TextIO | None) -> bool:
    """Whether a person watches `stream`."""
    try:
        return stream is not None and stream.isatty()
    except ValueError:  # closed
        return False


class Tinting(Protocol):
    """Colours the pieces of an answer by who guessed them."""

    def piece(self, text: str, drafter: str | None, tokens: int, /) -> str: ...


class Answer:
    """Text on standard output, piece by piece, each seen at once."""

    def __init__(self, tints: Tinting | None = None) -> None:
        self._cleaner = StreamCleaner() if is_terminal(sys.stdout) else None
        self._tints = tints
        self._last = "\n"

    def write(self, text: str, drafter: str | None = None, tokens: int = 1) -> None:
        """Write the next piece, of so many tokens that `drafter` guessed, and flush. Raises `ReaderGone` once nobody
        reads."""
        shown = self._cleaner.push(text) if self._cleaner else text
        if shown:
            self._last = shown[-1]
        if self._tints is not None:
            shown = self._tints.piece(shown, drafter, tokens)
        if shown:
            write(shown)

    def end_line(self) -> None:
        """End the answer with exactly one line break, as text tools expect."""
        if self._last != "\n":
            write("\n")
            self._last = "\n"


def write(text: str) -> None:
    """Put `text` on standard output now."""
    if sys.stdout is None:
        raise UsageError("standard output is closed", hint="open it, for instance with `> file`")
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except OSError as error:
        _failed(error)


def line(text: str = "") -> None:
    """One line for a person on standard output, safe for a terminal."""
    write((clean(text) if is_terminal(sys.stdout) else text) + "\n")


def show_json(value: Any) -> None:
    """One JSON value and a line break on standard output. Not a number is null, as JSON has none.

    Control characters are escaped, those that JSON would let through, too: a terminal might obey them.
    """
    text = json.dumps(_finite(value), ensure_ascii=False, allow_nan=False)
    write(re.sub(r"[\x7f-\x9f]", lambda found: f"\\u{ord(found[0]):04x}", text) + "\n")


def flush(*, quietly: bool = False) -> None:
    """Write out what is left. `quietly`: another error is already on its way."""
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError as error:
        if quietly:
            discard()
        else:
            _failed(error)


def discard() -> None:
    """Let what is still buffered for standard output vanish, so that the interpreter ends without a word."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


def _failed(error: OSError) -> None:
    """Turn a failed write into what it means. Always raises."""
    discard()
    if error.errno == errno.EPIPE:
        raise ReaderGone from None
    reason = error.strerror or str(error)
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        raise DoesNotFit(
            f"standard output took no more: {reason}", hint="free some space, or write somewhere else"
        ) from None
    raise UsageError(f"cannot write to standard output: {reason}", hint="check where the output goes") from None


def note_tinted(text: str) -> None:
    """One line of our own words on standard error, colours and all."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        sys.stderr.write(text + "\n")
        sys.stderr.flush()


def note(text: str) -> None:
    """One line on standard error, cleaned. A standard error that is gone is no reason to stop."""
    note_tinted(clean(text))


def show_error(message: str, hint: str | None) -> None:
    """`error: …`, an empty line, `hint: …`."""
    note(f"error: {message}" + (f"\n\nhint: {hint}" if hint else ""))


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Columns as wide as their widest cell, two spaces apart; numbers of the caller's are already words."""
    from rich.cells import cell_len

    cells = [list(head), *([clean(cell).replace("\n", " ") for cell in row] for row in rows)]
    widths = [max(cell_len(row[i]) for row in cells) for i in range(len(head))]
    for row in cells:
        filled = (cell + " " * (width - cell_len(cell)) for cell, width in zip(row, widths, strict=True))
        line("  ".join(filled).rstrip())


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if value == value and abs(value) != float("inf") else None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    return [_finite(item) for item in value] if isinstance(value, (list, tuple)) else value
