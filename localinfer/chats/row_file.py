"""Answers as rows of JSON, and the file of them that a stopped run can go on with."""

import fcntl
import json
import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from localinfer.chats.logprobs import spelled
from localinfer.chats.mapping import Answered
from localinfer.chats.rows import Asked, Line
from localinfer.errors import Changed, Corrupt, LocalInferError, NotFound, UsageError
from localinfer.formats.durable import sync, write_failed

if TYPE_CHECKING:
    from localinfer.engine.protocol import Tokenizer

MOST_PASSED = 1 << 16
"""Lines without rows, before one that has a row, at most."""


@dataclass(frozen=True, slots=True)
class Done:
    """A line that is done with, and its row."""

    asked: Asked
    row: dict[str, Any]
    tokens: int = 0
    """New ones that were written for it."""
    error: LocalInferError | None = None


def head_of(answered: Answered) -> dict[str, Any]:
    """What the row of any line begins with, and why it has no answer, if so."""
    asked = answered.asked
    row: dict[str, Any] = {"id": asked.id, "index": asked.index, "line": asked.line, "request": asked.digest}
    if (error := answered.error) is not None:
        row["error"] = {"message": error.message, "hint": error.hint, "exit_code": error.exit_code}
    return row


def row_of(answered: Answered, tokenizer: "Tokenizer") -> dict[str, Any]:
    """The row of JSON for one line."""
    if answered.error is not None:
        return error_row(answered)
    row, stats = head_of(answered), answered.stats
    assert stats is not None
    usage = {
        "prompt_tokens": stats.prompt_tokens,
        "cached_tokens": stats.cached_tokens,
        "completion_tokens": stats.completion_tokens,
    }
    stop = {} if answered.stop is None else {"stop": answered.stop}
    calls = {"tool_calls": [call.in_openai for call in answered.calls]} if answered.calls else {}
    scores = {"logprobs": spelled(tokenizer, answered.scores)} if answered.scores else {}
    text = "".join(answered.text)
    seed = {"seed": answered.asked.sampling.seed}
    thought = {"reasoning": reasoning} if (reasoning := "".join(answered.reasoning)) else {}
    return row | {
        "text": text,
        **thought,
        **calls,
        **scores,
        "finish_reason": answered.reason,
        **stop,
        "usage": usage,
        **seed,
    }


def error_row(answered: Answered) -> dict[str, Any]:
    """The row of a line that has no whole answer; `text` is what was written of one."""
    row = head_of(answered)
    told = row.pop("error")
    return row | {"text": "".join(answered.text) or None, "finish_reason": None, "usage": None, "error": told}


def position(row: dict[str, Any]) -> tuple[int, str]:
    """The number of the line that a row answers, and its digest."""
    if "custom_id" in row:
        index, digest = row["id"].removeprefix("batch_req_").split("_")
        return int(index), digest
    return row["index"], row["request"]


def is_answer(row: dict[str, Any]) -> bool:
    """Whether it holds no error."""
    return row.get("error") is None and ("custom_id" not in row or row["response"]["status_code"] == 200)


class RowFile:
    """Rows in a file, each there whole or not at all once the run goes on; no other process writes into it meanwhile.

    Rows are only ever added. Those of lines before another that has one already, and of lines that are answered again,
    stand behind it until the file is closed: then each takes its line's place.
    """

    def __init__(self, path: Path, *, resume: bool) -> None:
        """Raises `UsageError` for a file with something in it that we are not to `resume`, or that another process
        writes into."""
        self.path = self.journal = path
        self.count = 0
        """Lines up to the last one that has a row in it."""
        self.errors = 0
        """Lines whose rows held errors."""
        self._end = 0
        self._moved = dict[int, int]()  # where the last row of a line begins that is not in its place
        self._added = set[int]()  # where all such rows begin
        self._passed = set[int]()  # lines that have no row in their place
        self._is_ours = False  # whether what is in it was read to its end
        self._file = _alone(path)
        if os.fstat(self._file.fileno()).st_size and not resume:
            self._file.close()
            raise UsageError(f"{path} is there already", hint="go on with it by `--resume`, or remove it first")

    def kept(self, lines: Iterator[Line]) -> list[Line]:
        """Read the rows that are there; so many of `lines` are taken. Those that have none, or whose rows hold errors,
        are given back; they may have been mended since. A last row that is not whole is cut off.

        Raises `Corrupt` for what is no row of ours, `Changed` where the row is the answer to something else.
        """
        left, errors = dict[int, Line](), set[int]()
        for number, data in enumerate(self._file):
            if not data.endswith(b"\n"):
                break
            index, digest, good = self._read(data, number)
            if self.count <= index < self.count + MOST_PASSED:
                left |= {line.index: line for line in islice(lines, index + 1 - self.count)}
            line = left.get(index)
            if line is None or (good and digest != line.digest):
                raise another(self.path, number)
            self._note(index)
            errors.add(index)
            if good:
                del left[index]
            self._end += len(data)
        try:
            if _is_plain(self._file):
                self._file.truncate(self._end)
                self._file.seek(self._end)
        except OSError as error:
            raise write_failed(self.path, 0, error) from error
        self._is_ours, self.errors = True, len(errors & left.keys())
        return [left[index] for index in sorted(left)]

    def _read(self, data: bytes, number: int) -> tuple[int, str, bool]:
        try:
            row = json.loads(data)
            index, digest = position(row)
            return int(index), digest, is_answer(row)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            raise Corrupt(
                f"{self.path}: line {number + 1} is no row of `map`", hint="give another file, or remove it"
            ) from None

    def _note(self, index: int) -> None:
        """The row at the end is that of line `index`."""
        if index < self.count:
            self._moved[index] = self._end
            self._added.add(self._end)
        else:
            self._passed.update(range(self.count, index))
            self.count = index + 1

    def write(self, row: dict[str, Any]) -> None:
        """Add one row. Raises `DoesNotFit` when the disk is full."""
        data = json.dumps(row, ensure_ascii=False, allow_nan=False).encode() + b"\n"
        try:
            self._file.write(data)
            self._file.flush()
        except OSError as error:
            raise write_failed(self.path, len(data), error) from error
        self._note(position(row)[0])
        self._end += len(data)

    def finish(self) -> None:
        """All lines have rows."""

    def settle(self) -> None:
        """Bring what was written onto the disk, in the order of its lines."""
        try:
            if _is_plain(self._file):
                os.fsync(self._file.fileno())
            if self._moved and self._is_ours:
                self._sort()
        except OSError as error:
            raise write_failed(self.path, self._end, error) from error

    @property
    def is_open(self) -> bool:
        return not self._file.closed

    def close(self) -> None:
        """Let the file go, settled."""
        if self.is_open:
            try:
                self.settle()
            finally:
                self._file.close()

    def _sort(self) -> None:
        """Write the file anew, rows that stand behind others in their places; it is there whole at any time, and
        nobody else's."""
        real = self.path.resolve()
        part = real.with_name(real.name + ".tmp")
        file = part.open("w+b")
        try:
            with real.open("rb") as rows:
                places = self._places(rows)
                for index in range(self.count):
                    data = b"" if index in self._passed else next(places)
                    if index in self._moved:
                        self._file.seek(self._moved[index])
                        data = self._file.readline()
                    file.write(data)
            file.flush()
            os.fsync(file.fileno())
            with suppress(OSError):
                fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.copymode(real, part)
            part.replace(real)
            sync(real.parent)
            self._file, file = file, self._file
        finally:
            file.close()
            part.unlink(missing_ok=True)
        self._moved, self._added, self._passed = {}, set(), set()

    def _places(self, rows: BinaryIO) -> Iterator[bytes]:
        """The rows that stand in the order of their lines."""
        start = 0
        for data in rows:
            if start not in self._added:
                yield data
            start += len(data)


def another(path: Path, number: int) -> Changed:
    return Changed(
        f"{path}: row {number} answers another line, or was made with other settings",
        hint="go on with what it was begun with, or begin anew with another file",
    )


def _alone(path: Path) -> BinaryIO:
    """The file, made where it is not there, which no other process writes into as long as we have it open."""
    while True:
        try:
            file = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666), "r+b")
        except ValueError:
            raise UsageError(f"{path} is no file", hint="standard output is written to without `-o`") from None
        except OSError as error:
            raise NotFound(f"{path}: {str(error.strerror).lower()}", hint="check the path after `-o`") from None
        if not _is_plain(file):
            return file
        try:
            fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            raise UsageError(
                f"{path} is being written by another process", hint="wait until it has ended, or name another file"
            ) from None
        except OSError:
            return file  # a file system without locks
        with suppress(OSError):
            if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                return file
        file.close()  # who held it has just written it anew, or removed it: look again


def _is_plain(file: BinaryIO) -> bool:
    return stat.S_ISREG(os.fstat(file.fileno()).st_mode)


def failed(first: Done, errors: int, total: int) -> LocalInferError:
    """What to end with when some lines had no answer: an error of the first one's kind."""
    assert first.error is not None
    kind: type[LocalInferError] = next(
        one for one in type(first.error).__mro__ if one.__module__ == LocalInferError.__module__
    )
    return kind(
        f"{errors} of {total} lines could not be answered; the first: line {first.asked.line}: {first.error.message}",
        hint="their rows say why; with `-o FILE`, `--resume` tries those lines again",
    )
