"""Answers as rows of JSON, and the file of them that a stopped run can go on with."""

import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from localinfer.chats.logprobs import spelled
from localinfer.chats.mapping import Answered
from localinfer.chats.rows import Asked, Line
from localinfer.errors import Changed, Corrupt, LocalInferError, NotFound, UsageError
from localinfer.formats.durable import sync, write_failed

if TYPE_CHECKING:
    from localinfer.engine.protocol import Tokenizer


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
    """The row of a line that has no answer."""
    row = head_of(answered)
    told = row.pop("error")
    return row | {"text": None, "finish_reason": None, "usage": None, "error": told}


def _position(row: dict[str, Any]) -> tuple[int, str]:
    """The number of the line that a row answers, and its digest."""
    if "custom_id" in row:
        index, digest = row["id"].removeprefix("batch_req_").split("_")
        return int(index), digest
    return row["index"], row["request"]


def _is_answer(row: dict[str, Any]) -> bool:
    """Whether it holds no error."""
    return row.get("error") is None and ("custom_id" not in row or row["response"]["status_code"] == 200)


class RowFile:
    """Rows in a file, each there whole or not at all once the run goes on.

    Rows are only ever added. Those of lines that are answered again stand behind all others, until the file is closed:
    then each takes its line's place.
    """

    def __init__(self, path: Path, *, resume: bool) -> None:
        """Raises `UsageError` for a file with something in it that we are not to `resume`."""
        self.path = path
        self.count = 0
        """Lines that had rows in it."""
        self._end = 0
        self._again = dict[int, int]()  # where the last row of a line that is answered again begins
        self._added = set[int]()  # where all such rows begin
        self._is_ours = False  # whether what is in it was read to its end
        try:
            self._file: BinaryIO = path.open("r+b" if path.exists() else "w+b")
            size = os.fstat(self._file.fileno()).st_size
        except OSError as error:
            raise NotFound(f"{path}: {str(error.strerror).lower()}", hint="check the path after `-o`") from None
        if size and not resume:
            self._file.close()
            raise UsageError(f"{path} is there already", hint="go on with it by `--resume`, or remove it first")

    def kept(self, lines: Iterator[Line]) -> list[Line]:
        """Read the rows that are there; so many of `lines` are taken. Those whose rows hold errors are given back; they
        may have been mended since. A last row that is not whole is cut off.

        Raises `Corrupt` for what is no row of ours, `Changed` where the row is the answer to something else.
        """
        failed = dict[int, Line]()
        for number, data in enumerate(self._file):
            if not data.endswith(b"\n"):
                break
            index, digest, good = self._read(data, number)
            line = failed.get(index) if index < self.count else next(lines, None)
            if line is None or index != line.index or (good and digest != line.digest):
                raise Changed(
                    f"{self.path}: row {number} answers another line, or was made with other settings",
                    hint="go on with what it was begun with, or begin anew with another file",
                )
            self._note(index)
            self.count = max(self.count, index + 1)
            failed[index] = line
            if good:
                del failed[index]
            self._end += len(data)
        try:
            self._file.truncate(self._end)
            self._file.seek(self._end)
        except OSError as error:
            raise write_failed(self.path, 0, error) from error
        self._is_ours = True
        return list(failed.values())

    def _read(self, data: bytes, number: int) -> tuple[int, str, bool]:
        try:
            row = json.loads(data)
            index, digest = _position(row)
            return int(index), digest, _is_answer(row)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            raise Corrupt(
                f"{self.path}: line {number + 1} is no row of `map`", hint="give another file, or remove it"
            ) from None

    def _note(self, index: int) -> None:
        """The row at the end is that of line `index`."""
        if index < self.count:
            self._again[index] = self._end
            self._added.add(self._end)

    def write(self, row: dict[str, Any]) -> None:
        """Add one row. Raises `DoesNotFit` when the disk is full."""
        data = json.dumps(row, ensure_ascii=False, allow_nan=False).encode() + b"\n"
        try:
            self._file.write(data)
            self._file.flush()
        except OSError as error:
            raise write_failed(self.path, len(data), error) from error
        self._note(_position(row)[0])
        self._end += len(data)

    def close(self) -> None:
        """Let the file go, on the disk, its rows in the order of their lines."""
        try:
            os.fsync(self._file.fileno())
            if self._again and self._is_ours:
                self._sort()
            self._file.close()
        except OSError as error:
            raise write_failed(self.path, self._end, error) from error

    def _sort(self) -> None:
        """Write the file anew, rows that were added for others in their places; it is there whole at any time."""
        real = self.path.resolve()
        part = real.with_name(real.name + ".tmp")
        try:
            with part.open("wb") as file, real.open("rb") as rows:
                start = index = 0
                for data in rows:
                    if start not in self._added:
                        if index in self._again:
                            self._file.seek(self._again[index])
                        file.write(self._file.readline() if index in self._again else data)
                        index += 1
                    start += len(data)
                file.flush()
                os.fsync(file.fileno())
            shutil.copymode(real, part)
            part.replace(real)
            sync(real.parent)
        finally:
            part.unlink(missing_ok=True)


def failed(first: Done, errors: int, total: int) -> LocalInferError:
    """What to end with when some lines had no answer: an error of the first one's kind."""
    assert first.error is not None
    kind: type[LocalInferError] = next(
        one for one in type(first.error).__mro__ if one.__module__ == LocalInferError.__module__
    )
    return kind(
        f"{errors} of {total} lines could not be answered; the first: line {first.asked.line}: {first.error.message}",
        hint="their rows say why; with `-o FILE.jsonl`, `--resume` tries those lines again",
    )
