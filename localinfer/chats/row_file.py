"""Answers as rows of JSON, and the file of them that a stopped run can go on with."""

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from localinfer.chats.logprobs import spelled
from localinfer.chats.mapping import Answered
from localinfer.chats.rows import Asked
from localinfer.errors import Changed, ContextOverflow, Corrupt, LocalInferError, NotFound, UsageError
from localinfer.formats.durable import write_failed

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
    if answered.asked.batch:
        return batch_row(answered, tokenizer)
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
    asked, error = answered.asked, answered.error
    assert error is not None
    if not asked.batch:
        row = head_of(answered)
        told = row.pop("error")
        return row | {"text": None, "finish_reason": None, "usage": None, "error": told}
    code = "context_length_exceeded" if isinstance(error, ContextOverflow) else None
    status = 400 if error.exit_code in (2, 5, 8) else 500
    what = {"message": error.message, "type": "invalid_request_error" if status == 400 else "api_error"}
    return response_row(asked, status, {"error": what | {"param": None, "code": code}})


def response_row(asked: Asked, status: int, body: Mapping[str, Any]) -> dict[str, Any]:
    """The row for one line of a batch: the response of a server."""
    name = f"batch_req_{asked.index}_{asked.digest}"
    response = {"status_code": status, "request_id": name, "body": body}
    return {"id": name, "custom_id": asked.id, "response": response, "error": None}


def batch_row(answered: Answered, tokenizer: "Tokenizer") -> dict[str, Any]:
    """The row for one line of a batch that has an answer."""
    asked, stats = answered.asked, answered.stats
    assert stats is not None
    message: dict[str, Any] = {"role": "assistant", "content": "".join(answered.text)}
    if reasoning := "".join(answered.reasoning):
        message["reasoning_content"] = reasoning
    reason = "length" if answered.reason in ("length", "overflow") else "stop"
    if answered.calls:
        message["tool_calls"] = [call.in_openai for call in answered.calls]
        reason = "tool_calls" if reason == "stop" else reason
    scores = {"content": spelled(tokenizer, answered.scores), "refusal": None} if answered.scores else None
    choice = {"index": 0, "message": message, "logprobs": scores, "finish_reason": reason}
    usage = {
        "prompt_tokens": stats.prompt_tokens,
        "completion_tokens": stats.completion_tokens,
        "total_tokens": stats.prompt_tokens + stats.completion_tokens,
        "prompt_tokens_details": {"cached_tokens": stats.cached_tokens},
    }
    body = {"id": f"chatcmpl-{asked.digest}", "object": "chat.completion", "created": 0, "model": answered.model}
    return response_row(asked, 200, body | {"choices": [choice], "usage": usage})


def _position(row: dict[str, Any]) -> tuple[int, str]:
    """The number of the line that a row answers, and its digest."""
    if "custom_id" in row:
        index, digest = row["id"].removeprefix("batch_req_").split("_")
        return int(index), digest
    return row["index"], row["request"]


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
                index, digest = _position(row)
            except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
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


def failed(first: Done, errors: int, total: int) -> LocalInferError:
    """What to end with when some lines had no answer: an error of the first one's kind."""
    assert first.error is not None
    return type(first.error)(
        f"{errors} of {total} lines could not be answered; the first: line {first.asked.line}: {first.error.message}",
        hint="their rows say why, under `error`",
    )
