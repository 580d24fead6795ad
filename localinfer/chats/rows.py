"""Lines of JSON that ask for something: what one may say, and what it means. Nothing of it is trusted."""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, BinaryIO, cast

from localinfer.chats.template import Message, Role
from localinfer.config import SamplingParams
from localinfer.errors import LocalInferError, UsageError

ROLES = ("system", "user", "assistant")

SAMPLING = {
    "temperature": ("temperature", float),
    "temp": ("temperature", float),
    "top_k": ("top_k", int),
    "top_p": ("top_p", float),
    "min_p": ("min_p", float),
    "repeat_penalty": ("repeat_penalty", float),
    "seed": ("seed", int),
    "max_tokens": ("max_tokens", int),
}
"""What a line may say of sampling, the field it stands for, and its kind. `stop` is a string or a list of strings."""

MOST_NESTED = 100
"""Lists and objects in each other."""
_A_MESSAGE = 'write `[{"role": "user", "content": "…"}]`'
KNOWN = {"id", "prompt", "messages", "system", "stop", *SAMPLING}


@dataclass(frozen=True, slots=True)
class Asked:
    """One line: number `index` of those that are not empty. Either it can be answered, or `error` says why not."""

    index: int
    digest: str
    """Of the line's bytes and all else that decides the answer; 16 hexadecimal digits."""
    id: Any = None
    system: str | None = None
    turns: tuple[Message, ...] = ()
    """The conversation without its system prompt; the last one is the user's."""
    sampling: SamplingParams = field(default_factory=SamplingParams)
    unknown: tuple[str, ...] = ()
    """Fields that mean nothing here."""
    error: LocalInferError | None = None


def lines_of(stream: BinaryIO, limit: int) -> Iterator[bytes]:
    """Lines that are not blank, without their ends. Of one longer than `limit` bytes, `limit` + 1 are kept."""
    while line := stream.readline(limit + 1):
        rest = line
        while len(rest) > limit and not rest.endswith(b"\n"):
            rest = stream.readline(limit + 1)
        if line.strip():
            yield line.rstrip(b"\r\n")


def understood(line: bytes, index: int, *, limit: int, context: str, sampling: SamplingParams) -> Asked:
    """What `line` asks for; `sampling` holds where it says nothing, `context` is all else that decides the answer."""
    digest = hashlib.sha256(context.encode() + b"\0" + line).hexdigest()[:16]
    identity = None
    try:
        row = _object(line, limit)
        identity = row.get("id")
        system, turns = _conversation(row)
        return Asked(
            index,
            digest,
            identity,
            system,
            turns,
            _sampling(row, sampling),
            tuple(sorted(name[:40] for name in row.keys() - KNOWN)),
        )
    except LocalInferError as error:
        return Asked(index, digest, identity, error=error)


def _object(line: bytes, limit: int) -> dict[str, Any]:
    if len(line) > limit:
        raise UsageError(f"the line has more than {limit} bytes", hint="send less, or raise `--ctx-size`")
    try:
        row = json.loads(line.decode("utf-8").removeprefix("\ufeff"), parse_constant=_no_number)
    except UnicodeDecodeError as error:
        raise UsageError(
            f"the line is not UTF-8: byte 0x{line[error.start]:02x} at offset {error.start}",
            hint="convert it with `iconv -t utf-8`",
        ) from None
    except json.JSONDecodeError as error:
        raise UsageError(
            f"the line is not JSON: {error.msg} at character {error.pos}", hint="one object a line"
        ) from None
    except (RecursionError, ValueError) as error:
        raise UsageError(f"the line is no JSON of ours: {str(error)[:80]}", hint="one object a line") from None
    if not isinstance(row, dict):
        raise UsageError("the line is no JSON object", hint='write `{"prompt": "…"}`')
    if _is_deep(row):
        raise UsageError(f"the line has more than {MOST_NESTED} brackets in each other", hint="give a simpler `id`")
    return row


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
    raise ValueError(f"{word} is no number")


def _conversation(row: Mapping[str, Any]) -> tuple[str | None, tuple[Message, ...]]:
    if ("prompt" in row) == ("messages" in row):
        raise UsageError("the line must have either `prompt` or `messages`", hint='write `{"prompt": "…"}`')
    system = _text(row, "system") if row.get("system") is not None else None
    if "prompt" in row:
        return system, (Message("user", _text(row, "prompt")),)
    listed = row["messages"]
    if not isinstance(listed, list) or not listed:
        raise UsageError("`messages` is no list of messages", hint=_A_MESSAGE)
    turns = [_message(one, at) for at, one in enumerate(listed)]
    if turns[0].role == "system" and system is None:
        system = turns.pop(0).content
    if not turns or turns[-1].role != "user" or any(turn.role == "system" for turn in turns):
        raise UsageError("`messages` must end with the user's, and only the first may be the system's", hint=_A_MESSAGE)
    return system, tuple(turns)


def _message(one: Any, at: int) -> Message:
    if not isinstance(one, dict) or one.get("role") not in ROLES or not isinstance(one.get("content"), str):
        raise UsageError(f"message {at} has no role of {', '.join(ROLES)}, or no text as its content", hint=_A_MESSAGE)
    return Message(cast(Role, one["role"]), _whole(one["content"], f"message {at}"))


def _text(row: Mapping[str, Any], name: str) -> str:
    if not isinstance(row[name], str) or not row[name].strip():
        raise UsageError(f"`{name}` is no text", hint="write a string that is not empty")
    return _whole(row[name], f"`{name}`")


def _whole(text: str, what: str) -> str:
    """JSON may hold halves of characters, which no tokenizer takes."""
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise UsageError(f"{what} has half a character (a lone surrogate)", hint="write it as UTF-8")
    return text


def _sampling(row: Mapping[str, Any], usual: SamplingParams) -> SamplingParams:
    said: dict[str, Any] = {}
    for name, (target, kind) in SAMPLING.items():
        value = row.get(name)
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, (int, float) if kind is float else int):
            raise UsageError(
                f"`{name}` is {str(value)[:40]!r}, but must be a{' whole' * (kind is int)} number",
                hint=f'write `{{"{name}": 1}}`, or leave it out',
            )
        if target in said:
            raise UsageError("`temp` and `temperature` are the same", hint="leave one out")
        said[target] = kind(value) if abs(value) < 1 << 65 else value
    if row.get("stop") is not None:
        listed = [row["stop"]] if isinstance(row["stop"], str) else row["stop"]
        if not isinstance(listed, list) or not all(isinstance(one, str) for one in listed):
            raise UsageError("`stop` is neither a text nor a list of texts", hint='write `{"stop": ["…"]}`')
        said["stop"] = tuple(listed)
    return replace(usual, **said)
