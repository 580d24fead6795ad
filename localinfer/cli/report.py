"""What a run was like: the object of `run --json` and the line of `--stats`."""

from typing import TYPE_CHECKING, Any

from localinfer.events import Stats

if TYPE_CHECKING:
    from localinfer.chats.chat import Chat
    from localinfer.cli.answer import Reply
    from localinfer.cli.opening import Opened


def as_json(opened: "Opened", chat: "Chat", reply: "Reply") -> dict[str, Any]:
    """The object of `run --json`; what is not known is null. Keys may be added, none goes away."""
    from localinfer.bench.rows import output_hash

    info, model, stats = opened.engine.info, opened.model, reply.stats
    return {
        "model": model.ref,
        "revision": model.revision,
        "bits": info.bits,
        "text": "".join(reply.text),
        "token_ids": reply.token_ids,
        "finish_reason": reply.finish_reason,
        "prompt_tokens": stats.prompt_tokens if stats else None,
        "completion_tokens": len(reply.token_ids),
        "timings": {
            "load_s": opened.load_s,
            "ttft_s": stats.ttft_s if stats else None,
            "prefill_tok_s": stats.prefill_tok_s if stats else None,
            "decode_tok_s": stats.decode_tok_s if stats else None,
            "total_s": stats.total_s if stats else None,
        },
        "speculation": _speculation(stats),
        "energy": {"joules": reply.joules, "source": "none" if reply.joules is None else "rapl"},
        "cost": _cost(reply.joules),
        "engine": {
            "backend": info.backend,
            "isa": info.isa,
            "threads": info.threads,
            "kv_bits": info.kv_bits,
            "kv_8_bit_layers": [i for i, bits in enumerate(info.kv_layers) if info.kv_bits < bits],
            "seed": chat.sampling.seed,
        },
        "output_hash": output_hash(reply.token_ids),
    }


def _speculation(stats: Stats | None) -> dict[str, Any]:
    """Speedup is against the time that the same tokens would have taken without drafts, by the step times here."""
    if stats is None or stats.drafting is None:
        return {"drafter": None, "drafted": None, "accepted": None, "steps": None, "speedup": None}
    return {
        "drafter": stats.drafting.mode,
        "drafted": stats.drafted,
        "accepted": stats.accepted,
        "steps": stats.steps,
        "speedup": stats.drafting.speedup,
    }


def _cost(joules: float | None) -> dict[str, Any]:
    from localinfer.cost.prices import electricity

    usd = None if joules is None else electricity(joules).usd
    return {"electricity_usd": usd, "hardware_usd": None, "api_usd": None, "api_model": None}


def as_line(opened: "Opened", stats: Stats, joules: float | None) -> str:
    """The figures of `--stats` for a person."""
    parts = [
        f"load {opened.load_s:.2f} s",
        f"prompt {stats.prompt_tokens} tokens{_speed(stats.prefill_tok_s)}",
        f"first token {stats.ttft_s:.2f} s" if stats.ttft_s is not None else "no token",
        f"answer {stats.completion_tokens} tokens{_speed(stats.decode_tok_s)}",
        f"context {stats.context_used} of {stats.context_size}",
        f"total {stats.total_s:.2f} s",
    ]
    if joules is not None:
        parts.append(f"{joules:.1f} J")
    if stats.drafting is not None:
        parts.insert(4, f"drafts {stats.drafting.mode} {stats.accepted} of {stats.drafted} kept")
    return "; ".join(parts)


def _speed(tok_s: float | None) -> str:
    return f" at {tok_s:.1f}/s" if tok_s is not None else ""
