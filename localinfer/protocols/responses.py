"""`/v1/responses`, as OpenAI's clients speak it: text, reasoning, and calls of functions. Nothing is stored."""

from collections.abc import Iterable, Mapping
from time import time
from typing import Any

from localinfer.chats.calls import Call
from localinfer.chats.logprobs import spelled
from localinfer.chats.saying import Said
from localinfer.config import MOST_TOP
from localinfer.engine.protocol import Tokenizer
from localinfer.errors import LocalInferError
from localinfer.protocols.answer import Answer
from localinfer.protocols.asking import Ask
from localinfer.protocols.common import MOST_TOKENS, conversation_of, new_id, sampling_of
from localinfer.protocols.errors import Refused, openai_form
from localinfer.protocols.fields import Fields, refuse_odd
from localinfer.protocols.forms import form_of_response
from localinfer.protocols.openai_chat import EFFORTS, effort_of
from localinfer.protocols.shape import Dialect, Writer, sse
from localinfer.protocols.tools import Choice, choice_of, tool

Json = dict[str, Any]


def understand(fields: Fields) -> tuple[Ask, "Shape"]:
    """The request, and how its answer is spelled. Raises `Refused`."""
    instructions = fields.text("instructions")
    system, turns = conversation_of(_messages(fields), instructions)
    max_tokens = fields.whole("max_output_tokens", 1, MOST_TOKENS)
    choice = _choice_of(fields)
    sampling = sampling_of(fields, max_tokens=max_tokens)
    fields.only("store", False)
    fields.only("background", False)
    fields.only("truncation", "disabled")
    fields.only("service_tier", "auto", "default")
    logprobs = _logprobs_of(fields)
    fields.labels("user", "safety_identifier", "prompt_cache_key")
    fields.labels("metadata", kind=dict)
    text = fields.inner("text") or Fields({}, "text")
    form = form_of_response(text)
    text.only("verbosity", "medium")
    text.done()
    ask = Ask(
        model=fields.needed_text("model"),
        sampling=sampling,
        stream=fields.flag("stream"),
        system=system,
        turns=turns,
        choice=choice,
        **_effort(fields),
        form=form,
        logprobs=logprobs,
    )
    settings = {
        "instructions": instructions,
        "max_output_tokens": max_tokens,
        "parallel_tool_calls": not choice.one_call,
        "temperature": sampling.get("temperature"),
        "top_p": sampling.get("top_p"),
        "tool_choice": fields.take("tool_choice") or "auto",
        "tools": fields.objects("tools"),
        "metadata": fields.take("metadata") or {},
        "text": {"format": {"type": "text"}} if form is None else fields.take("text"),
        "top_logprobs": logprobs or 0,
    }
    return ask, Shape(settings)


def _effort(fields: Fields) -> Json:
    reasoning = fields.inner("reasoning")
    if reasoning is None:
        return {}
    effort = reasoning.one_of("effort", *EFFORTS)
    reasoning.only("summary", "auto")
    reasoning.done()
    return effort_of(effort) | {"think_field": "reasoning.effort", "effort_field": "reasoning.effort"}


_LOGPROBS = "message.output_text.logprobs"

_ENCRYPTED = "reasoning.encrypted_content"
"""Agents always send it, so that reasoning comes back with the next request. Here it does so as it is, not encrypted,
whoever asks."""


def _logprobs_of(fields: Fields) -> int | None:
    """Likeliest tokens to be told with each one of the text; None where no scores are wanted."""
    top = fields.whole("top_logprobs", 0, MOST_TOP)
    include = set(fields.texts("include"))
    if odd := sorted(include - {_LOGPROBS, _ENCRYPTED}):
        raise fields.wrong("include", f"has `{odd[0][:80]}`, which is not supported here", hint="leave it out")
    return top or 0 if top or _LOGPROBS in include else None


def _choice_of(fields: Fields) -> Choice:
    found = list[Mapping[str, Any]]()
    for at, one in enumerate(fields.objects("tools")):
        where = f"tools.{at}"
        odd = sorted(one.keys() - {"type", "name", "description", "parameters", "strict"})
        if one.get("type") != "function" or odd:
            name = odd[0][:80] if odd else "type"
            raise Refused(f"{where}.{name}", f"`{where}.{name}` is not supported here", hint="only functions are")
        found.append(tool(one.get("name"), one.get("description"), one.get("parameters"), where))
    choice, parallel = fields.take("tool_choice"), fields.flag("parallel_tool_calls", True)
    if isinstance(choice, dict):
        inner = fields.inner("tool_choice") or Fields({})
        inner.one_of("type", "function")
        name = inner.needed_text("name")
        inner.done()
        return choice_of(tuple(found), "named", name, parallel=parallel)
    kind = fields.one_of("tool_choice", "auto", "none", "required")
    return choice_of(tuple(found), kind, None, parallel=parallel)


_OF_ITEMS = {"type", "id", "status"}
_OF_KINDS = {
    "message": {"role", "content"},
    "function_call": {"call_id", "name", "arguments"},
    "function_call_output": {"call_id", "output"},
    "reasoning": {"summary", "content"},
}
"""What items of the input may say, and beside it those of each kind."""

_TEXTS = ("input_text", "output_text", "text", "reasoning_text", "summary_text")
_OF_PARTS = {"type", "text", "annotations", "logprobs"}
"""The last two are words about a text that was written here, sent back with it."""


def _messages(fields: Fields) -> list[Json]:
    """The input in the words of chats: calls and reasoning are parts of the assistant's messages."""
    given = fields.take("input")
    if isinstance(given, str) and given:
        return [{"role": "user", "content": given}]
    found = list[Json]()
    for at, item in enumerate(fields.objects("input")):
        where, kind = f"input.{at}", item.get("type", "message")
        refuse_odd(item, _OF_ITEMS | _OF_KINDS.get(kind if isinstance(kind, str) else "", item.keys()), where)
        if kind == "message":
            _add_message(found, item, where)
        elif kind == "function_call":
            function = {"name": item.get("name"), "arguments": item.get("arguments") or "{}"}
            call = {"id": item.get("call_id"), "type": "function", "function": function}
            _assistant(found).setdefault("tool_calls", []).append(call)
        elif kind == "function_call_output":
            text = _text_of(item.get("output"), f"{where}.output")
            found.append({"role": "tool", "tool_call_id": item.get("call_id"), "content": text})
        elif kind == "reasoning":
            text = _text_of(item.get("content") or item.get("summary") or [], where)
            found.append({"role": "assistant", "reasoning_content": text})
        else:
            raise Refused(where, f"`{where}` is of the type {str(kind)[:40]!r}, which is not supported here")
    return found


def _add_message(found: list[Json], item: Mapping[str, Any], where: str) -> None:
    role, text = item.get("role"), _text_of(item.get("content"), f"{where}.content")
    if role not in ("user", "assistant", "system", "developer"):
        raise Refused(f"{where}.role", f"`{where}.role` is not supported here")
    if role == "assistant" and found and found[-1].keys() == {"role", "reasoning_content"}:
        found[-1]["content"] = text
    else:
        found.append({"role": role, "content": text})


def _assistant(found: list[Json]) -> Json:
    """The assistant's message that a call belongs to."""
    if not found or found[-1]["role"] != "assistant":
        found.append({"role": "assistant"})
    return found[-1]


def _text_of(content: Any, where: str) -> str:
    """A text, or the texts of a list of parts."""
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else [None]
    texts = list[Any]()
    for at, part in enumerate(parts):
        is_text = isinstance(part, Mapping) and part.get("type") in _TEXTS
        texts.append(part.get("text") if is_text else None)
        if is_text:
            refuse_odd(part, _OF_PARTS, f"{where}.{at}")
    if not all(isinstance(text, str) for text in texts):
        raise Refused(where, f"`{where}` has a part that is no text", hint="send text only")
    return "\n".join(map(str, texts))


class Shape:
    """The answer as a `response` object: items of reasoning, text and calls."""

    media_type = "text/event-stream"

    def __init__(self, settings: Json) -> None:
        self._settings = settings
        self._head: Json = {}
        self._answers = list[Answer]()
        self._tokenizer: Tokenizer | None = None
        self._sent = self._scored = 0
        self._items = list[Json]()
        self._open = False
        """Whether the last item is still being written."""

    def whole(self, writer: Writer, answers: list[Answer]) -> Json:
        self._begin(writer, answers)
        answer = answers[0]
        if answer.reasoning:
            self._items.append(_reasoning(answer.reasoning))
        if answer.content or not answer.calls:
            self._items.append(_message(answer.content, self._fresh_scores()))
        self._items += [_call(call) for call in answer.calls]
        return self._response(answer)

    def begin(self, writer: Writer, answers: list[Answer]) -> Iterable[bytes]:
        self._begin(writer, answers)
        for kind in ("created", "in_progress"):
            yield self._event(f"response.{kind}", response=self._response(None))

    def read(self, index: int, answer: Answer) -> Iterable[bytes]:
        return ()

    def said(self, index: int, said: Said) -> Iterable[bytes]:
        if said.reasoning:
            yield from self._add(_reasoning(""), said.reasoning)
        if said.content:
            yield from self._add(_message(""), said.content)
        for call in said.calls:
            yield from self._close()
            yield from self._called(call)

    def ended(self, index: int, answer: Answer) -> Iterable[bytes]:
        yield from self._close()
        response = self._response(answer)
        yield self._event(f"response.{response['status']}", response=response)

    def end(self, answers: list[Answer]) -> Iterable[bytes]:
        return ()

    def failed(self, error: LocalInferError) -> bytes:
        told = openai_form(error)["error"]
        return self._event("error", code=told["code"] or told["type"], message=told["message"], param=told["param"])

    def _fresh_scores(self) -> list[Json]:
        """The scores of the text that were not told yet."""
        fresh = self._answers[0].content_scores[self._scored :]
        self._scored += len(fresh)
        return spelled(self._tokenizer, fresh) if fresh and self._tokenizer else []

    def _begin(self, writer: Writer, answers: list[Answer]) -> None:
        self._answers, self._tokenizer = answers, writer.tokenizer
        self._head = {"id": new_id("resp_"), "object": "response", "created_at": int(time())}
        self._head |= {"model": writer.name, "error": None, "store": False, "previous_response_id": None}

    def _response(self, answer: Answer | None) -> Json:
        cut = answer is not None and answer.reason in ("length", "overflow")
        status = "in_progress" if answer is None else "incomplete" if cut else "completed"
        details = {"reason": "max_output_tokens"} if cut else None
        found = {**self._head, **self._settings, "status": status, "incomplete_details": details}
        found |= {"output": self._items, "truncation": "disabled"}
        return found | {"usage": None if answer is None else _usage(answer)}

    def _add(self, item: Json, text: str) -> Iterable[bytes]:
        """A piece of text, in the open item if it is of the same type, else in a new one."""
        if not self._open or self._items[-1]["type"] != item["type"]:
            yield from self._close()
            part, item = item["content"][0], {**item, "content": []}
            yield from self._added(item | {"status": "in_progress"})
            item["content"] = [part]
            self._items[-1] = item
            if item["type"] == "message":
                yield self._of_item("response.content_part.added", content_index=0, part={**part})
        part = self._items[-1]["content"][0]
        part["text"] += text
        scores: Json = {}
        if self._items[-1]["type"] == "message":
            scores["logprobs"] = self._fresh_scores()
            part["logprobs"] += scores["logprobs"]
        yield self._of_item(f"response.{self._stream()}.delta", content_index=0, delta=text, **scores)

    def _called(self, call: Call) -> Iterable[bytes]:
        item = _call(call)
        yield from self._added({**item, "arguments": "", "status": "in_progress"})
        self._items[-1] = item
        arguments = item["arguments"]
        yield self._of_item("response.function_call_arguments.delta", delta=arguments)
        yield self._of_item("response.function_call_arguments.done", arguments=arguments, name=call.name)
        yield from self._done()

    def _added(self, item: Json) -> Iterable[bytes]:
        self._items.append(item)
        self._open = True
        yield self._event("response.output_item.added", output_index=len(self._items) - 1, item=item)

    def _close(self) -> Iterable[bytes]:
        """End the item that is open, if one is."""
        if not self._open:
            return
        part = self._items[-1]["content"][0]
        scores = {"logprobs": part["logprobs"]} if "logprobs" in part else {}
        yield self._of_item(f"response.{self._stream()}.done", content_index=0, text=part["text"], **scores)
        if self._items[-1]["type"] == "message":
            yield self._of_item("response.content_part.done", content_index=0, part=part)
        yield from self._done()

    def _done(self) -> Iterable[bytes]:
        self._open = False
        yield self._event("response.output_item.done", output_index=len(self._items) - 1, item=self._items[-1])

    def _stream(self) -> str:
        return "output_text" if self._items[-1]["type"] == "message" else "reasoning_text"

    def _of_item(self, kind: str, **fields: Any) -> bytes:
        """An event of the last item."""
        return self._event(kind, item_id=self._items[-1]["id"], output_index=len(self._items) - 1, **fields)

    def _event(self, kind: str, **fields: Any) -> bytes:
        self._sent += 1
        return sse({"type": kind, "sequence_number": self._sent - 1, **fields}, kind)


def _reasoning(text: str) -> Json:
    part = {"type": "reasoning_text", "text": text}
    return {"type": "reasoning", "id": new_id("rs_"), "summary": [], "content": [part], "status": "completed"}


def _message(text: str, scores: Iterable[Json] = ()) -> Json:
    part = {"type": "output_text", "text": text, "annotations": [], "logprobs": list(scores)}
    return {"type": "message", "id": new_id("msg_"), "role": "assistant", "status": "completed", "content": [part]}


def _call(call: Call) -> Json:
    head = {"type": "function_call", "id": new_id("fc_"), "call_id": call.id, "status": "completed"}
    return {**head, "name": call.name, "arguments": call.arguments_json}


def _usage(answer: Answer) -> Json:
    cached, written = (answer.stats.cached_tokens, answer.stats.completion_tokens) if answer.stats else (0, 0)
    return {
        "input_tokens": answer.prompt_tokens,
        "input_tokens_details": {"cached_tokens": cached},
        "output_tokens": written,
        "output_tokens_details": {"reasoning_tokens": answer.reasoning_tokens},
        "total_tokens": answer.prompt_tokens + written,
    }


RESPONSES = Dialect(understand, openai_form)
