"""What a run was like: the object of `run --json` and the line of `--stats`."""

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from localinfer.chats.saying import Said, Saying
from localinfer.errors import LocalInferError, size
from localinfer.events import Drafting, Scored, Stats, gain_in_words

if TYPE_CHECKING:
    from localinfer.chats.chat import Chat
    from localinfer.config import SamplingParams
    from localinfer.cost.bill import Bill
    from localinfer.cost.energy import Meter
    from localinfer.engine.load import Load
    from localinfer.loading.opening import Opened


@dataclass(slots=True)
class Reply:
    """What has been said so far. `joules` is what it took, where that can be read."""

    meter: "Meter | None"
    joules: float | None = None
    text: list[str] = field(default_factory=list)
    token_ids: list[int] = field(default_factory=list)
    scores: list[Scored] = field(default_factory=list)
    """Of the tokens, where they were asked for."""
    finish_reason: str = "cancelled"
    stop: str | None = None
    """The stop string that ended it."""
    stats: Stats | None = None
    error: LocalInferError | None = None

    apart: Saying | None = None
    """What tells thinking from the answer; None: all is the answer."""
    reasoning: list[str] = field(default_factory=list)
    thinking_tokens: int = 0
    """Up to the mark that ends it."""
    thinking_s: float = 0.0
    _began: float = 0.0

    def take(self, text: str, token_ids: Sequence[int]) -> Said:
        """The next piece of what the model says; returns what of it is sure."""
        self.token_ids += token_ids
        if self.apart is None:
            self.text.append(text)
            return Said(text)
        inside = self.apart.reasons
        self._began = self._began or time.monotonic()
        said = self._keep(self.apart.push(text))
        if inside or self.apart.reasons or said.reasoning:
            self.thinking_tokens, self.thinking_s = len(self.token_ids), time.monotonic() - self._began
        return said

    def rest(self) -> Said:
        """What was held back, at the end."""
        return self._keep(self.apart.finish()) if self.apart is not None else Said()

    def _keep(self, said: Said) -> Said:
        self.text += [said.content] * bool(said.content)
        self.reasoning += [said.reasoning] * bool(said.reasoning)
        return said

    @property
    def is_all_thinking(self) -> bool:
        """Whether nothing came behind it."""
        return bool(self.thinking_tokens) and not any(self.text)

    def read_meter(self) -> None:
        """Keep the joules so far; asked for often, since the counters wrap."""
        self.joules = self.meter.joules() if self.meter else None


def as_json(
    opened: "Opened", chat: "Chat", reply: Reply, bill: "Bill", *, sampling: "SamplingParams | None" = None
) -> dict[str, Any]:
    """The object of `run --json`; what is not known is null. Keys may be added, none goes away. `sampling` is the
    answer's, where it is not the chat's."""
    from localinfer.chats.logprobs import spelled
    from localinfer.events import output_hash

    info, model, stats = opened.engine.info, opened.model, reply.stats
    sampling = sampling or chat.sampling
    return {
        "model": model.ref,
        "revision": model.revision,
        "bits": info.bits,
        "text": "".join(reply.text),
        "reasoning": None if reply.apart is None else "".join(reply.reasoning),
        "token_ids": reply.token_ids,
        "logprobs": None if chat.logprobs is None else spelled(opened.engine.tokenizer, reply.scores),
        "finish_reason": reply.finish_reason,
        "stop": reply.stop,
        "prompt_tokens": stats.prompt_tokens if stats else None,
        "completion_tokens": len(reply.token_ids),
        "thinking_tokens": reply.thinking_tokens,
        "jumped_tokens": stats.jumped if stats else None,
        "timings": {
            "load_s": opened.load_s,
            "ttft_s": stats.ttft_s if stats else None,
            "prefill_tok_s": stats.prefill_tok_s if stats else None,
            "decode_tok_s": stats.decode_tok_s if stats else None,
            "thinking_s": reply.thinking_s,
            "total_s": stats.total_s if stats else None,
        },
        "sampling": asdict(sampling),
        "speculation": _speculation(stats),
        "energy": {"joules": bill.joules, "source": bill.source},
        "cost": {
            "electricity_usd": bill.electricity_usd,
            "hardware_usd": bill.hardware_usd,
            "api_usd": bill.api_usd,
            "api_model": bill.api_model,
        },
        "engine": {
            "backend": info.backend,
            "isa": info.isa,
            "threads": info.threads,
            "kv_bits": info.kv_bits,
            "kv_8_bit_layers": [i for i, bits in enumerate(info.kv_layers) if info.kv_bits < bits],
            "seed": sampling.seed,
        },
        "experts": _experts(opened),
        "output_hash": output_hash(reply.token_ids),
    }


def _experts(opened: "Opened") -> dict[str, Any] | None:
    """Of experts that stay in a file, how many bytes are held, and what was read since the model was opened."""
    load = opened.engine.load()
    if not load.experts_bytes:
        return None
    return {
        "bytes": load.experts_bytes,
        "held_bytes": load.experts_held,
        "wanted": load.experts_wanted,
        "missed": load.experts_missed,
        "read_bytes": load.experts_read,
    }


def experts_in_words(load: "Load") -> str:
    """The same for a person; empty where all weights are in memory."""
    if not load.experts_bytes:
        return ""
    held = f"{size(load.experts_held)} of {size(load.experts_bytes)} held"
    return f"experts {held}, {load.experts_hit:.0%} of those wanted; {size(load.experts_read)} read"


def _speculation(stats: Stats | None) -> dict[str, Any]:
    """Speedup is against the time that the same tokens would have taken without drafts, by the step times here."""
    names = ("drafter", "drafted", "accepted", "steps", "speedup", "saved_s", "by_drafter", "by_position", "off")
    if stats is None or stats.drafting is None:
        return dict.fromkeys(names)
    drafting = stats.drafting
    return {
        "drafter": drafting.mode,
        "drafted": stats.drafted,
        "accepted": stats.accepted,
        "steps": stats.steps,
        "speedup": drafting.speedup,
        "saved_s": drafting.saved_s,
        "by_drafter": {one.drafter: {"drafted": one.tried, "accepted": one.right} for one in drafting.by_drafter},
        "by_position": [{"drafted": tried, "accepted": right} for tried, right in drafting.by_position],
        "off": drafting.off or None,
    }


def as_line(opened: "Opened", stats: Stats, seed: int, thinking_tokens: int = 0, thinking_s: float = 0.0) -> str:
    """The figures of `--stats` for a person."""
    parts = [
        f"load {opened.load_s:.2f} s",
        f"prompt {stats.prompt_tokens} tokens{_speed(stats.prefill_tok_s)}",
        f"first token {stats.ttft_s:.2f} s" if stats.ttft_s is not None else "no token",
        f"answer {stats.completion_tokens} tokens{_speed(stats.decode_tok_s)}",
        f"context {stats.context_used} of {stats.context_size}",
        f"total {stats.total_s:.2f} s",
        f"seed {seed}",
    ]
    if thinking_tokens:
        parts.insert(4, f"of them thinking {thinking_tokens} tokens in {thinking_s:.2f} s")
    if stats.drafting is not None:
        parts.insert(4, drafts_in_words(stats.drafting))
    if experts := experts_in_words(opened.engine.load()):
        parts.append(experts)
    return "; ".join(parts)


def drafts_in_words(drafting: Drafting) -> str:
    """`x1.42 vs plain, 3.1 s saved (suffix 41 of 60 kept)`, or why there were none."""
    if not drafting.by_drafter:
        return f"drafts {drafting.mode}: none" + (f", {drafting.off}" if drafting.off else "")
    accepted = ", ".join(f"{one.drafter} {one.right} of {one.tried} kept" for one in drafting.by_drafter)
    return f"{gain_in_words(drafting)} ({accepted})"


def _speed(tok_s: float | None) -> str:
    return f" at {tok_s:.1f}/s" if tok_s is not None else ""
