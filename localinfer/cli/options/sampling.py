"""The flags for how the next token is chosen. Part of `options`."""

from typing import Annotated, Literal

from localinfer.cli.flags import Count, default_of, flag
from localinfer.config import MOST_TOP, SamplingParams

BIG = (1 << 64) - 1
PER_MODEL = "the model's own, else {}"

MaxTokens = Annotated[
    Count,
    flag(
        "max-tokens",
        "int",
        "Stop after this many new tokens.",
        short="-n",
        low=1,
        high=1 << 20,
        shows="as many as the context holds",
    ),
]
Temp = Annotated[
    float | None,
    flag(
        "temp",
        "float",
        "0 takes the likeliest token; higher is freer.",
        low=0,
        high=100,
        shows=PER_MODEL.format(default_of(SamplingParams, "temperature")),
    ),
]
TopK = Annotated[
    Count,
    flag(
        "top-k",
        "int",
        "Keep the K likeliest tokens; 0 keeps all.",
        low=0,
        high=1 << 22,
        shows=PER_MODEL.format(default_of(SamplingParams, "top_k")),
    ),
]
TopP = Annotated[
    float | None,
    flag(
        "top-p",
        "float",
        "Keep the likeliest tokens that together reach this probability; 1 keeps all.",
        low=0,
        high=1,
        shows=PER_MODEL.format(default_of(SamplingParams, "top_p")),
    ),
]
MinP = Annotated[
    float | None,
    flag(
        "min-p",
        "float",
        "Drop tokens less likely than this share of the likeliest.",
        low=0,
        high=1,
        shows=PER_MODEL.format(default_of(SamplingParams, "min_p")),
    ),
]
RepeatPenalty = Annotated[
    float | None,
    flag(
        "repeat-penalty",
        "float",
        "Make the last 64 tokens (all, if the model asks for a penalty) less likely by this factor; 1 is off.",
        low=0.01,
        high=100,
        shows=PER_MODEL.format(default_of(SamplingParams, "repeat_penalty")),
    ),
]
PresencePenalty = Annotated[
    float | None,
    flag(
        "presence-penalty",
        "float",
        "Make tokens that the answer has already less likely, by this much of the logit.",
        low=-100,
        high=100,
        shows=PER_MODEL.format(default_of(SamplingParams, "presence_penalty")),
    ),
]
FrequencyPenalty = Annotated[
    float | None,
    flag(
        "frequency-penalty",
        "float",
        "The same for each time that the answer has it.",
        low=-100,
        high=100,
        shows=PER_MODEL.format(default_of(SamplingParams, "frequency_penalty")),
    ),
]
DryMultiplier = Annotated[
    float | None,
    flag(
        "dry-multiplier",
        "float",
        "Make tokens that go on with a repetition of the text less likely (DRY), by this much of the logit; 0 is off.",
        low=0,
        high=100,
        shows=PER_MODEL.format(default_of(SamplingParams, "dry_multiplier")),
    ),
]
DryBase = Annotated[
    float | None,
    flag(
        "dry-base",
        "float",
        "How the DRY penalty grows with each token that is repeated.",
        low=1,
        high=100,
        shows=PER_MODEL.format(default_of(SamplingParams, "dry_base")),
    ),
]
DryAllowedLength = Annotated[
    Count,
    flag(
        "dry-allowed-length",
        "int",
        "Repetitions of fewer tokens cost nothing.",
        low=1,
        high=64,
        shows=PER_MODEL.format(default_of(SamplingParams, "dry_allowed_length")),
    ),
]
TopNSigma = Annotated[
    float | None,
    flag(
        "top-n-sigma",
        "float",
        "Keep tokens at most so many standard deviations of the logits below the likeliest; 0 keeps all.",
        low=0,
        high=1000,
        shows=PER_MODEL.format(default_of(SamplingParams, "top_n_sigma")),
    ),
]
TypicalP = Annotated[
    float | None,
    flag(
        "typical-p",
        "float",
        "Keep the tokens that are nearest to typical and together reach this probability; 1 keeps all.",
        low=0,
        high=1,
        shows=PER_MODEL.format(default_of(SamplingParams, "typical_p")),
    ),
]
XtcProbability = Annotated[
    float | None,
    flag(
        "xtc-probability",
        "float",
        "At this share of all positions, drop the likeliest tokens but the last above the threshold (XTC); 0 is off.",
        low=0,
        high=1,
        shows=PER_MODEL.format(default_of(SamplingParams, "xtc_probability")),
    ),
]
XtcThreshold = Annotated[
    float | None,
    flag(
        "xtc-threshold",
        "float",
        "How likely a token must be for XTC to drop it.",
        low=0,
        high=1,
        shows=PER_MODEL.format(default_of(SamplingParams, "xtc_threshold")),
    ),
]
LogitBias = Annotated[
    list[str],
    flag(
        "logit-bias",
        "list",
        "Add this to the logit of a token, named by its number; -100 forbids it. May be repeated.",
        metavar="TOKEN=BIAS",
    ),
]
Logprobs = Annotated[
    Count,
    flag(
        "logprobs",
        "int",
        "Tell the log-likelihood of each token that is written, and of the N likeliest beside it; with JSON only.",
        low=0,
        high=MOST_TOP,
        shows="none",
    ),
]
PoolOf = Annotated[
    Literal["last", "mean"],
    flag(
        "pool",
        "text",
        "What a vector is made of: the last token, or the mean of all.",
        choices=("last", "mean"),
        default="last",
    ),
]
Unscaled = Annotated[bool, flag("unscaled", "flag", "Leave vectors as long as they are.")]
Seed = Annotated[
    Count,
    flag(
        "seed",
        "int",
        "Same seed, same text.",
        low=0,
        high=BIG,
        shows="0; for `run` drawn anew each time, and told by --json and --stats",
    ),
]
Samples = Annotated[
    Count,
    flag(
        "samples",
        "int",
        "Write so many answers together, with seeds one after the other; a line of JSON each with --json.",
        low=1,
        high=64,
        shows="1",
    ),
]
BestOf = Annotated[
    Count,
    flag(
        "best-of",
        "int",
        "Write so many answers together, and show the likeliest: that with the best mean log-likelihood of its tokens.",
        low=1,
        high=64,
        shows="as many as are shown",
    ),
]
Stop = Annotated[list[str], flag("stop", "list", "Stop before this text; may be repeated.")]
