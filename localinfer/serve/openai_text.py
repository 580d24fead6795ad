"""`/v1/completions`, as OpenAI's clients speak it: texts that are gone on with as they are."""

from collections.abc import Iterable
from time import time
from typing import Any

from localinfer.chats.saying import Said
from localinfer.errors import LocalInferError
from localinfer.serve.asking import Ask
from localinfer.serve.common import MOST_ANSWERS, MOST_TOKENS, finish_of, new_id, sampling_of, usage_of
from localinfer.serve.errors import openai_form
from localinfer.serve.fields import Fields
from localinfer.serve.forms import form_of_chat
from localinfer.serve.http import Dialect, sse
from localinfer.serve.models import Held
from localinfer.serve.openai_chat import DONE, refuse_unsupported, streaming
from localinfer.serve.writing import Answer

DEFAULT_TOKENS = 16
"""As OpenAI has it."""

MOST_PROMPTS = 64

Prompt = str | tuple[int, ...]


def understand(fields: Fields) -> tuple[Ask, "Shape"]:
    """The request, and how its answers are spelled. Raises `Refused`."""
    prompts = _prompts(fields)
    stream, include_usage = streaming(fields)
    n = fields.whole("n", 1, MOST_ANSWERS) or 1
    refuse_unsupported(fields)
    fields.only("best_of", 1, n)
    fields.only("echo", False)
    fields.only("suffix", "")
    fields.only("logprobs", False)
    tokens = fields.whole("max_tokens", 1, MOST_TOKENS) or DEFAULT_TOKENS
    ask = Ask(
        model=fields.needed_text("model"),
        sampling=sampling_of(fields, max_tokens=tokens),
        n=n,
        stream=stream,
        prompts=prompts,
        special=fields.flag("special"),
        grammar=form_of_chat(fields),
    )
    return ask, Shape(n, include_usage)


def _prompts(fields: Fields) -> tuple[Prompt, ...]:
    """One text, several, the tokens of one, or those of several."""
    given = fields.take("prompt")
    listed = [given] if isinstance(given, str) or _are_tokens(given) else given
    if not isinstance(listed, list) or not listed:
        raise fields.wrong("prompt", "must be a text, tokens, or a list of them")
    if len(listed) > MOST_PROMPTS:
        raise fields.wrong("prompt", f"has {len(listed)} prompts, more than {MOST_PROMPTS}")
    for one in listed:
        if not (isinstance(one, str) and one) and not _are_tokens(one):
            raise fields.wrong("prompt", "has a prompt that is empty, or neither text nor tokens")
    with fields.blamed("prompt"):
        return tuple(one if isinstance(one, str) else tuple(one) for one in listed)


def _are_tokens(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(type(one) is int for one in value)


class Shape:
    """Answers as `text_completion` objects."""

    media_type = "text/event-stream"

    def __init__(self, n: int, include_usage: bool) -> None:
        self._n, self._include_usage = n, include_usage
        self._head: dict[str, Any] = {}

    def whole(self, held: Held, answers: list[Answer]) -> dict[str, Any]:
        self._begin(held)
        choices = [
            _choice(index, answer.content, finish_of(answer)) | {"stop_reason": answer.stop}
            for index, answer in enumerate(answers)
        ]
        return {**self._head, "choices": choices, "usage": usage_of(answers, self._n)}

    def begin(self, held: Held, answers: list[Answer]) -> Iterable[bytes]:
        self._begin(held)
        return ()

    def said(self, index: int, said: Said) -> Iterable[bytes]:
        return [sse({**self._head, "choices": [_choice(index, said.content, None)]})]

    def ended(self, index: int, answer: Answer) -> Iterable[bytes]:
        return [sse({**self._head, "choices": [_choice(index, "", finish_of(answer))]})]

    def end(self, answers: list[Answer]) -> Iterable[bytes]:
        if self._include_usage:
            yield sse({**self._head, "choices": [], "usage": usage_of(answers, self._n)})
        yield DONE

    def failed(self, error: LocalInferError) -> bytes:
        return sse(openai_form(error)) + DONE

    def _begin(self, held: Held) -> None:
        model = held.served.name
        self._head = {"id": new_id("cmpl-"), "object": "text_completion", "created": int(time()), "model": model}


def _choice(index: int, text: str, finish: str | None) -> dict[str, Any]:
    return {"index": index, "text": text, "logprobs": None, "finish_reason": finish}


TEXT = Dialect(understand, openai_form)
