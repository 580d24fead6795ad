"""What an engine says while it works. Plain data: the terminal, the app and the JSON output all read these."""

import hashlib
import struct
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from localinfer.errors import LocalInferError

FinishReason = Literal["stop", "length", "overflow", "cancelled", "error"]
Phase = Literal["queued", "prefill", "decode", "preempted"]
OnProgress = Callable[[str, int, int], None]
"""Called while something takes long: with what is done, how much of it, and how much there is (0: not known)."""


@dataclass(frozen=True, slots=True)
class Speed:
    """How fast a long job goes, in `unit` a second, and the seconds to its end; None where nobody knows."""

    per_second: float
    seconds_left: float | None
    unit: str = ""


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
    computed: int
    """Of them, those that this step has computed: others were found in the cache, or computed before."""


@dataclass(frozen=True, slots=True)
class Scored:
    """How likely the model held a token to be: natural logarithms of its own likelihoods, before biases, penalties,
    the temperature and cuts."""

    token: int
    logprob: float
    rank: int
    """So many tokens were likelier."""
    top: tuple[tuple[int, float], ...] = ()
    """The likeliest tokens, as many as were asked for, and the same of each."""


@dataclass(frozen=True, slots=True)
class Text:
    """New text, whole characters only. Empty while a character or a stop string may still be incomplete."""

    handle: int
    text: str
    token_ids: tuple[int, ...]
    drafter: str | None = None
    """Who guessed this token, if a guess was right; None for tokens that nobody guessed."""
    score: Scored | None = None
    """Of this token, where it was asked for."""


@dataclass(frozen=True, slots=True)
class Shifted:
    """The context was full and `--on-overflow shift` is on: the oldest `dropped` tokens were forgotten."""

    handle: int
    dropped: int
    kept: int


@dataclass(frozen=True, slots=True)
class Guesses:
    """What one drafter has guessed of a request: tokens tried, and of them right."""

    drafter: str
    tried: int
    right: int


@dataclass(frozen=True, slots=True)
class Drafting:
    """What drafts have done for a request so far."""

    mode: str
    """As asked for: `auto`, or a drafter's name."""
    by_drafter: tuple[Guesses, ...] = ()
    by_position: tuple[tuple[int, int], ...] = ()
    """For the first, second, … token of a draft: how often it was tried, and how often it was right."""
    plain_s: float = 0.0
    """Seconds that generating the same tokens would have taken without drafts, by the step times of this machine."""
    spent_s: float = 0.0
    """Seconds that it took."""
    off: str = ""
    """Why nothing is drafted now; empty while something is."""

    @property
    def saved_s(self) -> float:
        return self.plain_s - self.spent_s

    @property
    def speedup(self) -> float | None:
        """How many times as fast as without drafts; None before the first token."""
        return self.plain_s / self.spent_s if self.spent_s > 0 else None


def gain_in_words(drafting: Drafting) -> str:
    """`x1.42 vs plain, 3.1 s saved`; the seconds only where there is a tenth of one."""
    saved = drafting.saved_s
    seconds = f", {abs(saved):.1f} s {'saved' if saved > 0 else 'lost'}" if abs(saved) >= 0.05 else ""
    return f"x{drafting.speedup or 1:.2f} vs plain{seconds}"


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
    """Tokens after those of the first step, over the time since that step ended."""
    recent_tok_s: float | None = None
    itl_s: float | None = None
    """Seconds a token, of the last few hundred steps: their time over the tokens that landed."""
    itl_p99_s: float | None = None
    """Seconds a token that one token in a hundred exceeds; a token takes its share of its step."""
    total_s: float = 0.0
    drafted: int = 0
    accepted: int = 0
    jumped: int = 0
    """Tokens that the form of the answer left no choice of, computed together with the one before them."""
    steps: int = 0
    drafting: Drafting | None = None
    """None where drafts are off."""


@dataclass(frozen=True, slots=True)
class Finished:
    """The request is over. `token_ids` are all generated tokens, the end-of-turn token not among them."""

    handle: int
    reason: FinishReason
    token_ids: tuple[int, ...]
    stats: Stats
    stop: str | None = field(default=None)
    """The stop string that ended it, if one did."""
    error: LocalInferError | None = field(default=None)
    """What went wrong, with the reason `error`; the tokens before it stand."""
    vector: tuple[float, ...] | None = field(default=None)
    """Of the text, where that was asked for; not of unit length."""

    def raise_error(self) -> None:
        """Raise what went wrong, if something did."""
        if self.error is not None:
            raise self.error


Event = Started | Progress | Text | Shifted | Stats | Finished


def output_hash(token_ids: Sequence[int]) -> str:
    """16 hex digits of the sha256 of the ids as little-endian 32-bit integers."""
    return hashlib.sha256(struct.pack(f"<{len(token_ids)}i", *token_ids)).hexdigest()[:16]


def tokens_of(events: Iterable[Event]) -> list[int]:
    """The new tokens in these events of one request. Raises what went wrong, if something did."""
    found: list[int] = []
    for event in events:
        if isinstance(event, Text):
            found += event.token_ids
        elif isinstance(event, Finished):
            event.raise_error()
    return found
