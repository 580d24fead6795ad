"""`/v1/chat/completions`, as OpenAI's clients speak it."""

from collections.abc import Iterable
from time import time
from typing import Any

from localinfer.chats.logprobs import spelled
from localinfer.chats.saying import Said
from localinfer.config import MOST_TOP
from localinfer.engine.protocol import Tokenizer
from localinfer.errors import LocalInferError
from localinfer.protocols.answer import Answer
from localinfer.protocols.asking import Ask
from localinfer.protocols.common import (
    MOST_ANSWERS,
    MOST_TOKENS,
    conversation_of,
    finish_of,
    new_id,
    sampling_of,
    usage_of,
)
from localinfer.protocols.errors import openai_form
from localinfer.protocols.fields import Fields
from localinfer.protocols.forms import form_of_chat
from localinfer.protocols.shape import Dialect, Writer, sse
from localinfer.protocols.tools import Choice, choice_of, tools_of

DONE = b"data: [DONE]\n\n"


def progress_in_words(answer: Answer) -> dict[str, Any]:
    """How much of the prompt has been read, as llama.cpp tells it."""
    return {
        "prompt_progress": {
            "total": answer.prompt_tokens,
            "cache": answer.found,
            "processed": answer.read,
            "time_ms": round(1000 * answer.read_s),
        }
    }


def refuse_unsupported(fields: Fields) -> None:
    """Fields of OpenAI's that we do not support, but for values that change nothing; and those that only tell who asks
    or what for."""
    fields.only("store", False)
    fields.only("service_tier", "auto", "default")
    fields.labels("user", "safety_identifier", "prompt_cache_key")
    fields.labels("metadata", kind=dict)


def understand(fields: Fields) -> tuple[Ask, "Shape"]:
    """The request, and how its answers are spelled. Raises `Refused`."""
    system, turns = conversation_of(fields.objects("messages"))
    stream, include_usage = streaming(fields)
    choice = _choice_of(fields)
    n = fields.whole("n", 1, MOST_ANSWERS) or 1
    refuse_unsupported(fields)
    logprobs = logprobs_of(fields)
    fields.only("modalities", ["text"])
    fields.only("verbosity", "medium")
    ask = Ask(
        model=fields.needed_text("model"),
        sampling=sampling_of(fields, max_tokens=_max_tokens(fields)),
        n=n,
        stream=stream,
        system=system,
        turns=turns,
        choice=choice,
        **thinking_of(fields),
        progress=progress_of(fields, stream=stream),
        form=form_of_chat(fields),
        logprobs=logprobs,
    )
    return ask, Shape(n, include_usage)


def logprobs_of(fields: Fields) -> int | None:
    """Likeliest tokens to be told with each one; None where no scores are wanted."""
    wanted, top = fields.flag("logprobs"), fields.whole("top_logprobs", 0, MOST_TOP)
    if top and not wanted:
        raise fields.wrong("top_logprobs", "goes with `logprobs` only")
    return (top or 0) if wanted else None


def streaming(fields: Fields) -> tuple[bool, bool]:
    """Whether a stream is wanted, and with its tokens counted."""
    stream = fields.flag("stream")
    options = fields.inner("stream_options")
    if options is None:
        return stream, False
    if not stream:
        raise fields.wrong("stream_options", "goes with `stream` only")
    include_usage = options.flag("include_usage")
    options.only("include_obfuscation", False)
    options.done()
    return stream, include_usage


def progress_of(fields: Fields, *, stream: bool) -> bool:
    """`return_progress`, llama.cpp's word."""
    wanted = fields.flag("return_progress")
    if wanted and not stream:
        raise fields.wrong("return_progress", "goes with `stream` only")
    return wanted


EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh", "max")


def effort_of(effort: str | None) -> dict[str, Any]:
    """The effort of thinking, as `Ask` has it."""
    if effort == "none":
        return {"think": False}
    return {} if effort is None else {"variables": {"reasoning_effort": effort}}


def thinking_of(fields: Fields) -> dict[str, Any]:
    """Effort and budget of thinking (by vLLM's name and llama.cpp's, -1 for any), and what else the chat template may
    read."""
    found = effort_of(fields.one_of("reasoning_effort", *EFFORTS))
    variables = {**fields.plain_object("chat_template_kwargs"), **found.get("variables", {})}
    names = ("thinking_token_budget", "thinking_budget_tokens")
    budgets = [(value, name) for name in names if (value := fields.whole(name, -1, MOST_TOKENS)) not in (None, -1)]
    budget, name = min(budgets, default=(None, names[0]))
    return found | {"variables": variables, "budget": budget, "budget_field": name, "think_field": "reasoning_effort"}


def _max_tokens(fields: Fields) -> int | None:
    old, new = (fields.whole(name, 1, MOST_TOKENS) for name in ("max_tokens", "max_completion_tokens"))
    if old is not None and new is not None and old != new:
        raise fields.wrong("max_tokens", f"is {old}, but `max_completion_tokens` is {new}", hint="give one of them")
    return new if old is None else old


def _choice_of(fields: Fields) -> Choice:
    tools, parallel = tools_of(fields.objects("tools")), fields.flag("parallel_tool_calls", True)
    choice = fields.take("tool_choice")
    if isinstance(choice, dict):
        inner = fields.inner("tool_choice") or Fields({})
        inner.one_of("type", "function")
        function = inner.inner("function") or Fields({}, "tool_choice.function")
        name = function.needed_text("name")
        function.done()
        inner.done()
        return choice_of(tools, "named", name, parallel=parallel)
    return choice_of(tools, fields.one_of("tool_choice", "auto", "none", "required"), None, parallel=parallel)


class Shape:
    """Answers as `chat.completion` objects."""

    media_type = "text/event-stream"

    def __init__(self, n: int, include_usage: bool) -> None:
        self._n, self._include_usage = n, include_usage
        self._head: dict[str, Any] = {}
        self._calls, self._scored = [0] * n, [0] * n
        self._answers = list[Answer]()
        self._tokenizer: Tokenizer | None = None

    def whole(self, writer: Writer, answers: list[Answer]) -> dict[str, Any]:
        self._begin(writer, "chat.completion", answers)
        choices = [_choice(index, answer) | {"logprobs": self._logprobs(index)} for index, answer in enumerate(answers)]
        return {**self._head, "choices": choices, "usage": usage_of(answers, self._n)}

    def read(self, index: int, answer: Answer) -> Iterable[bytes]:
        return [self._chunk(index, {}, **progress_in_words(answer))]

    def begin(self, writer: Writer, answers: list[Answer]) -> Iterable[bytes]:
        self._begin(writer, "chat.completion.chunk", answers)
        return [self._chunk(index, {"role": "assistant", "content": ""}) for index in range(len(answers))]

    def said(self, index: int, said: Said) -> Iterable[bytes]:
        if said.reasoning:
            yield self._chunk(index, {"reasoning_content": said.reasoning})
        if said.content:
            yield self._chunk(index, {"content": said.content})
        for call in said.calls:
            yield self._chunk(index, {"tool_calls": [{"index": self._calls[index], **call.in_openai}]})
            self._calls[index] += 1

    def ended(self, index: int, answer: Answer) -> Iterable[bytes]:
        return [self._chunk(index, {}, finish_of(answer))]

    def end(self, answers: list[Answer]) -> Iterable[bytes]:
        if self._include_usage:
            yield sse({**self._head, "choices": [], "usage": usage_of(answers, self._n)})
        yield DONE

    def failed(self, error: LocalInferError) -> bytes:
        return sse(openai_form(error)) + DONE

    def _logprobs(self, index: int) -> dict[str, Any] | None:
        """The scores of answer `index` that were not told yet."""
        fresh = self._answers[index].scores[self._scored[index] :]
        self._scored[index] += len(fresh)
        return {"content": spelled(self._tokenizer, fresh), "refusal": None} if fresh and self._tokenizer else None

    def _begin(self, writer: Writer, kind: str, answers: list[Answer]) -> None:
        self._answers, self._tokenizer = answers, writer.tokenizer
        self._head = {"id": new_id("chatcmpl-"), "object": kind, "created": int(time()), "model": writer.name}

    def _chunk(self, index: int, delta: dict[str, Any], finish: str | None = None, **more: Any) -> bytes:
        choice = {"index": index, "delta": delta, "logprobs": self._logprobs(index), "finish_reason": finish}
        usage = {"usage": None} if self._include_usage else {}
        return sse({**self._head, "choices": [choice], **usage, **more})


def _choice(index: int, answer: Answer) -> dict[str, Any]:
    content = answer.content or (None if answer.calls else "")
    message: dict[str, Any] = {"role": "assistant", "content": content}
    if answer.reasoning:
        message["reasoning_content"] = answer.reasoning
    if answer.calls:
        message["tool_calls"] = [call.in_openai for call in answer.calls]
    return {
        "index": index,
        "message": message,
        "finish_reason": finish_of(answer),
        "stop_reason": answer.stop,
    }


CHAT = Dialect(understand, openai_form)
