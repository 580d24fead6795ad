"""`/v1/messages`, as Anthropic's clients speak it."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from localinfer.chats.calls import Call
from localinfer.chats.saying import Said
from localinfer.errors import LocalInferError
from localinfer.protocols.answer import Answer
from localinfer.protocols.asking import Ask
from localinfer.protocols.common import MOST_TOKENS, conversation_of, new_id, sampling_of
from localinfer.protocols.errors import Refused, anthropic_form
from localinfer.protocols.fields import Fields, refuse_odd
from localinfer.protocols.openai_chat import EFFORTS, effort_of
from localinfer.protocols.shape import Dialect, Writer, sse
from localinfer.protocols.tools import Choice, choice_of, tool

_TOOL_FIELDS = {"type", "name", "description", "input_schema", "cache_control", "strict", "eager_input_streaming"}

_OF_BLOCKS = {
    "text": {"type", "text", "cache_control"},
    "thinking": {"type", "thinking", "signature"},
    "tool_use": {"type", "id", "name", "input", "cache_control"},
    "tool_result": {"type", "tool_use_id", "content", "is_error", "cache_control"},
}
"""What blocks may say. That a result is an error no chat template reads: its text says so."""

_KEEPS_ALL = [{"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]}]
"""How a conversation may be cut, in words that cut nothing."""


def understand(fields: Fields) -> tuple[Ask, "Shape"]:
    """The request, and how its answer is spelled. Raises `Refused`."""
    if fields.take("max_tokens") is None:
        raise fields.wrong("max_tokens", "is missing")
    return ask_of(fields, fields.whole("max_tokens", 1, MOST_TOKENS)), Shape()


def ask_of(fields: Fields, max_tokens: int | None) -> Ask:
    """The request, with `max_tokens`. Raises `Refused`."""
    system, turns = conversation_of(_messages(fields.objects("messages")), _system(fields))
    choice = _choice_of(fields)
    sampling = sampling_of(fields, max_tokens=max_tokens)
    fields.only("service_tier", "auto", "standard_only")
    fields.only("context_management", {"edits": []}, *_KEEPS_ALL)
    fields.labels("metadata", "cache_control", kind=dict)
    return Ask(
        model=fields.needed_text("model"),
        sampling=sampling | {"stop": fields.texts("stop_sequences")},
        stream=fields.flag("stream"),
        system=system,
        turns=turns,
        choice=choice,
        **_thinking(fields),
    )


def _system(fields: Fields) -> str | None:
    value = fields.take("system")
    if isinstance(value, list):
        return "\n\n".join(_text_of(block, "system") for block in value) or None
    return fields.text("system") or None


def _text_of(block: Any, where: str) -> str:
    if not isinstance(block, Mapping) or block.get("type") != "text" or not isinstance(block.get("text"), str):
        raise Refused(where, f"`{where}` has a part that is no text", hint="send parts of the type `text` only")
    refuse_odd(block, _OF_BLOCKS["text"], where)
    return str(block["text"])


def _messages(listed: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The same in OpenAI's words: results of tools are messages of their own."""
    found = list[dict[str, Any]]()
    for at, message in enumerate(listed):
        role, content, where = message.get("role"), message.get("content"), f"messages.{at}"
        odd = sorted(message.keys() - {"role", "content"})
        if role not in ("user", "assistant", "system") or odd:
            name = odd[0][:80] if odd else "role"
            raise Refused(f"{where}.{name}", f"`{where}.{name}` is not supported here")
        if isinstance(content, str):
            found.append({"role": role, "content": content})
        elif isinstance(content, list) and all(isinstance(block, Mapping) for block in content):
            found += _blocks(str(role), content, where)
        else:
            raise Refused(f"{where}.content", f"`{where}.content` must be text or a list of blocks")
    return found


def _blocks(role: str, blocks: Sequence[Mapping[str, Any]], where: str) -> list[dict[str, Any]]:
    """A message of blocks. Raises `Refused` for pictures and all else that is no text."""
    results, texts, calls, reasoning = list[dict[str, Any]](), list[str](), list[dict[str, Any]](), list[str]()
    for at, block in enumerate(blocks):
        kind = block.get("type")
        known = _OF_BLOCKS.get(kind if isinstance(kind, str) else "", block.keys())
        refuse_odd(block, known, f"{where}.content.{at}")
        if kind == "text":
            texts.append(_text_of(block, f"{where}.content"))
        elif kind == "thinking" and isinstance(block.get("thinking"), str) and role == "assistant":
            reasoning.append(block["thinking"])
        elif kind == "tool_use" and role == "assistant":
            function = {"name": block.get("name"), "arguments": block.get("input") or {}}
            calls.append({"id": block.get("id"), "type": "function", "function": function})
        elif kind == "tool_result" and role == "user":
            results.append(_result(block, where))
        else:
            raise Refused(f"{where}.content", f"`{where}.content` has a part of the type {str(kind)[:40]!r}")
    more: dict[str, Any] = {"tool_calls": calls} if calls else {}
    if reasoning:
        more["reasoning_content"] = "\n".join(reasoning)
    own = [{"role": role, "content": "\n".join(texts), **more}] if texts or more or not results else []
    return [*results, *own]


def _result(block: Mapping[str, Any], where: str) -> dict[str, Any]:
    content = block.get("content") or ""
    if isinstance(content, list):
        content = "\n".join(_text_of(part, f"{where}.content") for part in content)
    return {"role": "tool", "tool_call_id": block.get("tool_use_id"), "content": content}


def _choice_of(fields: Fields) -> Choice:
    found = list[Mapping[str, Any]]()
    for at, one in enumerate(fields.objects("tools")):
        where = f"tools.{at}"
        odd = sorted(one.keys() - _TOOL_FIELDS)
        if one.get("type", "custom") not in ("custom", None) or odd:
            name = odd[0][:80] if odd else "type"
            raise Refused(f"{where}.{name}", f"`{where}.{name}` is not supported here")
        found.append(tool(one.get("name"), one.get("description"), one.get("input_schema"), where))
    choice = fields.inner("tool_choice") or Fields({"type": "auto"}, "tool_choice")
    kind = choice.one_of("type", "auto", "none", "any", "tool")
    wanted = choice.text("name")
    one_call = choice.flag("disable_parallel_tool_use")
    choice.done()
    ours = {"any": "required", "tool": "named"}.get(kind or "", kind)
    return choice_of(tuple(found), ours, wanted, parallel=not one_call)


def _thinking(fields: Fields) -> dict[str, Any]:
    """Whether the model is to think, and how much: a budget, and the effort."""
    output = fields.inner("output_config") or Fields({}, "output_config")
    effort = output.one_of("effort", *EFFORTS[2:])
    found = effort_of(None if effort == "high" else effort)  # which is what leaving it out means
    found["effort_field"] = "output_config.effort"
    output.done()
    thinking = fields.inner("thinking")
    if thinking is None:
        return found
    kind = thinking.one_of("type", "adaptive", "disabled", "enabled")
    budget = thinking.whole("budget_tokens", 1, MOST_TOKENS)
    thinking.labels("display")
    thinking.done()
    if (kind == "enabled") != (budget is not None):
        raise thinking.wrong("budget_tokens", "goes with the type `enabled`, and only with it")
    think = {"disabled": False, "enabled": True}.get(kind or "")
    return found | {"think": think, "budget": budget, "budget_field": "thinking"}


def _stop_of(answer: Answer) -> dict[str, Any]:
    reason = {"length": "max_tokens", "overflow": "model_context_window_exceeded"}.get(answer.reason or "")
    reason = reason or ("tool_use" if answer.calls else "stop_sequence" if answer.stop else "end_turn")
    return {"stop_reason": reason, "stop_sequence": answer.stop}


def _usage(answer: Answer) -> dict[str, Any]:
    """Tokens that were found in the cache are counted apart from the others."""
    cached = answer.stats.cached_tokens if answer.stats else 0
    written = answer.stats.completion_tokens if answer.stats else 0
    found = {"input_tokens": answer.prompt_tokens - cached, "output_tokens": written}
    return {**found, "cache_read_input_tokens": cached, "cache_creation_input_tokens": 0}


class Shape:
    """The answer as a `message`: blocks of thinking, text and calls."""

    media_type = "text/event-stream"

    def __init__(self) -> None:
        self._index = -1
        self._kind = ""

    def whole(self, writer: Writer, answers: list[Answer]) -> dict[str, Any]:
        answer = answers[0]
        content = list[dict[str, Any]]()
        if answer.reasoning:
            content.append({"type": "thinking", "thinking": answer.reasoning, "signature": ""})
        if answer.content:
            content.append({"type": "text", "text": answer.content})
        content += [_block(call) | {"input": call.arguments} for call in answer.calls]
        return {**_message(writer), "content": content, **_stop_of(answer), "usage": _usage(answer)}

    def read(self, index: int, answer: Answer) -> Iterable[bytes]:
        return ()

    def begin(self, writer: Writer, answers: list[Answer]) -> Iterable[bytes]:
        message = {**_message(writer), "content": [], "stop_reason": None, "stop_sequence": None}
        yield _event("message_start", {"message": {**message, "usage": _usage(answers[0])}})

    def said(self, index: int, said: Said) -> Iterable[bytes]:
        if said.reasoning:
            yield from self._open("thinking", {"type": "thinking", "thinking": "", "signature": ""})
            yield self._delta({"type": "thinking_delta", "thinking": said.reasoning})
        if said.content:
            yield from self._open("text", {"type": "text", "text": ""})
            yield self._delta({"type": "text_delta", "text": said.content})
        for call in said.calls:
            yield from self._open(call.id, _block(call))
            yield self._delta({"type": "input_json_delta", "partial_json": call.arguments_json})

    def ended(self, index: int, answer: Answer) -> Iterable[bytes]:
        yield from self._close()
        yield _event("message_delta", {"delta": _stop_of(answer), "usage": _usage(answer)})

    def end(self, answers: list[Answer]) -> Iterable[bytes]:
        return [_event("message_stop", {})]

    def failed(self, error: LocalInferError) -> bytes:
        return sse(anthropic_form(error), "error")

    def _open(self, kind: str, block: Mapping[str, Any]) -> Iterable[bytes]:
        """Begin a block, unless one of this kind is open."""
        if self._kind == kind:
            return
        yield from self._close()
        self._kind, self._index = kind, self._index + 1
        yield _event("content_block_start", {"index": self._index, "content_block": block})

    def _close(self) -> Iterable[bytes]:
        if self._kind:
            self._kind = ""
            yield _event("content_block_stop", {"index": self._index})

    def _delta(self, delta: Mapping[str, Any]) -> bytes:
        return _event("content_block_delta", {"index": self._index, "delta": delta})


def _message(writer: Writer) -> dict[str, Any]:
    return {"id": new_id("msg_"), "type": "message", "role": "assistant", "model": writer.name}


def _block(call: Call) -> dict[str, Any]:
    return {"type": "tool_use", "id": call.id, "name": call.name, "input": {}}


def _event(kind: str, value: Mapping[str, Any]) -> bytes:
    return sse({"type": kind, **value}, kind)


MESSAGES = Dialect(understand, anthropic_form)
