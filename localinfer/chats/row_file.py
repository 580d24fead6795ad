"""Answers as rows of JSON, and the file of them that a stopped run can go on with."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from localinfer.chats.mapping import Answered
from localinfer.chats.rows import Asked
from localinfer.errors import Changed, Corrupt, LocalInferError, NotFound, UsageError
from localinfer.formats.durable import write_failed


def row_of(answered: Answered) -> dict[str, Any]:
    """The row of JSON for one line."""
    asked, stats = answered.asked, answered.stats
    row: dict[str, Any] = {"id": asked.id, "index": asked.index, "line": asked.line, "request": asked.digest}
    if answered.error is not None:
        error = answered.error
        told = {"message": error.message, "hint": error.hint, "exit_code": error.exit_code}
        return row | {"text": None, "finish_reason": None, "usage": None, "error": told}
    assert stats is not None
    usage = {
        "prompt_tokens": stats.prompt_tokens,
        "cached_tokens": stats.cached_tokens,
        "completion_tokens": stats.completion_tokens,
    }
    stop = {} if answered.stop is None else {"stop": answered.stop}
    calls = {"tool_calls": [call.in_openai for call in answered.calls]} if answered.calls else {}
    return row | {"text": "".join(answered.text), **calls, "finish_reason": answered.reason, **stop, "usage": usage}


class RowFile:
    """Rows at the end of a file, each there whole or not at all once the run goes on."""

    def __init__(self, path: Path, *, resume: bool) -> None:
        """Raises `UsageError` for a file with something in it that we are not to `resume`."""
        self.path = path
        try:
            self._file: BinaryIO = path.open("r+b" if path.exists() else "w+b")
            size = os.fstat(self._file.fileno()).st_size
        except OSError as error:
            raise NotFound(f"{path}: {str(error.strerror).lower()}", hint="check the path after `-o`") from None
        if size and not resume:
            self._file.close()
            raise UsageError(f"{path} is there already", hint="go on with it by `--resume`, or remove it first")

    def kept(self, lines: Iterator[Asked]) -> int:
        """How many rows are there; so many of `lines` are taken. A last row that is not whole is cut off.

        Raises `Corrupt` for what is no row of ours, `Changed` where the row is the answer to something else.
        """
        count = end = 0
        for line in self._file:
            if not line.endswith(b"\n"):
                break
            asked = next(lines, None)
            try:
                row = json.loads(line)
                index, digest = row["index"], row["request"]
            except (ValueError, KeyError, TypeError, RecursionError):
                raise Corrupt(
                    f"{self.path}: line {count + 1} is no row of `map`", hint="give another file, or remove it"
                ) from None
            if asked is None or (index, digest) != (count, asked.digest):
                raise Changed(
                    f"{self.path}: row {count} answers another line, or was made with other settings",
                    hint="go on with what it was begun with, or begin anew with another file",
                )
            count, end = count + 1, end + len(line)
        try:
            self._file.truncate(end)
            self._file.seek(end)
        except OSError as error:
            raise write_failed(self.path, 0, error) from error
        return count

    def write(self, row: dict[str, Any]) -> None:
        """Add one row. Raises `DoesNotFit` when the disk is full."""
        line = json.dumps(row, ensure_ascii=False, allow_nan=False).encode() + b"\n"
        try:
            self._file.write(line)
            self._file.flush()
        except OSError as error:
            raise write_failed(self.path, len(line), error) from error

    def close(self) -> None:
        """Let the file go, on the disk."""
        try:
            os.fsync(self._file.fileno())
            self._file.close()
        except OSError as error:
            raise write_failed(self.path, 0, error) from error


def failed(first: Answered, errors: int, total: int) -> LocalInferError:
    """What to end with when some lines had no answer: an error of the first one's kind."""
    assert first.error is not None
    return type(first.error)(
        f"{errors} of {total} lines could not be answered; the first: line {first.asked.line}: {first.error.message}",
        hint="their rows say why, under `error`",
    )
