"""`/v1/completions`, as OpenAI's clients speak it: texts that are gone on with as they are."""

from collections.abc import Iterable
from time import time
from typing import Any

from localinfer.chats.logprobs import spelled
from localinfer.chats.samples import best, mean_logprob
from localinfer.chats.saying import Said
from localinfer.config import MOST_TOP
from localinfer.engine.protocol import Tokenizer
from localinfer.errors import LocalInferError
from localinfer.protocols.answer import Answer
from localinfer.protocols.asking import Ask
from localinfer.protocols.common import MOST_ANSWERS, MOST_TOKENS, finish_of, new_id, sampling_of, usage_of
from localinfer.protocols.errors import openai_form
from localinfer.protocols.fields import Fields
from localinfer.protocols.forms import form_of_chat
from localinfer.protocols.openai_chat import DONE, progress_in_words, progress_of, refuse_unsupported, streaming
from localinfer.protocols.shape import Dialect, Writer, sse

DEFAULT_TOKENS = 16
"""As OpenAI has it."""

MOST_PROMPTS = 64

Prompt = str | tuple[int, ...]


def understand(fields: Fields) -> tuple[Ask, "Shape"]:
    """The request, and how its answers are spelled. Raises `Refused`."""
    prompts = prompts_of(fields)
    stream, include_usage = streaming(fields)
    n = fields.whole("n", 1, MOST_ANSWERS) or 1
    refuse_unsupported(fields)
    best_of = fields.whole("best_of", n, MOST_ANSWERS) or n
    if best_of > n and stream:
        raise fields.wrong("best_of", "does not go with `stream`")
    echo, logprobs = fields.flag("echo"), _logprobs(fields)
    fields.only("suffix", "")
    tokens = fields.whole("max_tokens", 0 if echo else 1, MOST_TOKENS)
    tokens = DEFAULT_TOKENS if tokens is None else tokens
    if echo and (tokens or stream or best_of > 1 or logprobs is None):
        raise fields.wrong("echo", "is for scores of the prompt: with `logprobs` and `max_tokens: 0`, not streamed")
    ask = Ask(
        model=fields.needed_text("model"),
        sampling=sampling_of(fields, max_tokens=tokens or None),
        n=best_of,
        stream=stream,
        prompts=prompts,
        special=fields.flag("special"),
        progress=progress_of(fields, stream=stream),
        form=form_of_chat(fields),
        logprobs=0 if best_of > n and logprobs is None else logprobs,
        echo=echo,
    )
    return ask, Shape(n, best_of, include_usage, scored=logprobs is not None)


def _logprobs(fields: Fields) -> int | None:
    """Likeliest tokens to be told with each one; false and true are vLLM's words for none and for the token alone."""
    value = fields.take("logprobs")
    if isinstance(value, bool):
        return 0 if value else None
    return fields.whole("logprobs", 0, MOST_TOP)


def prompts_of(fields: Fields, name: str = "prompt", most: int = MOST_PROMPTS) -> tuple[Prompt, ...]:
    """One text, several, the tokens of one, or those of several."""
    given = fields.take(name)
    listed = [given] if isinstance(given, str) or _are_tokens(given) else given
    if not isinstance(listed, list) or not listed:
        raise fields.wrong(name, "must be a text, tokens, or a list of them")
    if len(listed) > most:
        raise fields.wrong(name, f"has {len(listed)} texts, more than {most}")
    for one in listed:
        if not (isinstance(one, str) and one) and not _are_tokens(one):
            raise fields.wrong(name, "has one that is empty, or neither text nor tokens")
    with fields.blamed(name):
        return tuple(one if isinstance(one, str) else tuple(one) for one in listed)


def _are_tokens(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(type(one) is int for one in value)


class Shape:
    """Answers as `text_completion` objects."""

    media_type = "text/event-stream"

    def __init__(self, n: int, best_of: int, include_usage: bool, *, scored: bool) -> None:
        self._n, self._best_of, self._include_usage = n, best_of, include_usage
        self._is_scored = scored
        self._head: dict[str, Any] = {}
        self._answers = list[Answer]()
        self._told = dict[int, tuple[int, int]]()  # tokens and characters of each answer whose scores were told
        self._tokenizer: Tokenizer | None = None

    def whole(self, writer: Writer, answers: list[Answer]) -> dict[str, Any]:
        self._begin(writer, answers)
        at = [index for first in range(0, len(answers), self._best_of) for index in self._best(answers, first)]
        choices = [
            _choice(number, answers[index].echoed + answers[index].content, finish_of(answers[index]))
            | {"stop_reason": answers[index].stop, "logprobs": self._logprobs(index)}
            for number, index in enumerate(at)
        ]
        return {**self._head, "choices": choices, "usage": usage_of(answers, self._best_of)}

    def _best(self, answers: list[Answer], first: int) -> list[int]:
        """The answers to one prompt that are given, by the mean score of their tokens; the first of equals."""
        those = range(first, min(first + self._best_of, len(answers)))
        if self._best_of == self._n:
            return list(those)

        means = [mean_logprob(answers[index].scores) for index in those]
        return [those[number] for number in best(means, self._n)]

    def _logprobs(self, index: int) -> dict[str, Any] | None:
        """The scores of answer `index` that were not told yet, as completions spell them."""
        if not self._is_scored or self._tokenizer is None:
            return None
        begun, offset = self._told.get(index, (0, 0))
        found: dict[str, Any] = {"tokens": [], "token_logprobs": [], "top_logprobs": [], "text_offset": []}
        if begun == 0 and (first := self._answers[index].echoed):
            found = {"tokens": [first], "token_logprobs": [None], "top_logprobs": [None], "text_offset": [0]}
            offset = len(first)
        fresh = spelled(self._tokenizer, self._answers[index].scores[begun:])
        for one in fresh:
            found["tokens"].append(one["token"])
            found["token_logprobs"].append(one["logprob"])
            found["top_logprobs"].append({top["token"]: top["logprob"] for top in reversed(one["top_logprobs"])})
            found["text_offset"].append(offset)
            offset += len(one["token"])
        self._told[index] = begun + len(fresh), offset
        return found

    def begin(self, writer: Writer, answers: list[Answer]) -> Iterable[bytes]:
        self._begin(writer, answers)
        return ()

    def read(self, index: int, answer: Answer) -> Iterable[bytes]:
        return [self._chunk(index, "", None, **progress_in_words(answer))]

    def said(self, index: int, said: Said) -> Iterable[bytes]:
        return [self._chunk(index, said.content, None)]

    def ended(self, index: int, answer: Answer) -> Iterable[bytes]:
        return [self._chunk(index, "", finish_of(answer))]

    def end(self, answers: list[Answer]) -> Iterable[bytes]:
        if self._include_usage:
            yield sse({**self._head, "choices": [], "usage": usage_of(answers, self._n)})
        yield DONE

    def failed(self, error: LocalInferError) -> bytes:
        return sse(openai_form(error)) + DONE

    def _chunk(self, index: int, text: str, finish: str | None, **more: Any) -> bytes:
        choice = _choice(index, text, finish) | {"logprobs": self._logprobs(index)}
        return sse({**self._head, "choices": [choice], **more})

    def _begin(self, writer: Writer, answers: list[Answer]) -> None:
        self._answers, self._tokenizer = answers, writer.tokenizer
        model = writer.name
        self._head = {"id": new_id("cmpl-"), "object": "text_completion", "created": int(time()), "model": model}


def _choice(index: int, text: str, finish: str | None) -> dict[str, Any]:
    return {"index": index, "text": text, "finish_reason": finish}


TEXT = Dialect(understand, openai_form)
