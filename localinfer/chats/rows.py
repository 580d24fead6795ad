"""Lines of JSON that ask for something: what one may say, and what it means. Nothing of it is trusted."""

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from functools import partial
from typing import Any, Protocol, cast

from localinfer.chats.plain_json import object_of, storable, strings
from localinfer.chats.template import Message, Role
from localinfer.config import MOST_TOP, SamplingParams, biases_of
from localinfer.errors import LocalInferError, UsageError
from localinfer.text import one_line

ROLES = ("system", "user", "assistant", "tool")
OF_MESSAGES = {"role", "content", "name", "tool_calls", "tool_call_id", "reasoning_content"}
"""What a message may say; all but the first two go to the chat template as they are."""
OF_PARTS = {"type", "text"}
OF_CALLS, OF_FUNCTIONS = {"id", "type", "function", "index"}, {"name", "arguments", "index"}
"""What a text in a message may say, a call, and the function in it."""

SAMPLING = {
    "temperature": ("temperature", float),
    "temp": ("temperature", float),
    "top_k": ("top_k", int),
    "top_p": ("top_p", float),
    "min_p": ("min_p", float),
    "repeat_penalty": ("repeat_penalty", float),
    "repetition_penalty": ("repeat_penalty", float),
    "presence_penalty": ("presence_penalty", float),
    "frequency_penalty": ("frequency_penalty", float),
    "dry_multiplier": ("dry_multiplier", float),
    "dry_base": ("dry_base", float),
    "dry_allowed_length": ("dry_allowed_length", int),
    "top_n_sigma": ("top_n_sigma", float),
    "typical_p": ("typical_p", float),
    "xtc_probability": ("xtc_probability", float),
    "xtc_threshold": ("xtc_threshold", float),
    "seed": ("seed", int),
    "max_tokens": ("max_tokens", int),
}
"""What a line may say of sampling, the field it stands for, and its kind. `stop` is a string or a list of strings,
`logit_bias` an object of biases by the numbers of tokens."""

_NOT_EMPTY = "write a string that is not empty"
_A_MESSAGE = 'write `[{"role": "user", "content": "…"}]`'
KNOWN = {"id", "prompt", "messages", "tools", "system", "raw", "special", "stop", "logit_bias", "logprobs", *SAMPLING}


@dataclass(frozen=True, slots=True)
class Line:
    """One line that is not blank, not yet looked at."""

    index: int
    """Of those that are not blank, from 0."""
    number: int
    """Of the input, from 1, blank ones counted."""
    data: bytes
    digest: str
    """Of the bytes and all else that decides the answer; 16 hexadecimal digits."""

    @classmethod
    def of(cls, index: int, number: int, data: bytes, context: str) -> "Line":
        """The line `data`; `context` is all else that decides the answer."""
        return cls(index, number, data, hashlib.sha256(context.encode() + b"\0" + data).hexdigest()[:16])


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
    said: tuple[str, ...] = ()
    """The fields of `sampling` that the line itself sets."""
    raw: bool | None = None
    """Whether the prompt goes without the chat template; None where the line does not say."""
    special: bool | None = None
    """Whether what spells a control token in a raw prompt is that token; None where the line does not say."""
    tools: tuple[Mapping[str, Any], ...] = ()
    """What the model may call, as JSON schemas for the chat template."""
    logprobs: int | None = None
    """Likeliest tokens that are told with each one; None where the line does not say."""
    batch: object = None
    """The request of a line in OpenAI's batch form, which `protocols.batch` understands; None for any other."""
    error: LocalInferError | None = None


class LineSource(Protocol):
    """What lines are read from."""

    def readline(self, size: int = -1, /) -> bytes: ...


def lines_of(stream: LineSource, limit: int, context: str = "") -> Iterator[Line]:
    """Lines that are not blank, without their ends. Of one longer than `limit` bytes, `limit` + 1 are kept."""
    index = number = 0
    while line := stream.readline(limit + 1):
        number += 1
        rest = line
        while len(rest) > limit and not rest.endswith(b"\n"):
            rest = stream.readline(limit + 1)
        if line.strip():
            yield Line.of(index, number, line.rstrip(b"\r\n"), context)
            index += 1


def understood(line: Line, *, limit: int, sampling: SamplingParams, ignore_unknown: bool = False) -> Asked:
    """What `line` asks for; `sampling` holds where it says nothing. Keys that mean nothing are an error unless we
    `ignore_unknown`."""
    how = partial(meant, line=line, sampling=sampling, ignore_unknown=ignore_unknown)
    asked = asked_of(line, how, limit=limit)
    if asked.error is None:
        return asked
    return replace(asked, sampling=replace(sampling, seed=seed_of(sampling.seed, name_of(asked.id, line))))


def meant(row: Mapping[str, Any], *, line: Line, sampling: SamplingParams, ignore_unknown: bool) -> dict[str, Any]:
    """The fields of `Asked` that the object of `line` sets. Raises `UsageError`."""
    if not ignore_unknown:
        refuse_keys(row.keys() - KNOWN, KNOWN)
        _refuse_messages(row)
    system, turns = _conversation(row)
    said = _sampling(row)
    chosen = replace(sampling, **{"seed": seed_of(sampling.seed, name_of(row.get("id"), line)), **said})
    named = {"raw": _flag(row, "raw"), "special": _flag(row, "special")}
    more = {"tools": _tools(row), "logprobs": logprobs_of(row)}
    return {"system": system, "turns": turns, "sampling": chosen, "said": tuple(said), **named, **more}


def name_of(identity: Any, line: Line) -> str:
    """What a seed is made of: the `id` that the line has, or the line itself."""
    return line.data.decode("utf-8", "replace") if identity is None else json.dumps(identity)


def seed_of(seed: int, identity: str) -> int:
    """The seed of the line that bears this name, 32 bits: another for each, and the same wherever it stands."""
    return int.from_bytes(hashlib.sha256(f"{seed}\0{identity}".encode()).digest()[:4], "little")


WRONG = "\0wrong"
"""A key by which a line that was made of a row of a table says what is wrong with the row."""


def asked_of(line: Line, meant: Callable[[dict[str, Any]], dict[str, Any]], *, limit: int) -> Asked:
    """What `line` asks for, by what is `meant` with its object. One of more than `limit` bytes is refused."""
    identity = None
    try:
        row = object_of(line.data, limit, longer="send less, or raise `--ctx-size`")
        identity = identity_of(row, "id")
        if WRONG in row:
            raise UsageError(one_line(str(row[WRONG]), 200), hint="quote cells that hold what parts them")
        return Asked(line.index, line.number, line.digest, **({"id": identity} | meant(row)))
    except LocalInferError as error:
        return Asked(line.index, line.number, line.digest, identity, error=error)


def identity_of(row: Mapping[str, Any], name: str) -> Any:
    """What the line calls itself; its answer says the same."""
    for value in strings(row.get(name)):
        storable(value, f"`{name}`")
    return row.get(name)


def _refuse_messages(row: Mapping[str, Any]) -> None:
    """Raise `UsageError` for keys of messages that mean nothing."""
    messages = row.get("messages")
    for one in messages if isinstance(messages, list) else ():
        if isinstance(one, dict):
            refuse_keys(one.keys() - OF_MESSAGES, OF_MESSAGES)
            for _, part, known in parts_of(one):
                refuse_keys(part.keys() - known, known)


def parts_of(message: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any], set[str]]]:
    """The texts and the calls in a message: where each stands, what it is, and what it may say."""
    content, calls = message.get("content"), message.get("tool_calls")
    for at, part in enumerate(content if isinstance(content, list) else ()):
        if _is_text_part(part):
            yield f"content.{at}", part, OF_PARTS
    for at, call in enumerate(calls if isinstance(calls, list) else ()):
        if isinstance(call, dict):
            yield f"tool_calls.{at}", call, OF_CALLS
            if isinstance(call.get("function"), dict):
                yield f"tool_calls.{at}.function", call["function"], OF_FUNCTIONS


PASS_OVER = "`--ignore-unknown` passes over such keys"


def refuse_keys(found: Iterable[str], known: Iterable[str], hint: str = PASS_OVER) -> None:
    """Raise `UsageError` for keys that were `found` and mean nothing: a misspelled one would change the answer in
    silence."""
    odd = sorted(found)
    if odd:
        named = ", ".join(f"`{one_line(name, 40)}`" for name in odd[:3]) + (" …" if len(odd) > 3 else "")
        near = get_close_matches(odd[0].lower(), sorted(known), n=1, cutoff=0.6)
        meant = f"did you mean `{near[0]}`? " if near else ""
        raise UsageError(f"{named} means nothing here", hint=f"{meant}{hint}")


def _flag(row: Mapping[str, Any], name: str) -> bool | None:
    value = row.get(name)
    if value is not None and not isinstance(value, bool):
        raise UsageError(f"`{name}` is neither true nor false", hint=f'write `{{"{name}": true}}`, or leave it out')
    return value


def _conversation(row: Mapping[str, Any]) -> tuple[str | None, tuple[Message, ...]]:
    if ("prompt" in row) == ("messages" in row):
        told = "both `prompt` and `messages`" if "prompt" in row else "neither `prompt` nor `messages`"
        raise UsageError(f"the line has {told}", hint='write `{"prompt": "…"}`')
    system = text_of(row, "system") if row.get("system") is not None else None
    if "prompt" in row:
        return system, (Message("user", text_of(row, "prompt")),)
    listed = row["messages"]
    if not isinstance(listed, list) or not listed:
        raise UsageError(f"`messages` is {'empty' if listed == [] else 'no list of messages'}", hint=_A_MESSAGE)
    turns = [message_of(one, at) for at, one in enumerate(listed)]
    if turns[0].role == "system" and system is None:
        system = plain_system(turns.pop(0))
    if not turns or any(turn.role == "system" for turn in turns):
        raise UsageError("`messages` must have more than the system's, which may only be the first", hint=_A_MESSAGE)
    if turns[-1].role == "assistant" and not turns[-1].content:
        raise UsageError("the last message is the assistant's and empty: nothing to go on with", hint=_A_MESSAGE)
    return system, tuple(turns)


def plain_system(message: Message) -> str:
    """The text of a system prompt. Raises `UsageError` where it has a name, which no template is told."""
    if "name" in message.extra:
        raise UsageError("the system's message has a `name`, which is not supported", hint="leave it out")
    return message.content


def message_of(one: Any, at: int) -> Message:
    """Message number `at`. Raises `UsageError` for one that is none."""
    if not isinstance(one, dict) or one.get("role") not in ROLES:
        raise UsageError(f"message {at} has no role of {', '.join(ROLES)}", hint=_A_MESSAGE)
    extra = {name: one[name] for name in sorted(OF_MESSAGES - {"role", "content"}) if one.get(name) is not None}
    for value in strings(one):
        storable(value, f"message {at}")
    if not isinstance(extra.get("name", ""), str):
        raise UsageError(f"the `name` of message {at} is no text", hint="leave it out")
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


def text_of(row: Mapping[str, Any], name: str) -> str:
    """The text at `name`, not empty. Raises `UsageError`."""
    if not isinstance(row[name], str):
        raise UsageError(f"`{name}` is no text", hint=_NOT_EMPTY)
    if not row[name].strip():
        raise UsageError(f"`{name}` is empty" + (" but for white space" if row[name] else ""), hint=_NOT_EMPTY)
    return storable(row[name], f"`{name}`")


def _sampling(row: Mapping[str, Any]) -> dict[str, Any]:
    """What the line says of `SamplingParams`."""
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
            raise UsageError(f"`{name}` and another key are the same", hint="leave one out")
        said[target] = kind(value) if abs(value) < 1 << 65 else value
    if row.get("stop") is not None:
        listed = [row["stop"]] if isinstance(row["stop"], str) else row["stop"]
        if not isinstance(listed, list) or not all(isinstance(one, str) for one in listed):
            raise UsageError("`stop` is neither a text nor a list of texts", hint='write `{"stop": ["…"]}`')
        said["stop"] = tuple(storable(one, "`stop`") for one in listed)
    if row.get("logit_bias") is not None:
        said["logit_bias"] = biases(row["logit_bias"])
    return said


def logprobs_of(row: Mapping[str, Any]) -> int | None:
    """Likeliest tokens to be told with each one; None where the line does not say. Raises `UsageError`."""
    value = row.get("logprobs")
    if value is not None and (type(value) is not int or not 0 <= value <= MOST_TOP):
        raise UsageError(f"`logprobs` is no whole number from 0 to {MOST_TOP}", hint='write `{"logprobs": 0}`')
    return value


def biases(value: object) -> tuple[tuple[int, float], ...]:
    """A JSON object of biases by the numbers of tokens. Raises `UsageError`."""
    numbers = isinstance(value, dict) and all(
        isinstance(one, int | float) and not isinstance(one, bool) for one in value.values()
    )
    if not isinstance(value, dict) or not numbers or not all(re.fullmatch(r"[0-9]{1,10}", one) for one in value):
        raise UsageError("`logit_bias` is no object of numbers by tokens", hint='write `{"42": -100}`')
    return biases_of({int(token): bias for token, bias in value.items()})
