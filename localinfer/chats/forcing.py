"""A call of a tool as the form of an answer, for families that write calls as JSON."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from localinfer.chats.apart import Written
from localinfer.engine.grammar import Grammar
from localinfer.engine.grammar_formats import ESCAPES, narrowed
from localinfer.errors import UsageError

_FRAMES = {
    "hermes": ("<tool_call>", "\n", "arguments", "\n", "</tool_call>"),
    "mistral": ("[TOOL_CALLS]", "[", "arguments", "]", ""),
    "llama3": ("", "", "parameters", "", ""),
}
"""The mark before a call, what stands between it and the object, the name of its arguments, and the same behind it."""

_ON_ONE_LINE = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}


def forced(written: Written, tools: Sequence[Mapping[str, Any]]) -> Grammar:
    """An answer that is one call of one of `tools`, written as OpenAI does. Raises `UsageError` for families that
    write calls in another way."""
    frame = _FRAMES.get(written.way.name)
    if frame is None:
        raise UsageError(
            f"calls cannot be forced where they are written as `{written.way.name}` does", hint="let the model choose"
        )
    ids = {mark: index for index, mark in written.hidden.items()}

    def mark(text: str) -> str:
        return f"<[{ids[text]}]>" if text in ids else json.dumps(text)

    opening, before, name, behind, closing = frame
    parts = [mark(opening), json.dumps(before), "call", json.dumps(behind), mark(closing)]
    rules = ["answer: " + " ".join(part for part in parts if part != '""')]
    rules.append("call: " + " | ".join(f"call{at}" for at in range(len(tools))))
    for at, tool in enumerate(tools):
        function = tool["function"]
        head = f'{{"name": {json.dumps(function["name"])}, "{name}": '
        rules.append(f'call{at}: {json.dumps(head)} arguments{at} "}}"')
        rules.append(f"arguments{at}: %json {json.dumps(_of_object(function.get('parameters')))}")
    return Grammar("lark", "\n".join(rules) + "\n")


def _of_object(schema: Any) -> Any:
    """The schema of arguments, which are always an object; on one line."""
    found = {**narrowed(schema or {}), "x-guidance": {**_ON_ONE_LINE, "json_allowed_escapes": ESCAPES}}
    return found if "type" in found or "$ref" in found else {"type": "object", **found}
