"""Texts that are scored: what the model holds of each token, without writing one of its own."""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from localinfer.chats.chat import Chat, shared
from localinfer.chats.logprobs import spelled
from localinfer.chats.mapping import Answered
from localinfer.chats.row_file import head_of
from localinfer.chats.rows import Asked, Line, asked_of, logprobs_of, refuse_keys, text_of
from localinfer.chats.template import Message
from localinfer.errors import ContextOverflow, LocalInferError, UsageError

if TYPE_CHECKING:
    from localinfer.engine.protocol import Engine, Tokenizer

KNOWN = {"id", "text", "context", "continuation", "logprobs"}


def understood_score(line: Line, *, limit: int) -> Asked:
    """What `line` wants scored: `text`, or `continuation` behind `context`. As `rows.understood`."""
    return asked_of(line, _meant, limit=limit)


def _meant(row: Mapping[str, Any]) -> dict[str, Any]:
    refuse_keys(row.keys() - KNOWN, KNOWN, "leave them out")
    if ("text" in row) == ("continuation" in row) or ("context" in row) != ("continuation" in row):
        raise UsageError(
            "the line must have either `text`, or `context` and `continuation`", hint='write `{"text": "…"}`'
        )
    texts = ("text",) if "text" in row else ("context", "continuation")
    return {"turns": tuple(Message("user", text_of(row, name)) for name in texts), "logprobs": logprobs_of(row)}


def begin_score(engine: "Engine", asked: Asked, *, special: bool = False, logprobs: int | None = None) -> Answered:
    """What is asked for the scores of a line."""
    from localinfer.engine.request import scoring

    answered = Answered(asked, error=asked.error, shorter="shorten the text, or raise `--ctx-size`")
    if asked.error is None:
        top = logprobs if asked.logprobs is None else asked.logprobs
        answered.wants_scores = top is not None
        try:
            tokens, known = _tokens(engine, [turn.content for turn in asked.turns], special=special)
            answered.request = scoring(tokens, known, top or 0)
        except ContextOverflow as error:
            answered.error = ContextOverflow(error.message, hint=answered.shorter)
        except LocalInferError as error:
            answered.error = error
    return answered


def _tokens(engine: "Engine", texts: list[str], *, special: bool) -> tuple[list[int], int]:
    """The tokens of all texts together, and how many of them are known: those of the first text alone, where it has a
    second, but for one that reaches into it; else the one that the model begins texts with, or the first."""
    chat = Chat(engine, raw=True, special=special)
    tokens = chat.tokens_of("".join(texts))
    return tokens, 1 if len(texts) == 1 else max(1, min(shared(chat.tokens_of(texts[0]), tokens), len(tokens) - 1))


def score_row(answered: Answered, tokenizer: "Tokenizer") -> dict[str, Any]:
    """The row of JSON for one line that was scored: natural logarithms."""
    row = head_of(answered)
    if answered.error is not None:
        return row
    scores = answered.scores
    total = math.fsum(one.logprob for one in scores)
    row |= {"tokens": len(scores), "logprob": total, "perplexity": _perplexity(total, len(scores))}
    row["greedy"] = all(one.rank == 0 for one in scores)
    return row | ({"logprobs": spelled(tokenizer, scores)} if answered.wants_scores else {})


def _perplexity(total: float, tokens: int) -> float | None:
    mean = -total / tokens
    return math.exp(mean) if mean < 700 else None
