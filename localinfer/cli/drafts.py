"""`--draft`: a way of guessing, or a model that guesses."""

from dataclasses import replace
from difflib import get_close_matches

from localinfer.config import DRAFTS, Draft, EngineConfig
from localinfer.errors import NotFound, UsageError

WAYS: tuple[Draft, ...] = tuple(word for word in DRAFTS if word != "model")


def with_draft(config: EngineConfig, word: str) -> EngineConfig:
    """`config`, guessing as `word` says. A model must be here already. Raises `UsageError` for any other word."""
    way = next((way for way in WAYS if way == word), None)
    if way is not None:
        return replace(config, draft=way, draft_model=None)
    from localinfer.hub.resolve import resolve

    try:
        found = resolve(word, offline=True)
    except (NotFound, UsageError):
        near = get_close_matches(word, WAYS, n=1)
        raise UsageError(
            f"`--draft {word[:60]}` is neither one of {', '.join(WAYS)} nor a model that is here",
            hint=f"did you mean `{near[0]}`?" if near else "`localinfer list` shows what is here",
        ) from None
    if found.kind != "checkpoint":
        raise UsageError(
            f"`{word}` is a GGUF file, and guesses must come bit for bit from the native engine",
            hint=f"make a model of it first: `localinfer import {word}`",
        )
    return replace(config, draft="model", draft_model=found.path)


def ways_of(words: str) -> list[str]:
    """The parts of `off,suffix,auto`, each once."""
    return list(dict.fromkeys(part.strip() for part in words.split(",") if part.strip()))
