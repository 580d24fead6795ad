"""Frozen, checked settings. Each field's docstring is its manual."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from localinfer.errors import UsageError

KvBits = Literal[16, 8]
Overflow = Literal["error", "shift"]


def in_range(name: str, value: float, low: float, high: float) -> None:
    """Raise `UsageError` unless `low <= value <= high` (NaN fails too)."""
    if not low <= value <= high:
        raise UsageError(f"{name} is {value}, but must lie between {low} and {high}", hint=f"choose another {name}")


def one_of(name: str, value: object, allowed: Sequence[object]) -> None:
    """Raise `UsageError` unless `value` is one of `allowed`."""
    if value not in allowed:
        words = ", ".join(map(str, allowed))
        raise UsageError(f"{name} is {value!r}, but must be one of {words}", hint=f"choose another {name}")


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineConfig:
    """How one engine runs."""

    context: int | None = None
    """Longest conversation kept, in tokens. Unset: the model's own limit, at most 8192."""

    parallel: int = 1
    """How many sequences may run at once; the KV cache holds `context` tokens for each."""

    kv_bits: KvBits = 8
    """Bits of each key and value in the cache."""

    threads: int | None = None
    """Worker threads. Unset: one per physical core."""

    prefill_chunk: int = 256
    """Prompt tokens handled in one step. Smaller keeps other replies flowing; larger reads faster."""

    isa: str = ""
    """Kernel set (`scalar`, `avx2`, `avx512`). Empty: `LOCALINFER_ISA`, else the best one here."""

    draft: Literal["off", "lookup"] = "off"
    """Who guesses ahead. `lookup` copies long repeats of the text so far; the text is the same either way."""

    draft_tokens: int = 7
    """Most tokens guessed ahead in one step."""

    def __post_init__(self) -> None:
        if self.context is not None:
            in_range("context", self.context, 1, 1 << 20)
        in_range("parallel", self.parallel, 1, 64)
        one_of("kv-bits", self.kv_bits, (16, 8))
        if self.threads is not None:
            in_range("threads", self.threads, 1, 256)
        in_range("prefill-chunk", self.prefill_chunk, 1, 4096)
        one_of("draft", self.draft, ("off", "lookup"))
        in_range("draft-tokens", self.draft_tokens, 1, 15)


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingParams:
    """How the next token is chosen, and when to stop."""

    temperature: float = 0.7
    """0 takes the likeliest token; higher is freer."""

    top_k: int = 40
    """Keep the k likeliest tokens. 0 keeps all."""

    top_p: float = 0.95
    """Keep the likeliest tokens that together reach this probability. 1 keeps all."""

    min_p: float = 0.0
    """Drop tokens less likely than this share of the likeliest."""

    repeat_penalty: float = 1.0
    """Divide the logits of tokens seen in the last 64 by this (multiply when negative). 1 is off."""

    seed: int = 0
    """Same seed, same text."""

    max_tokens: int | None = None
    """Stop after this many new tokens. Unset: as many as the context holds."""

    stop: tuple[str, ...] = ()
    """Stop before any of these strings."""

    ignore_eos: bool = False
    """Go on after the end-of-turn token; for benchmarks."""

    def __post_init__(self) -> None:
        in_range("temp", self.temperature, 0.0, 100.0)
        in_range("top-k", self.top_k, 0, 1 << 22)
        in_range("top-p", self.top_p, 0.0, 1.0)
        in_range("min-p", self.min_p, 0.0, 1.0)
        in_range("repeat-penalty", self.repeat_penalty, 0.01, 100.0)
        in_range("seed", self.seed, 0, (1 << 64) - 1)
        if self.max_tokens is not None:
            in_range("max-tokens", self.max_tokens, 1, 1 << 20)
        if any(not s for s in self.stop):
            raise UsageError("a stop string is empty", hint="leave it out, or give it some text")
