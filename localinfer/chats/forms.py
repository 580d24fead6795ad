"""The form that an answer keeps, for one prompt: it begins behind the reasoning of a model that thinks."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from localinfer.chats.thinking import CLOSING, OPENING
from localinfer.errors import NotSupported
from localinfer.formats.channels import CHANNEL, FINAL, MESSAGE, START

if TYPE_CHECKING:
    from localinfer.engine.grammar import Constraint, Grammar, Marks
    from localinfer.engine.protocol import Engine


def constraint_of(
    grammar: "Grammar | None",
    engine: "Engine",
    prompt: Sequence[int],
    *,
    raw: bool = False,
    budget: int | None = None,
) -> "Constraint | None":
    """`grammar`, read for the answer to `prompt`, with at most `budget` tokens of reasoning; None where nothing is to
    be kept. `raw` prompts have no reasoning behind them. Raises `UsageError` for one that cannot be kept, before
    anything is computed."""
    from localinfer.engine.grammar import read

    if grammar is None and budget is None:
        return None
    if budget is not None and speaks_in_channels(engine):
        raise NotSupported(
            "a budget of thinking is not possible with a model that answers in channels",
            hint="leave it out, or use another model",
        )
    marks = None if raw else _marks(engine, prompt)
    if budget is not None and marks is None and not raw and thinks(engine, prompt) is not None:
        raise NotSupported(f"`{CLOSING}` is no token of this model's, so its reasoning cannot be ended")
    if grammar is None and marks is None:
        return None  # it does not think, or does not mark it
    return read(grammar, engine.tokenizer, marks, budget)


def thinks(engine: "Engine", prompt: Sequence[int]) -> bool | None:
    """Whether the answer to this prompt begins inside its reasoning; None for a model that does not mark reasoning."""
    if speaks_in_channels(engine):
        return False
    if CLOSING not in (engine.chat_template or ""):
        return None
    return _end_of(engine, prompt).endswith(OPENING)


def speaks_in_channels(engine: "Engine") -> bool:
    """Whether answers are messages in channels (harmony)."""
    return CHANNEL in engine.tokenizer.special_strings and MESSAGE in engine.tokenizer.special_strings


def _marks(engine: "Engine", prompt: Sequence[int]) -> "Marks | None":
    from localinfer.engine.grammar import Marks

    if speaks_in_channels(engine):
        header, text = (engine.tokenizer.encode_rendered(mark) for mark in (f"{CHANNEL}{FINAL}", MESSAGE))
        message = _end_of(engine, prompt).rpartition(START)[2]
        within = MESSAGE in message and message.partition(CHANNEL)[2].startswith(FINAL)
        return None if within else Marks(None, text[0], begun=True, final=tuple(header))
    begun = thinks(engine, prompt)
    if begun is None:
        return None
    opening, closing = (engine.tokenizer.encode_rendered(mark) for mark in (OPENING, CLOSING))
    if len(closing) != 1:
        if begun:
            raise NotSupported(f"`{CLOSING}` is no token of this model's, so its reasoning has no end to look for")
        return None
    closed = _end_of(engine, prompt).endswith(CLOSING)  # a template's way of saying that there is to be no reasoning
    return Marks(opening[0] if len(opening) == 1 and not closed else None, closing[0], begun)


def _end_of(engine: "Engine", prompt: Sequence[int]) -> str:
    return engine.tokenizer.decode(prompt[-16:], specials=True).rstrip()
