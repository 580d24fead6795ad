"""From a conversation to the text the model was trained to read, by the model's own chat template.

Text of the user must never become a special token. A guard character, one that occurs nowhere in the conversation, is
put inside every special string of the messages; `Tokenizer.encode_rendered` knows special tokens only where no guard
breaks them, and takes the guard out.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise
from operator import itemgetter
from typing import TYPE_CHECKING, Literal, cast

from localinfer.chats import sandbox
from localinfer.errors import NotSupported, UsageError

if TYPE_CHECKING:
    from localinfer.formats.tokenizer import Tokenizer

Role = Literal["system", "user", "assistant"]

_GUARDS = [*range(0xFDD0, 0xFDF0), *range(0xF0000, 0xF1000)]
"""Noncharacters first: Unicode promises that no text has them. Private use is the reserve."""

_MARKS_OF_THE_MODEL = frozenset({"<think>", "</think>"})
"""What a model writes around its reasoning; templates look for these in its own turns, to leave the reasoning out."""


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation."""

    role: Role
    content: str


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
        add_generation_prompt=False,
    )
    return tokenizer.encode_rendered(rendered.text, rendered.guard)


def render(
    template: str | None,
    messages: Sequence[Message],
    *,
    bos: str = "",
    eos: str = "",
    special_strings: Iterable[str] = (),
    add_generation_prompt: bool = True,
) -> Rendered:
    """Render `messages`, with the text of every special token in them made harmless.

    Raises `NotSupported` without a template, `Corrupt` for one that is broken or hostile, `UsageError` for one that
    refuses this conversation.
    """
    if not template:
        raise NotSupported("this model has no chat template", hint="send plain text with `--raw`")
    guard = _free_guard([template, *(message.content for message in messages)])
    specials = sorted({s for s in special_strings if s and not s.isspace()})
    data = {
        "messages": [{"role": m.role, "content": _guarded(m, specials, guard)} for m in messages],
        "add_generation_prompt": add_generation_prompt,
        "bos_token": bos,
        "eos_token": eos,
        "tools": None,
        "documents": None,
    }
    room = 2 * sum(len(m.content) for m in messages)
    text = sandbox.render(template, data, limit=sandbox.OUTPUT_LIMIT + room)
    return Rendered(text, guard, _doubled_bos(text, bos))


def _free_guard(texts: Sequence[str]) -> str:
    used = set().union(*texts)
    for point in _GUARDS:
        if chr(point) not in used:
            return chr(point)
    raise UsageError("the text holds every noncharacter of Unicode", hint="remove some of U+FDD0 to U+FDEF from it")


def _guarded(message: Message, specials: Sequence[str], guard: str) -> str:
    """The content with `guard` inside each special string, and where one could be completed by the template."""
    text = re.sub("[\ud800-\udfff]", "\ufffd", message.content)  # half a character cannot be encoded
    if message.role == "assistant":
        specials = [s for s in specials if s not in _MARKS_OF_THE_MODEL]
    if not specials:
        return text
    cuts = {found.end() for found in _starts(specials).finditer(text)} | _open_edges(text, specials)
    return guard.join(text[start:end] for start, end in pairwise([0, *sorted(cuts), len(text)]))


def _starts(specials: Sequence[str]) -> re.Pattern[str]:
    """Matches the first character of every special string in a text, overlapping ones too."""
    grouped = ((first, "|".join(re.escape(s[1:]) for s in group)) for first, group in groupby(specials, itemgetter(0)))
    return re.compile("|".join(f"{re.escape(first)}(?={rests})" for first, rests in grouped))


def _open_edges(text: str, specials: Sequence[str]) -> set[int]:
    """Borders of the text, stripped or not, where a special string may have begun before or may go on after."""
    cuts = set()
    for edge in {0, len(text) - len(text.lstrip())}:
        if any(text.startswith(s[i:], edge) for s in specials for i in range(1, len(s))):
            cuts.add(edge)
    for edge in {len(text), len(text.rstrip())}:
        if any(text.endswith(s[:i], 0, edge) for s in specials for i in range(1, len(s))):
            cuts.add(edge)
    return cuts


def _doubled_bos(text: str, bos: str) -> tuple[str, ...]:
    if bos and text.startswith(bos + bos):
        return (f"the chat template writes the begin-of-text token {bos} twice; answers may suffer",)
    return ()
