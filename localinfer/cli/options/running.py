"""The flags for how the engine runs: context, threads, cache, drafts. Part of `options`."""

from typing import Annotated, Literal

from localinfer.cli.flags import Count, default_of, flag
from localinfer.config import MOST_DRAFTS, EngineConfig

CtxSize = Annotated[
    Count,
    flag(
        "ctx-size",
        "int",
        "Longest conversation, in tokens.",
        short="-c",
        low=1,
        high=1 << 20,
        shows="the model's own limit, at most 8192",
    ),
]
Threads = Annotated[
    Count,
    flag(
        "threads",
        "int",
        "Worker threads.",
        short="-t",
        low=1,
        high=256,
        shows="at most one per physical core",
    ),
]
KvBits = Annotated[
    Literal["16", "8", "4"],
    flag("kv-bits", "text", "Bits of each cached key and value.", choices=("16", "8", "4"), default="8"),
]
Backend = Annotated[
    Literal["auto", "cpu", "cuda", "llamacpp"],
    flag(
        "backend",
        "text",
        "Where it runs. `auto` is an NVIDIA card that has passed its test, else the processor; the text is the same. "
        "`llamacpp` runs GGUF files and is never chosen by itself.",
        choices=("auto", "cpu", "cuda", "llamacpp"),
        default="auto",
    ),
]
Draft = Annotated[
    str,
    flag(
        "draft",
        "text",
        "Who guesses ahead: auto, off, suffix, lookup, early, head, mtp, or a model with the same tokenizer. The text "
        "stays the same. For `bench` several, with commas; there the default is off.",
        default=default_of(EngineConfig, "draft"),
        metavar="WAY|MODEL",
    ),
]
Minutes = Annotated[
    float,
    flag(
        "minutes",
        "float",
        "Time for all of it: letting the model write, reading that, learning and judging.",
        low=0.05,
        high=10000,
        default=10.0,
    ),
]
DraftKind = Annotated[
    Literal["head", "early"],
    flag(
        "kind",
        "text",
        "What to make: a head on the model's last layer, or an exit after its first third.",
        choices=("head", "early"),
        default="head",
    ),
]
Texts = Annotated[bool, flag("texts", "flag", "Delete the earlier texts that are kept to guess from, too.")]
ShowDrafts = Annotated[
    bool,
    flag("show-drafts", "flag", "Tint each token by who guessed it, and count them at the end. Terminals only."),
]
NoRemember = Annotated[
    bool,
    flag(
        "no-remember",
        "flag",
        "Keep neither tokens of this text to guess from later (`localinfer draft rm --texts` deletes those of earlier "
        "ones) nor its keys and values.",
    ),
]
DraftTokens = Annotated[
    int,
    flag(
        "draft-tokens",
        "int",
        "Most tokens guessed ahead in one step.",
        low=1,
        high=MOST_DRAFTS,
        default=default_of(EngineConfig, "draft_tokens"),
    ),
]
KvDisk = Annotated[
    float,
    flag(
        "kv-disk",
        "float",
        "Gigabytes of keys and values of earlier texts to keep on disk, privately, so that they need not be read anew; "
        "0 keeps none, as does `--no-remember`. `localinfer cache prune` deletes them.",
        low=0,
        high=1000,
        default=4.0,
    ),
]
KvTokens = Annotated[
    int | None,
    flag(
        "kv-tokens",
        "int",
        "Tokens that the KV cache holds for all texts together; each may use them all, up to its context.",
        low=1,
        high=1 << 24,
        shows="the context for each text, for four at the most",
    ),
]
LatencyGoal = Annotated[
    int,
    flag(
        "latency-goal",
        "int",
        "Milliseconds that a step may take while an answer is written; prompts of others are read in pieces that fit.",
        low=1,
        high=60_000,
        default=default_of(EngineConfig, "latency_goal_ms"),
    ),
]
PrefillChunk = Annotated[
    int,
    flag(
        "prefill-chunk",
        "int",
        "Prompt tokens read in one step.",
        low=1,
        high=4096,
        default=default_of(EngineConfig, "prefill_chunk"),
    ),
]
Experts = Annotated[
    Literal["auto", "resident", "mapped"],
    flag(
        "experts",
        "text",
        "Where a mixture's experts are: all in memory, or packed in a file, of which memory has as many as it has room "
        "for. `auto` maps what does not fit. The text is the same; `localinfer cache prune` deletes the file.",
        choices=("auto", "resident", "mapped"),
        default="auto",
    ),
]
OnOverflow = Annotated[
    Literal["error", "shift"],
    flag(
        "on-overflow",
        "text",
        "When the context is full: stop with exit code 8, or forget the oldest text and say so.",
        choices=("error", "shift"),
        default="error",
    ),
]
