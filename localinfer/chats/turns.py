"""A prompt or an answer as it is kept: its text, how it ended, who wrote it, and which variant it is."""

import json
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal

from localinfer.chats.template import Message
from localinfer.events import FinishReason, Stats

Role = Literal["user", "assistant"]

Ending = FinishReason | Literal["error", "writing", "copied"]
"""How a text ended. `writing` is kept while it is written; found later, it says that the program was killed.
`copied` is a copy of one that was being written."""

CUT_OFF: dict[str, str] = {
    "length": "the limit of new tokens was reached",
    "overflow": "the context was full",
    "cancelled": "stopped",
    "error": "an error ended it",
    "writing": "the program ended while it was written",
    "copied": "copied while it was written",
}
"""Endings that leave an answer incomplete, in words."""


@dataclass(frozen=True, slots=True)
class Figures:
    """What an answer took. Seconds and tokens; 0 or None where it is not known."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    total_s: float = 0.0
    ttft_s: float | None = None
    decode_s: float = 0.0
    """Seconds spent on the tokens after the first."""
    attempt: int = 0
    """By how much its seed differs from the one asked for."""

    @property
    def tok_s(self) -> float | None:
        """Tokens a second once the first was there."""
        return self.completion_tokens / self.decode_s if self.decode_s else None

    def and_then(self, more: "Figures") -> "Figures":
        """Of an answer that was gone on with."""
        return Figures(
            self.prompt_tokens,
            self.completion_tokens + more.completion_tokens,
            self.total_s + more.total_s,
            self.ttft_s,
            self.decode_s + more.decode_s,
            self.attempt,
        )

    def to_json(self) -> str:
        return json.dumps({name: value for name, value in asdict(self).items() if value})

    @property
    def stats(self) -> Stats:
        """The same as the engine says it; 0 or None for what is not kept."""
        tokens, speed = self.completion_tokens, self.tok_s
        return Stats(
            *(0, "decode", self.prompt_tokens, 0, tokens, 0, 0),
            ttft_s=self.ttft_s,
            decode_tok_s=speed,
            total_s=self.total_s,
        )

    @classmethod
    def of(cls, stats: Stats, attempt: int) -> "Figures":
        tokens, speed = stats.completion_tokens, stats.decode_tok_s
        decode_s = tokens / speed if speed else 0.0
        return cls(stats.prompt_tokens, tokens, stats.total_s, stats.ttft_s, decode_s, attempt)

    @classmethod
    def from_json(cls, text: str | None) -> "Figures | None":
        """None for what is missing or not ours."""
        try:
            values = json.loads(text or "")
            known = {field.name for field in fields(cls)}
            stored: dict[str, Any] = {
                name: value for name, value in values.items() if name in known and isinstance(value, int | float)
            }
            return cls(**stored)
        except (ValueError, AttributeError, TypeError):
            return None


@dataclass(frozen=True, slots=True)
class SavedTurn:
    """One message of the branch that is shown."""

    role: Role
    content: str
    id: int | None = None
    """Its number in the store; None if it could not be saved."""
    ending: Ending = "stop"
    variant: int = 1
    """Counted from 1, of those that answer the same prompt or follow the same answer."""
    variants: int = 1
    model: str = ""
    """Who answered; empty where it is not known."""
    system: str | None = None
    """The system prompt that was in force."""
    created: float = 0.0
    """Seconds since 1970."""
    tokens: tuple[int, ...] = ()
    """Ids of an answer that was cut off, so that it can be gone on with to the token."""
    figures: Figures | None = None
    elsewhere: bool = False
    """Is another process writing it now?"""

    @property
    def message(self) -> Message:
        return Message(self.role, self.content)

    @property
    def cut_off(self) -> str:
        """Why the answer is not whole; empty for one that is or is being written, and for prompts."""
        return CUT_OFF.get(self.ending, "") if self.role == "assistant" and not self.elsewhere else ""


def as_held(turns: "tuple[SavedTurn, ...]") -> "tuple[SavedTurn, ...]":
    """Turns of a chat into which another process writes: the last answer may be unfinished because of that."""
    if not turns or turns[-1].ending != "writing":
        return turns
    return (*turns[:-1], replace(turns[-1], elsewhere=True))


def contents(turns: "tuple[SavedTurn, ...]") -> list[str]:
    """The texts alone."""
    return [turn.content for turn in turns]
