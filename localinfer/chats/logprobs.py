"""Scores of tokens as OpenAI spells them."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from localinfer.events import Scored

if TYPE_CHECKING:
    from localinfer.engine.protocol import Tokenizer


def spelled(tokenizer: "Tokenizer", scores: Iterable[Scored]) -> list[dict[str, Any]]:
    """Each token with its score and those of the likeliest beside it."""
    return [
        _row(tokenizer, one.token, one.logprob)
        | {"top_logprobs": [_row(tokenizer, token, logprob) for token, logprob in one.top]}
        for one in scores
    ]


def _row(tokenizer: "Tokenizer", token: int, logprob: float) -> dict[str, Any]:
    spelling = tokenizer.token_bytes(token, specials=True)
    return {"token": spelling.decode("utf-8", "replace"), "logprob": logprob, "bytes": list(spelling)}
