"""What an engine says while it works. Plain data: the terminal, the app and the JSON output all read these."""

from dataclasses import dataclass, field
from typing import Literal

FinishReason = Literal["stop", "length", "overflow", "cancelled"]
Phase = Literal["queued", "prefill", "decode"]


@dataclass(frozen=True, slots=True)
class Started:
    """The request was accepted; nothing has been computed yet."""

    handle: int
    prompt_tokens: int
    context_size: int


@dataclass(frozen=True, slots=True)
class Progress:
    """Prefill moved on: `done` of `total` prompt tokens are in the KV cache."""

    handle: int
    done: int
    total: int


@dataclass(frozen=True, slots=True)
class Text:
    """New text, whole characters only. Empty while a character or a stop string may still be incomplete."""

    handle: int
    text: str
    token_ids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Shifted:
    """The context was full and `--on-overflow shift` is on: the oldest `dropped` tokens were forgotten."""

    handle: int
    dropped: int
    kept: int


@dataclass(frozen=True, slots=True)
class Stats:
    """How a request is doing. Times in seconds, speeds in tokens/s; `None` until known."""

    handle: int
    phase: Phase
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    context_used: int
    context_size: int
    queued_s: float = 0.0
    ttft_s: float | None = None
    prefill_tok_s: float | None = None
    decode_tok_s: float | None = None
    recent_tok_s: float | None = None
    total_s: float = 0.0
    drafter: str | None = None
    drafted: int = 0
    accepted: int = 0
    steps: int = 0


@dataclass(frozen=True, slots=True)
class Finished:
    """The request is over. `token_ids` are all generated tokens, the end-of-turn token not among them."""

    handle: int
    reason: FinishReason
    token_ids: tuple[int, ...]
    stats: Stats
    stop: str | None = field(default=None)
    """The stop string that ended it, if one did."""


Event = Started | Progress | Text | Shifted | Stats | Finished
