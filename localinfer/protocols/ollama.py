"""`/api/chat` and `/api/generate`, as Ollama's clients speak them."""

import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from localinfer.chats.calls import Call
from localinfer.chats.logprobs import spelled
from localinfer.chats.saying import Said
from localinfer.engine.protocol import Tokenizer
from localinfer.errors import LocalInferError
from localinfer.protocols.answer import Answer
from localinfer.protocols.asking import Ask
from localinfer.protocols.common import MOST_TOKENS, conversation_of, penalties_of
from localinfer.protocols.errors import ollama_form
from localinfer.protocols.fields import Fields
from localinfer.protocols.forms import form_of_ollama
from localinfer.protocols.openai_chat import effort_of, logprobs_of
from localinfer.protocols.shape import Dialect, Writer, compact
from localinfer.protocols.tools import Choice, tools_of

_SPEED = ("num_batch", "num_gpu", "main_gpu", "num_thread")
_SWITCHES = ("use_mmap", "use_mlock", "numa", "low_vram")
"""Options that change how fast an answer comes, and not what it is."""


def understand_chat(fields: Fields) -> tuple[Ask, "Shape"]:
    """The request, and how its answer is spelled. Raises `Refused`."""
    listed = [_message(one) for one in fields.objects("messages")]
    system, turns = conversation_of(listed) if listed else (None, ())  # without messages the model is only opened
    choice = Choice(tools_of(fields.objects("tools")))
    ask = Ask(**_alike(fields), system=system, turns=turns, choice=choice)
    return ask, Shape(chat=True)


def understand_text(fields: Fields) -> tuple[Ask, "Shape"]:
    """The same for one prompt."""
    prompt, system, raw = fields.text("prompt"), fields.text("system"), fields.flag("raw")
    fields.only("suffix", "")
    fields.only("template", "")
    fields.only("images", [])
    fields.only("context", [])
    alike = _alike(fields)
    if not prompt:
        return Ask(**alike), Shape(chat=False)
    if raw:
        if system:
            raise fields.wrong("system", "does not go with `raw`")
        if fields.take("think"):
            raise fields.wrong("think", "does not go with `raw`")
        return Ask(**alike, prompts=(prompt,)), Shape(chat=False)
    system, turns = conversation_of([{"role": "user", "content": prompt}], system)
    return Ask(**alike, system=system, turns=turns), Shape(chat=False)


def _alike(fields: Fields) -> dict[str, Any]:
    """What both say of the model, the sampling and the thinking."""
    options = fields.inner("options") or Fields({}, "options")
    tokens = options.whole("num_predict", -2, MOST_TOKENS)
    seed = options.whole("seed", -1)
    said: dict[str, Any] = {
        "seed": None if seed == -1 else seed,
        "temperature": options.number("temperature", 0, 100),
        "top_k": options.whole("top_k", 0, 1 << 22),
        "top_p": options.number("top_p", 0, 1),
        "min_p": options.number("min_p", 0, 1),
        "repeat_penalty": options.number("repeat_penalty", 0.01, 100),
        **penalties_of(options),
        "typical_p": options.number("typical_p", 0, 1),
        "max_tokens": tokens if tokens is not None and tokens > 0 else None,
    }
    sampling = {name: value for name, value in said.items() if value is not None}
    sampling["stop"] = options.texts("stop")
    context = options.whole("num_ctx", 1, 1 << 24)
    _refuse_options(options)
    return {
        "model": fields.needed_text("model").removesuffix(":latest"),
        "sampling": sampling,
        "stream": fields.flag("stream", True),
        "keep_s": _keep(fields),
        "context": context,
        **_thinking(fields),
        "form": form_of_ollama(fields),
        "logprobs": logprobs_of(fields),
    }


def _refuse_options(options: Fields) -> None:
    """Refuse what is not supported, but for values that change nothing."""
    options.only("mirostat", 0, 0.0)
    options.only("tfs_z", 1, 1.0)
    options.only("repeat_last_n", 64)
    options.only("num_keep", 0, 4)  # for contexts that shift, which none does here; 4 is what Ollama has
    options.labels(*_SPEED, kind=int)
    options.labels(*_SWITCHES, kind=bool)
    options.done()


def _thinking(fields: Fields) -> dict[str, Any]:
    value = fields.take("think")
    if value is None:
        return {}
    if isinstance(value, bool):
        return {"think": value, "think_field": "think"}
    if value in ("low", "medium", "high", "max"):
        return effort_of(value) | {"effort_field": "think"}
    raise fields.wrong("think", "must be true, false, low, medium, high or max")


_UNITS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600}


def _keep(fields: Fields) -> float | None:
    """`keep_alive` in seconds: a number, or like `5m`; below 0 for ever."""
    value = fields.take("keep_alive")
    if value is None:
        return None
    if isinstance(value, str) and (found := re.fullmatch(r"(-?[0-9]{1,9}(?:\.[0-9]{1,9})?)(ms|s|m|h)?", value)):
        value = float(found[1]) * _UNITS[found[2] or "s"]
    if isinstance(value, bool) or not isinstance(value, int | float) or abs(value) > 1e9:
        raise fields.wrong("keep_alive", "must be seconds, or a time like `5m`")
    return float("inf") if value < 0 else float(value)


def _message(one: Mapping[str, Any]) -> dict[str, Any]:
    """The same in OpenAI's words."""
    found = {name: value for name, value in one.items() if name != "images" or value}
    if "tool_name" in found:
        found["name"] = found.pop("tool_name")
    return found


class Shape:
    """The answer as lines of JSON, the last one with its counts."""

    media_type = "application/x-ndjson"

    def __init__(self, *, chat: bool) -> None:
        self._chat = chat
        self._model = ""
        self._answers, self._scored = list[Answer](), 0
        self._tokenizer: Tokenizer | None = None

    def whole(self, writer: Writer, answers: list[Answer]) -> dict[str, Any]:
        self._begin(writer, answers)
        if not answers:
            return self._row(Said()) | {"done": True, "done_reason": "load"}
        answer = answers[0]
        return self._row(Said(answer.content, answer.reasoning, tuple(answer.calls))) | _counts(answer)

    def begin(self, writer: Writer, answers: list[Answer]) -> Iterable[bytes]:
        self._begin(writer, answers)
        return ()

    def read(self, index: int, answer: Answer) -> Iterable[bytes]:
        return ()

    def said(self, index: int, said: Said) -> Iterable[bytes]:
        return [self._line(self._row(said))]

    def ended(self, index: int, answer: Answer) -> Iterable[bytes]:
        return [self._line(self._row(Said()) | _counts(answer))]

    def end(self, answers: list[Answer]) -> Iterable[bytes]:
        return [] if answers else [self._line(self._row(Said()) | {"done": True, "done_reason": "load"})]

    def failed(self, error: LocalInferError) -> bytes:
        return self._line(ollama_form(error))

    def _begin(self, writer: Writer, answers: list[Answer]) -> None:
        self._model, self._answers, self._tokenizer = writer.name, answers, writer.tokenizer

    def _logprobs(self) -> dict[str, Any]:
        """The scores that were not told yet."""
        fresh = self._answers[0].scores[self._scored :] if self._answers else []
        self._scored += len(fresh)
        return {"logprobs": spelled(self._tokenizer, fresh)} if fresh and self._tokenizer else {}

    def _row(self, said: Said) -> dict[str, Any]:
        created = datetime.now(UTC).isoformat().replace("+00:00", "Z")
        head = {"model": self._model, "created_at": created, "done": False}
        thinking = {"thinking": said.reasoning} if said.reasoning else {}
        if not self._chat:
            return {**head, "response": said.content, **thinking, **self._logprobs()}
        calls = {"tool_calls": [_call(call) for call in said.calls]} if said.calls else {}
        message = {"role": "assistant", "content": said.content, **thinking, **calls}
        return {**head, "message": message, **self._logprobs()}

    def _line(self, row: Mapping[str, Any]) -> bytes:
        return (compact(row) + "\n").encode()


def _call(call: Call) -> dict[str, Any]:
    return {"id": call.id, "function": {"name": call.name, "arguments": call.arguments}}


def _counts(answer: Answer) -> dict[str, Any]:
    """How it ended; times in nanoseconds."""
    reason = "length" if answer.reason in ("length", "overflow") else "stop"
    found: dict[str, Any] = {"done": True, "done_reason": reason}
    if (stats := answer.stats) is None:
        return found
    first = stats.total_s if stats.ttft_s is None else stats.ttft_s
    return found | {
        "total_duration": int(stats.total_s * 1e9),
        "load_duration": 0,
        "prompt_eval_count": stats.prompt_tokens,
        "prompt_eval_duration": int((first - stats.queued_s) * 1e9),
        "eval_count": stats.completion_tokens,
        "eval_duration": int((stats.total_s - first) * 1e9),
    }


CHAT = Dialect(understand_chat, ollama_form)
TEXT = Dialect(understand_text, ollama_form)
