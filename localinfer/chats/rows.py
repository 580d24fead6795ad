"""Lines of JSON that ask for something: what one may say, and what it means. Nothing of it is trusted."""

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from typing import Any, BinaryIO, cast

from localinfer.chats.plain_json import object_of, storable, strings
from localinfer.chats.template import Message, Role
from localinfer.config import SamplingParams
from localinfer.errors import LocalInferError, UsageError
from localinfer.text import one_line

ROLES = ("system", "user", "assistant", "tool")
OF_MESSAGES = {"role", "content", "name", "tool_calls", "tool_call_id", "reasoning_content"}
"""What a message may say; all but the first two go to the chat template as they are."""

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

_A_MESSAGE = 'write `[{"role": "user", "content": "…"}]`'
KNOWN = {"id", "prompt", "messages", "tools", "system", "raw", "special", "stop", *SAMPLING}


@dataclass(frozen=True, slots=True)
class Asked:
    """One line: number `index`, from 0, of those that are not empty. It can be answered, or `error` says why not."""

    index: int
    line: int
    """Of the input, from 1, empty ones counted."""
    digest: str
    """Of the line's bytes and all else that decides the answer; 16 hexadecimal digits."""
    id: Any = None
    system: str | None = None
    turns: tuple[Message, ...] = ()
    """The conversation without its system prompt; a last one of the assistant's is to be gone on with."""
    sampling: SamplingParams = field(default_factory=SamplingParams)
    raw: bool | None = None
    """Whether the prompt goes without the chat template; None where the line does not say."""
    special: bool | None = None
    """Whether what spells a control token in a raw prompt is that token; None where the line does not say."""
    tools: tuple[Mapping[str, Any], ...] = ()
    """What the model may call, as JSON schemas for the chat template."""
    error: LocalInferError | None = None


def lines_of(stream: BinaryIO, limit: int) -> Iterator[tuple[int, bytes]]:
    """Lines that are not blank, without their ends, each with its number from 1. Of one longer than `limit` bytes,
    `limit` + 1 are kept."""
    number = 0
    while line := stream.readline(limit + 1):
        number += 1
        rest = line
        while len(rest) > limit and not rest.endswith(b"\n"):
            rest = stream.readline(limit + 1)
        if line.strip():
            yield number, line.rstrip(b"\r\n")


def understood(
    line: bytes,
    index: int,
    number: int,
    *,
    limit: int,
    context: str,
    sampling: SamplingParams,
    ignore_unknown: bool = False,
) -> Asked:
    """What `line`, number `number` of the input, asks for; `sampling` holds where it says nothing, `context` is all
    else that decides the answer. Keys that mean nothing are an error unless we `ignore_unknown`."""
    digest = hashlib.sha256(context.encode() + b"\0" + line).hexdigest()[:16]
    identity = None
    try:
        row = object_of(line, limit, longer="send less, or raise `--ctx-size`")
        identity = _identity(row)
        if not ignore_unknown:
            _refuse_unknown(row)
        system, turns = _conversation(row)
        raw, special = _flag(row, "raw"), _flag(row, "special")
        chosen, tools = _sampling(row, sampling), _tools(row)
        return Asked(index, number, digest, identity, system, turns, chosen, raw=raw, special=special, tools=tools)
    except LocalInferError as error:
        return Asked(index, number, digest, identity, error=error)


def _identity(row: Mapping[str, Any]) -> Any:
    """What the line calls itself; its answer says the same."""
    for value in strings(row.get("id")):
        storable(value, "`id`")
    return row.get("id")


def _refuse_unknown(row: Mapping[str, Any]) -> None:
    """Raise `UsageError` for keys that mean nothing: a misspelled one would change the answer in silence."""
    _refuse_keys(row.keys() - KNOWN, KNOWN)
    messages = row.get("messages")
    for one in messages if isinstance(messages, list) else ():
        if isinstance(one, dict):
            _refuse_keys(one.keys() - OF_MESSAGES, OF_MESSAGES)


def _refuse_keys(found: Iterable[str], known: Iterable[str]) -> None:
    odd = sorted(found)
    if odd:
        named = ", ".join(f"`{one_line(name, 40)}`" for name in odd[:3]) + (" …" if len(odd) > 3 else "")
        near = get_close_matches(odd[0].lower(), sorted(known), n=1, cutoff=0.6)
        meant = f"did you mean `{near[0]}`? " if near else ""
        raise UsageError(f"{named} means nothing here", hint=f"{meant}`--ignore-unknown` passes over such keys")


def _flag(row: Mapping[str, Any], name: str) -> bool | None:
    value = row.get(name)
    if value is not None and not isinstance(value, bool):
        raise UsageError(f"`{name}` is neither true nor false", hint=f'write `{{"{name}": true}}`, or leave it out')
    return value


def _conversation(row: Mapping[str, Any]) -> tuple[str | None, tuple[Message, ...]]:
    if ("prompt" in row) == ("messages" in row):
        raise UsageError("the line must have either `prompt` or `messages`", hint='write `{"prompt": "…"}`')
    system = _text(row, "system") if row.get("system") is not None else None
    if "prompt" in row:
        return system, (Message("user", _text(row, "prompt")),)
    listed = row["messages"]
    if not isinstance(listed, list) or not listed:
        raise UsageError("`messages` is no list of messages", hint=_A_MESSAGE)
    turns = [message_of(one, at) for at, one in enumerate(listed)]
    if turns[0].role == "system" and system is None:
        system = turns.pop(0).content
    if not turns or any(turn.role == "system" for turn in turns):
        raise UsageError("`messages` must have more than the system's, which may only be the first", hint=_A_MESSAGE)
    if turns[-1].role == "assistant" and not turns[-1].content:
        raise UsageError("the last message is the assistant's and empty: nothing to go on with", hint=_A_MESSAGE)
    return system, tuple(turns)


def message_of(one: Any, at: int) -> Message:
    """Message number `at`. Raises `UsageError` for one that is none."""
    if not isinstance(one, dict) or one.get("role") not in ROLES:
        raise UsageError(f"message {at} has no role of {', '.join(ROLES)}", hint=_A_MESSAGE)
    extra = {name: one[name] for name in sorted(OF_MESSAGES - {"role", "content"}) if one.get(name) is not None}
    for value in strings(one):
        storable(value, f"message {at}")
    content: Any = one.get("content")
    if content is None and "tool_calls" in extra:
        return Message(cast(Role, one["role"]), "", {**extra, "content": None})  # absent for templates
    parts: list[Any] = content if isinstance(content, list) else [content]
    texts: list[Any] = [part["text"] if _is_text_part(part) else part for part in parts]
    if not all(isinstance(text, str) for text in texts):
        raise UsageError(f"message {at} has content that is no text and no list of texts", hint=_A_MESSAGE)
    if isinstance(content, list):  # templates may read the parts; where they do not, the text stands
        extra["content"] = [{"type": "text", "text": text} for text in texts]
    return Message(cast(Role, one["role"]), "\n".join(texts), extra)


def _is_text_part(part: Any) -> bool:
    return isinstance(part, dict) and part.get("type", "text") == "text" and isinstance(part.get("text"), str)


def _tools(row: Mapping[str, Any]) -> tuple[Mapping[str, Any], ...]:
    listed = row.get("tools")
    if listed is None:
        return ()
    if not isinstance(listed, list) or not all(isinstance(one, dict) for one in listed):
        raise UsageError("`tools` is no list of objects", hint='write `[{"type": "function", "function": {…}}]`')
    for value in strings(listed):
        storable(value, "`tools`")
    return tuple(listed)


def _text(row: Mapping[str, Any], name: str) -> str:
    if not isinstance(row[name], str) or not row[name].strip():
        raise UsageError(f"`{name}` is no text", hint="write a string that is not empty")
    return storable(row[name], f"`{name}`")


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
        said["stop"] = tuple(storable(one, "`stop`") for one in listed)
    return replace(usual, **said)
