"""Texts as vectors: what the model holds of them, for search and comparison."""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from localinfer.chats.chat import Chat
from localinfer.chats.mapping import Answered
from localinfer.chats.row_file import head_of
from localinfer.chats.rows import Asked, Line, asked_of, refuse_keys, text_of
from localinfer.chats.template import Message
from localinfer.config import Pool, SamplingParams
from localinfer.errors import ContextOverflow, LocalInferError, UsageError

if TYPE_CHECKING:
    from localinfer.engine.protocol import Engine, Tokenizer
    from localinfer.engine.request import Request

KNOWN = {"id", "text"}


def understood_text(line: Line, *, limit: int) -> Asked:
    """What text `line` brings. As `rows.understood`."""

    def meant(row: Mapping[str, Any]) -> dict[str, Any]:
        refuse_keys(row.keys() - KNOWN, KNOWN, "leave them out")
        if "text" not in row:
            raise UsageError("the line has no `text`", hint='write `{"text": "…"}`')
        return {"turns": (Message("user", text_of(row, "text")),)}

    return asked_of(line, meant, limit=limit)


def vector_request(engine: "Engine", text: str | Sequence[int], pool: Pool) -> "Request":
    """The request for the vector of `text`: its tokens, if it is not these already, between those that the tokenizer's
    file puts around a text."""
    from localinfer.engine.request import Request

    tokens = text
    if isinstance(tokens, str):
        tokens = [*Chat(engine, raw=True).tokens_of(tokens), *engine.tokenizer.after]
    return Request(tuple(tokens), SamplingParams(temperature=0), pool=pool)


def begin_vector(engine: "Engine", asked: Asked, *, pool: Pool) -> Answered:
    """What is asked for the vector of a line's text."""
    answered = Answered(asked, error=asked.error, shorter="shorten the text, or raise `--ctx-size`")
    if asked.error is None:
        try:
            answered.request = vector_request(engine, asked.turns[0].content, pool)
        except ContextOverflow as error:
            answered.error = ContextOverflow(error.message, hint=answered.shorter)
        except LocalInferError as error:
            answered.error = error
    return answered


def unit(vector: Sequence[float]) -> list[float]:
    """The vector at length 1; zeros stay."""
    length = math.sqrt(math.fsum(value * value for value in vector))
    return [value / length for value in vector] if length else list(vector)


def vector_row(answered: Answered, _tokenizer: "Tokenizer", *, raw: bool = False) -> dict[str, Any]:
    """The row of JSON for one line; of unit length unless `raw`."""
    row = head_of(answered)
    if answered.error is not None:
        return row
    assert answered.vector is not None
    assert answered.stats is not None
    vector = list(answered.vector) if raw else unit(answered.vector)
    return row | {"tokens": answered.stats.prompt_tokens, "embedding": vector}
