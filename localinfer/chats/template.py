"""From a conversation to the text the model was trained to read, by the model's own chat template.

Text of the user must never become a special token. A guard character, one that occurs nowhere in the conversation, is
put inside every special string of the messages; `Tokenizer.encode_rendered` knows special tokens only where no guard
breaks them, and takes the guard out.
"""

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import groupby, islice, pairwise
from operator import itemgetter
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, cast

from localinfer.chats import sandbox
from localinfer.chats.thinking import Thinking
from localinfer.errors import LocalInferError, NotSupported, UsageError
from localinfer.formats.channels import CHANNEL

if TYPE_CHECKING:
    from localinfer.formats.tokenizer import Tokenizer

Role = Literal["system", "user", "assistant", "tool"]

_GUARDS = [*range(0xFDD0, 0xFDF0), *range(0xF0000, 0xF1000)]
"""Noncharacters first: Unicode promises that no text has them. Private use is the reserve."""

_MARKS_OF_THE_MODEL = frozenset({"<think>", "</think>"})
"""What a model writes around its reasoning; templates look for these in its own turns, to leave the reasoning out."""

_REASONING = ("reasoning_content", "thinking", "reasoning")
"""Names of a turn's reasoning; templates read the first, gpt-oss's the second."""

_ROLES = {"system", "developer", "user", "assistant", "tool", "function", "ipython", "observation"}
_WORD = re.compile("[A-Za-z0-9_]+")
"""Under `role` and `type`, and as keys, such words are for templates to compare, so no guard may be in them."""

_PROBE = "a part of 7 words that stands alone"


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation."""

    role: Role
    content: str
    extra: Mapping[str, Any] = field(default_factory=dict, hash=False)
    """Further fields, as templates read them: `name`, `tool_calls`, `tool_call_id`, `reasoning_content`; a `content`
    here stands in for the text: a list of parts, or None beside tool calls. Plain JSON values only."""

    @property
    def fields(self) -> dict[str, Any]:
        """The turn as templates know it."""
        return {"role": self.role, "content": self.content, **self.extra}


Turn = Message | Mapping[str, Any]
"""A message, or one as templates know it: `{"role": …, "content": …}`, JSON values only."""


@dataclass(frozen=True, slots=True)
class Rendered:
    """What the template wrote. `guard` is one character, which breaks special strings that came from messages."""

    text: str
    guard: str
    warnings: tuple[str, ...] = ()
    """What the user should know, such as a doubled begin-of-text token."""

    @property
    def plain(self) -> str:
        """The text as the model will read it."""
        return self.text.replace(self.guard, "")


def conversation(tokenizer: "Tokenizer", turns: Sequence[tuple[str, str]]) -> list[int]:
    """A whole conversation of (role, text) as the tokens that a model was trained on; raises as `render` does."""
    rendered = render(
        tokenizer.chat_template,
        [Message(cast(Role, role), text) for role, text in turns],
        bos=tokenizer.bos_token,
        eos=tokenizer.eos_token,
        special_strings=tokenizer.special_strings,
        special_tokens=tokenizer.special_tokens,
        add_generation_prompt=False,
    )
    return tokenizer.encode_rendered(rendered.text, rendered.guard)


def render(
    template: str | None,
    messages: Sequence[Turn],
    *,
    bos: str = "",
    eos: str = "",
    special_strings: Iterable[str] = (),
    special_tokens: Mapping[str, str] = MappingProxyType({}),
    add_generation_prompt: bool = True,
    continue_final: bool = False,
    tools: Sequence[Mapping[str, Any]] | None = None,
    documents: Sequence[Mapping[str, Any]] | None = None,
    variables: Mapping[str, Any] | None = None,
) -> Rendered:
    """Render `messages` as `transformers` does, with the text of every special token in them made harmless.

    `special_tokens` are further ones that the template may name, such as `pad_token`. `tools` are JSON schemas,
    `variables` are what else the template may read, such as `enable_thinking`. With `continue_final` the text ends
    where the last message ends, so that the model goes on with it; no prompt for an answer is added then. Lists of
    content parts are joined to one text where the template does not read lists.

    Raises `NotSupported` without a template, `Corrupt` for one that is broken or hostile, `UsageError` for one that
    refuses this conversation or does not keep the message to be continued.
    """
    if not template:
        raise NotSupported("this model has no chat template", hint="send plain text: `--raw`, or `/v1/completions`")
    turns = [_as_templates_read(one.fields if isinstance(one, Message) else one) for one in messages]
    if CHANNEL in template:
        turns = [_without_reasoning(turn) for turn in turns]
    if any(isinstance(turn.get("content"), list) for turn in turns) and not reads_parts(template):
        turns = [_joined(turn) for turn in turns]
    given = {**(variables or {}), "messages": turns, "tools": tools, "documents": documents}
    try:
        size = json.dumps(given)
    except (TypeError, ValueError, RecursionError) as error:
        raise UsageError(
            f"the messages are no plain JSON: {str(error)[:200]}", hint="give text, numbers, lists"
        ) from None
    guard, end = _free_characters(template, size)
    specials = tuple(sorted({s for s in special_strings if s and not s.isspace()}))
    data = {name: _guarded(value, specials, guard) for name, value in given.items()}
    final = _mark_end(data["messages"], end) if continue_final else ""
    data["add_generation_prompt"] = add_generation_prompt and not continue_final
    named = {**special_tokens, "bos_token": bos, "eos_token": eos}
    data |= {name: value for name, value in named.items() if value and name not in data}
    text = sandbox.render(template, data, limit=sandbox.OUTPUT_LIMIT + 2 * len(size))
    for mark in (guard, end):
        for spelling in _in_ascii(mark):
            text = text.replace(spelling, mark)
    if continue_final:
        text = _cut_at(end, text, final.replace(guard, ""), guard)
    return Rendered(text, guard, _doubled_bos(text, bos))


@lru_cache(maxsize=64)
def reads_parts(template: str) -> bool:
    """Whether the template takes a list of content parts for a message, tried out with one. False for a broken one."""
    parts = [{"type": "text", "text": _PROBE}]
    data = {"messages": [{"role": "user", "content": parts}], "add_generation_prompt": True}
    data |= {"bos_token": "", "eos_token": "", "tools": None, "documents": None}
    try:
        text = sandbox.render(template, data)
    except LocalInferError:
        return False
    return _PROBE in text and not re.search(rf"""text["']: ["']{_PROBE}""", text)


@lru_cache(maxsize=64)
def takes_tools(template: str) -> bool:
    """Whether the template tells the model of tools, tried out with one. False for a broken one."""
    try:
        return _tells_of_tools(template)
    except LocalInferError:
        return False


@lru_cache(maxsize=32)
def _tells_of_tools(template: str) -> bool:
    function = {"name": "probe", "description": _PROBE, "parameters": {"type": "object", "properties": {}}}
    data = {"messages": [{"role": "user", "content": "x"}], "add_generation_prompt": True}
    data |= {"bos_token": "", "eos_token": "", "tools": [{"type": "function", "function": function}], "documents": None}
    return _PROBE in sandbox.render(template, data)


def _as_templates_read(message: Mapping[str, Any]) -> dict[str, Any]:
    """Without fields that are null, and with the reasoning under the names that templates read."""
    turn = {name: value for name, value in message.items() if value is not None}
    reasoning = next((turn[name] for name in _REASONING if name in turn), None)
    if reasoning is not None:
        turn = {"thinking": reasoning, **turn, "reasoning_content": reasoning}
    return turn


def _without_reasoning(turn: dict[str, Any]) -> dict[str, Any]:
    """An answer with its reasoning in a field of its own, for templates that know no marks of it."""
    content = turn.get("content")
    if turn.get("role") != "assistant" or not isinstance(content, str):
        return turn
    thinking = Thinking()
    parts = (thinking.push(content), thinking.finish())
    reasoning, rest = ("".join(part) for part in zip(*parts, strict=True))
    return {"thinking": reasoning, **turn, "content": rest} if reasoning else turn


def _joined(turn: dict[str, Any]) -> dict[str, Any]:
    """The turn with its content as one text, a line for each part."""
    parts = turn.get("content")
    if not isinstance(parts, list):
        return turn
    texts = [part.get("text") if isinstance(part, Mapping) else part for part in parts]
    if not all(isinstance(text, str) for text in texts):
        raise UsageError(
            "a message has content that is not text, which this model's template does not take",
            hint="send parts of the type `text` only",
        )
    return turn | {"content": "\n".join(cast(list[str], texts))}


def _free_characters(template: str, data: str) -> tuple[str, str]:
    """Two characters that neither the template nor `data`, JSON in ASCII, holds in any spelling."""
    free = (chr(point) for point in _GUARDS)
    free = (c for c in free if c not in template and not any(way in template or way in data for way in _in_ascii(c)))
    found = tuple(islice(free, 2))
    if len(found) < 2:
        raise UsageError("the text holds every noncharacter of Unicode", hint="remove some of U+FDD0 to U+FDEF from it")
    return found[0], found[1]


def _in_ascii(character: str) -> set[str]:
    """How JSON and Python write it where they keep to ASCII."""
    return {json.dumps(character)[1:-1], ascii(character)[1:-1]}


def _guarded(value: Any, specials: tuple[str, ...], guard: str) -> Any:
    """`value` with a guard in every string, keys too, but not in the words that templates compare."""
    if isinstance(value, str):
        return _breaker(specials, guard)(value)
    if isinstance(value, Mapping):
        role = value.get("role")
        if role == "assistant":
            specials = _without_marks(specials)
        elif isinstance(role, str) and role not in _ROLES and any(role in special for special in specials):
            raise UsageError(
                f"{role[:40]!r} is part of a special token, and no role of a message",
                hint="use system, user, assistant or tool",
            )
        return {
            _guarded_word(name, specials, guard): _guarded_word(inner, specials, guard)
            if name in ("role", "type")
            else _guarded(inner, specials, guard)
            for name, inner in value.items()
        }
    return [_guarded(inner, specials, guard) for inner in value] if isinstance(value, list | tuple) else value


def _guarded_word(value: Any, specials: tuple[str, ...], guard: str) -> Any:
    return value if isinstance(value, str) and _WORD.fullmatch(value) else _guarded(value, specials, guard)


@lru_cache(maxsize=8)
def _without_marks(specials: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(s for s in specials if s not in _MARKS_OF_THE_MODEL)


@lru_cache(maxsize=8)
def _breaker(specials: tuple[str, ...], guard: str) -> Callable[[str], str]:
    """Puts `guard` inside each special string of a text, and where one could be completed by the template."""
    begins = {s[:i] for s in specials for i in range(1, len(s))}
    ends = {s[i:] for s in specials for i in range(1, len(s))}
    longest = max(map(len, specials), default=0)
    starts = _starts(specials) if specials else None

    def open_edges(text: str) -> Iterator[int]:
        """Borders of the text, stripped or not, where a special string may have begun before or may go on after."""
        for edge in {0, len(text) - len(text.lstrip())}:
            if any(text[edge : edge + length] in ends for length in range(1, longest)):
                yield edge
        for edge in {len(text), len(text.rstrip())}:
            if any(text[max(0, edge - length) : edge] in begins for length in range(1, longest)):
                yield edge

    def broken(text: str) -> str:
        text = re.sub("[\ud800-\udfff]", "\ufffd", text)  # half a character cannot be encoded
        if starts is None:
            return text
        cuts = sorted({found.end() for found in starts.finditer(text)} | set(open_edges(text)))
        return guard.join(text[start:end] for start, end in pairwise([0, *cuts, len(text)]))

    return broken


def _starts(specials: Sequence[str]) -> re.Pattern[str]:
    """Matches the first character of every special string in a text, overlapping ones too."""
    grouped = ((first, "|".join(re.escape(s[1:]) for s in group)) for first, group in groupby(specials, itemgetter(0)))
    return re.compile("|".join(f"{re.escape(first)}(?={rests})" for first, rests in grouped))


def _mark_end(turns: Sequence[dict[str, Any]], end: str) -> str:
    """Put `end` and a space behind the text of the last turn; that text, as it was."""
    holder, name = (turns[-1] if turns else {}), "content"
    parts = holder.get("content")
    if isinstance(parts, list):
        texts = [part for part in parts if isinstance(part, dict) and isinstance(part.get("text"), str)]
        holder, name = (texts[-1] if texts else {}), "text"
    final = holder.get(name)
    if not isinstance(final, str):
        raise UsageError("there is no text to go on with", hint="let the last message be an answer that was begun")
    holder[name] = f"{final}{end} "
    return final


def _cut_at(end: str, text: str, final: str, guard: str) -> str:
    """The text up to where its last message ends. Where the template has trimmed that message, nor do spaces stay."""
    at = text.rfind(end)
    if at < 0 or final.strip() not in text.replace(guard, ""):
        raise UsageError(
            "the chat template changes the message that is to be gone on with",
            hint="send it without its reasoning, or as plain text",
        )
    cleaned = text[:at].replace(end, "")
    return cleaned if text[at + 1 : at + 2] == " " else cleaned.rstrip()


def _doubled_bos(text: str, bos: str) -> tuple[str, ...]:
    if bos and text.startswith(bos + bos):
        return (f"the chat template writes the begin-of-text token {bos} twice; answers may suffer",)
    return ()
