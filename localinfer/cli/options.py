"""Every flag, described once. The help pages, the environment, the settings file and the completions read this table.

Commands take the aliases below as annotations; `command.Command` fills them with values that are already merged and
checked, so a command sees an `int` and never the word it was typed as. Long because it is one table.
"""

from typing import Annotated, Literal

from localinfer.cli.flags import SETTINGS as SETTINGS
from localinfer.cli.flags import Count, default_of, flag
from localinfer.cli.options_forms import Adapter as Adapter
from localinfer.cli.options_forms import InColumn as InColumn
from localinfer.cli.options_forms import JsonObject as JsonObject
from localinfer.cli.options_forms import Regex as Regex
from localinfer.cli.options_forms import Rules as Rules
from localinfer.cli.options_forms import Schema as Schema
from localinfer.cli.options_sampling import BestOf as BestOf
from localinfer.cli.options_sampling import DryAllowedLength as DryAllowedLength
from localinfer.cli.options_sampling import DryBase as DryBase
from localinfer.cli.options_sampling import DryMultiplier as DryMultiplier
from localinfer.cli.options_sampling import FrequencyPenalty as FrequencyPenalty
from localinfer.cli.options_sampling import LogitBias as LogitBias
from localinfer.cli.options_sampling import Logprobs as Logprobs
from localinfer.cli.options_sampling import MaxTokens as MaxTokens
from localinfer.cli.options_sampling import MinP as MinP
from localinfer.cli.options_sampling import PoolOf as PoolOf
from localinfer.cli.options_sampling import PresencePenalty as PresencePenalty
from localinfer.cli.options_sampling import RepeatPenalty as RepeatPenalty
from localinfer.cli.options_sampling import Samples as Samples
from localinfer.cli.options_sampling import Seed as Seed
from localinfer.cli.options_sampling import Stop as Stop
from localinfer.cli.options_sampling import Temp as Temp
from localinfer.cli.options_sampling import TopK as TopK
from localinfer.cli.options_sampling import TopNSigma as TopNSigma
from localinfer.cli.options_sampling import TopP as TopP
from localinfer.cli.options_sampling import TypicalP as TypicalP
from localinfer.cli.options_sampling import Unscaled as Unscaled
from localinfer.cli.options_sampling import XtcProbability as XtcProbability
from localinfer.cli.options_sampling import XtcThreshold as XtcThreshold
from localinfer.cli.options_serve import AllowHost as AllowHost
from localinfer.cli.options_serve import AllowOrigin as AllowOrigin
from localinfer.cli.options_serve import ApiKeyFile as ApiKeyFile
from localinfer.cli.options_serve import Endpoint as Endpoint
from localinfer.cli.options_serve import EndpointKeyEnv as EndpointKeyEnv
from localinfer.cli.options_serve import EndpointModel as EndpointModel
from localinfer.cli.options_serve import Host as Host
from localinfer.cli.options_serve import Keep as Keep
from localinfer.cli.options_serve import NoServer as NoServer
from localinfer.cli.options_serve import Port as Port
from localinfer.cli.options_serve import Queue as Queue
from localinfer.cli.options_thinking import NoThink as NoThink
from localinfer.cli.options_thinking import ShowThinking as ShowThinking
from localinfer.cli.options_thinking import Think as Think
from localinfer.config import MOST_DRAFTS, EngineConfig

# What to run
Model = Annotated[
    str | None, flag("model", "text", "The model, when it is not the first argument.", short="-m", shows="starter")
]
Prompt = Annotated[str | None, flag("prompt", "text", "The prompt, when it is not an argument.", short="-p")]
File = Annotated[
    list[str], flag("file", "list", "Put this file before the prompt; may be repeated.", short="-f", metavar="FILE")
]
System = Annotated[str | None, flag("system", "text", "The system prompt.", short="-s")]
Raw = Annotated[bool, flag("raw", "flag", "Send the prompt as it is, without the model's chat template.")]
Special = Annotated[
    bool,
    flag(
        "special",
        "flag",
        "With --raw: text that spells a control token, such as `<|im_end|>`, is that token. Only for prompts that you "
        "trust: whoever writes them can write as the system or the model.",
    ),
]
IgnoreUnknown = Annotated[
    bool, flag("ignore-unknown", "flag", "Answer lines with keys that mean nothing here; else they are error rows.")
]
Lossy = Annotated[bool, flag("lossy", "flag", "Accept input that is not UTF-8; what cannot be read becomes U+FFFD.")]
Revision = Annotated[
    str | None, flag("revision", "text", "Commit, branch or tag of the repository.", metavar="REVISION")
]

# How the engine runs
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

# Making models
Bits = Annotated[
    Literal["16", "8", "4", "3"] | None,
    flag(
        "bits",
        "text",
        "Bits of each weight of the body. 16 is for `import`, which keeps the file's own without it.",
        choices=("16", "8", "4", "3"),
    ),
]
Group = Annotated[
    Literal["32", "64", "128"] | None,
    flag(
        "group",
        "text",
        "Weights that share one scale.",
        choices=("32", "64", "128"),
        shows="32; 64 from 4 billion weights on",
    ),
]
Method = Annotated[
    Literal["rtn", "imatrix", "awq", "gptq", "awq+gptq"] | None,
    flag(
        "method",
        "text",
        "How integers are chosen: `rtn` from the weights alone, all others by calibrating too.",
        choices=("rtn", "imatrix", "awq", "gptq", "awq+gptq"),
        shows="by --effort: gptq; rtn for 8 bits",
    ),
]
Calib = Annotated[
    list[str],
    flag(
        "calib",
        "list",
        "Calibrate on this text, not on our own; may be repeated. `self`: on what the model says by itself.",
        metavar="FILE|self",
    ),
]
Tokens = Annotated[
    int | None,
    flag("tokens", "int", "Most tokens to calibrate on.", low=1, high=1 << 22, shows="by --effort; else 32768"),
]
QuantizedHead = Annotated[
    Literal["bf16", "8", "4"],
    flag(
        "head",
        "text",
        "Bits of the head. With 4 it is calibrated, and apart from an embedding that is the same matrix; with bf16 it "
        "stays as it is.",
        choices=("bf16", "8", "4"),
        default="8",
    ),
]
Effort = Annotated[
    Literal["quick", "default", "best"] | None,
    flag(
        "effort",
        "text",
        "What to spend: `quick` scales weighted by little text, minutes for a billion weights; `default` the method "
        "that loses least for its time; `best` more text, then --refine. Below 8 bits.",
        choices=("quick", "default", "best"),
        shows="default",
    ),
]
NoReport = Annotated[bool, flag("no-report", "flag", "Do not measure what it lost.")]
Bpw = Annotated[
    float | None,
    flag("bpw", "float", "Mix widths, from `--bits` up: this many bits a weight in the layers.", low=1, high=8.5),
]
TargetKld = Annotated[
    float | None,
    flag(
        "target-kld",
        "float",
        "Mix widths, from `--bits` (3) up, so that it is the smallest model whose KL divergence is at most this. Up to "
        "five are made and measured.",
        low=1e-6,
        high=100,
        metavar="NATS",
    ),
]
Uniform = Annotated[
    bool, flag("uniform", "flag", "The same width for all layers, also with `--bits 3`, which mixes them otherwise.")
]
TargetSize = Annotated[
    str | None,
    flag(
        "target-size",
        "text",
        "Mix widths, from `--bits` up: this size in all.",
        metavar="SIZE",
        shows="none; 1GB, 90MB",
    ),
]
_REFINE = "Then train it to answer more like the original: `kl` the scales, `qat` the weights too."
Refine = Annotated[
    Literal["none", "kl", "qat"] | None,
    flag("refine", "text", _REFINE, choices=("none", "kl", "qat"), shows="none; kl with --effort best"),
]
TimeBudget = Annotated[
    str | None,
    flag(
        "time-budget",
        "text",
        "Take no longer than this, all included: text, layers that --method is used for, --refine and the report are "
        "shortened to it, as this machine's speed tells beforehand, and what cannot be done in it is refused.",
        metavar="TIME",
        shows="none; 90s, 30m, 2h",
    ),
]
Resume = Annotated[bool, flag("resume", "flag", "Go on with a stopped run, and refuse other settings than it had.")]
Fresh = Annotated[bool, flag("fresh", "flag", "Forget what a stopped run has left, and begin anew.")]
Name = Annotated[str | None, flag("name", "text", "Keep the model under this name.", metavar="NAME")]
Format = Annotated[
    Literal["gguf", "gptq", "compressed-tensors"] | None,
    flag(
        "format",
        "text",
        "`gguf` for llama.cpp; `gptq`, `compressed-tensors` for servers on GPUs.",
        choices=("gguf", "gptq", "compressed-tensors"),
    ),
]
Type = Annotated[
    Literal["Q8_0", "Q4_0", "F16"] | None,
    flag(
        "type",
        "text",
        "For gguf: what the layers' weights become.",
        choices=("Q8_0", "Q4_0", "F16"),
        shows="the smallest that changes no weight",
    ),
]
Output = Annotated[
    str | None,
    flag("output", "text", "Write it to this place.", short="-o", metavar="PATH"),
]
Token = Annotated[
    str | None,
    flag("token", "text", "Hub token, for gated models.", metavar="TOKEN", shows="`hf auth login`", secret=True),
]
Offline = Annotated[bool, flag("offline", "flag", "Use only what is on this machine.")]

# What is printed
Json = Annotated[bool, flag("json", "flag", "Print JSON on standard output.")]
Quiet = Annotated[bool, flag("quiet", "flag", "No progress and no notes on standard error.", short="-q")]
Stats = Annotated[bool, flag("stats", "flag", "Print speeds and counts on standard error at the end.")]
Yes = Annotated[bool, flag("yes", "flag", "Do not ask.", short="-y")]
Recalibrate = Annotated[
    bool,
    flag("recalibrate", "flag", "Forget the step times of all models; each is measured anew when it is next loaded."),
]
DryRun = Annotated[bool, flag("dry-run", "flag", "Only say what would happen.")]
Template = Annotated[bool, flag("template", "flag", "Print the model's chat template and nothing else.")]

# What it costs
UsdPerKwh = Annotated[
    float,
    flag("usd-per-kwh", "float", "Price of electricity, US dollars.", low=0, high=100, default=0.2),
]
Watts = Annotated[
    float | None,
    flag(
        "watts",
        "float",
        "What this machine draws while it works, measured at the socket.",
        low=0,
        high=1e6,
        shows="the processor's counters, else an estimate that is marked",
    ),
]
HardwareUsd = Annotated[
    float | None,
    flag("hardware-usd", "float", "What this machine cost, US dollars.", low=0, high=1e9, shows="nothing: it is there"),
]
HardwareYears = Annotated[
    float, flag("hardware-years", "float", "How long a machine serves.", low=0.01, high=100, default=4.0)
]
ApiModel = Annotated[
    str | None,
    flag(
        "api-model",
        "text",
        "What to compare with at a provider, such as `openai/gpt-5-mini`.",
        metavar="PROVIDER/MODEL",
        shows="the same open model where it is cheapest",
    ),
]

TokensPerDay = Annotated[
    float | None,
    flag("tokens-per-day", "float", "Also tell what a million tokens cost at this volume.", low=1, high=1e15),
]

# Conversations
Continue = Annotated[bool, flag("continue", "flag", "Take up the last chat.")]
Theme = Annotated[
    str | None,
    flag(
        "theme",
        "text",
        "Colours: `calm`, `calm-light`, or one of Textual's, such as `nord`.",
        shows="the one chosen last, else calm",
    ),
]

# Measuring
Tests = Annotated[
    list[str],
    flag(
        "test",
        "list",
        "What to measure, named as in llama-bench; may be repeated.",
        metavar="TEST",
        shows="pp256 and tg128",
    ),
]
Rows = Annotated[
    list[str],
    flag("rows", "list", "Also time steps of so many sequences together, such as `1,2,4,8`.", metavar="N,N"),
]
Workload = Annotated[
    str | None,
    flag(
        "workload",
        "text",
        "Answer many requests of mixed lengths instead: `mixed` all at once, joining at any step, in fixed groups, and "
        "one by one; `poisson` as they arrive by chance, with the times that their senders see.",
        choices=("mixed", "poisson"),
    ),
]
Rate = Annotated[
    float, flag("rate", "float", "Requests a second of `--workload poisson`.", low=1e-3, high=1e4, default=1.0)
]
Requests = Annotated[int, flag("requests", "int", "Requests of `--workload poisson`.", low=1, high=100_000, default=64)]
History = Annotated[
    bool, flag("history", "flag", "Measure nothing: show the benchmarks that were kept, of MODEL or of all models.")
]
NoHistory = Annotated[bool, flag("no-history", "flag", "Do not keep this result.")]
Tasks = Annotated[
    list[str],
    flag(
        "tasks",
        "list",
        "For `bench`: answer real prompts instead: code-edit, summary, retrieval, chat, new-code, or all. For `eval`: "
        "count right answers instead: arithmetic, code, needle, json, or all.",
        metavar="TASK,TASK",
    ),
]
Items = Annotated[
    int, flag("items", "int", "Questions of each of `--tasks`, the first of them.", low=1, high=100, default=100)
]
Prompts = Annotated[
    str | None,
    flag("prompts", "text", 'Answer those of a file: a line each like {"task": "…", "prompt": "…"}.', metavar="FILE"),
]
Startup = Annotated[
    bool,
    flag(
        "startup",
        "flag",
        "Time new processes instead, ten unless --reps says otherwise: until `--help` stands, and until MODEL has "
        "said one token.",
    ),
]
Ladder = Annotated[
    bool,
    flag(
        "ladder",
        "flag",
        "Measure from naive bf16 in torch to everything on, one step after another: INT8, INT4, INT3, drafts, a "
        "smaller KV cache, many streams. With --plot a picture; the upper steps stand on --bits.",
    ),
]
Replay = Annotated[
    str | None,
    flag(
        "replay",
        "text",
        "With --ladder and --random: an earlier report as JSON, whose accepted guesses are replayed.",
        metavar="FILE.json",
    ),
]
Reps = Annotated[int, flag("reps", "int", "Rounds of each test.", low=1, high=1000, default=5)]
Against = Annotated[
    str | None,
    flag(
        "against",
        "text",
        "What to compare with: for `eval` the original model, for `bench` another engine, `llamacpp` or `ik_llamacpp`, "
        "or both with a comma.",
        metavar="REF",
    ),
]
AgainstFile = Annotated[
    str | None, flag("against-file", "text", "The GGUF file that the other engine runs.", metavar="FILE.gguf")
]
Random = Annotated[
    str | None,
    flag(
        "random",
        "text",
        "Measure random weights of a known shape, such as `qwen2-1.5b` or `qwen2-1.5b:INT3`. Kept as `random/SHAPE`.",
        metavar="SHAPE",
    ),
]
HeadBits = Annotated[
    Literal["8", "4", "3"] | None,
    flag("head-bits", "text", "Bits of embedding and head of random weights.", choices=("8", "4", "3"), shows="8"),
]
Text = Annotated[
    list[str],
    flag("text", "list", "The text to read, UTF-8.", metavar="FILE", shows="a text of our own, or of the model's own"),
]
Ctx = Annotated[int, flag("ctx", "int", "Tokens in each chunk of the text.", low=8, high=1 << 20, default=512)]
Chunks = Annotated[
    int,
    flag("chunks", "int", "Read this many chunks; 0 reads all that the text has.", low=0, high=1 << 20, default=24),
]
Plot = Annotated[
    str | None,
    flag(
        "plot",
        "text",
        "Draw a picture into this file: for `eval` (PNG) size and divergence, for `bench --ladder` its steps, for "
        "`cost` dollars by volume (SVG or PNG). Needs matplotlib.",
        metavar="FILE",
    ),
]
Parallel = Annotated[
    list[str],
    flag(
        "parallel",
        "list",
        "Let so many sequences generate together, such as `8`; for `bench` also `2,4,8`.",
        short="-np",
        metavar="N,N",
    ),
]
Compare = Annotated[
    str | None,
    flag(
        "compare",
        "text",
        "Tell what changed since this earlier `--json` report, or since the `last` run.",
        metavar="FILE.json",
    ),
]
MaxDrop = Annotated[
    float | None,
    flag(
        "max-drop",
        "float",
        "With --compare: fail when a ratio to the other engine fell by more than this share.",
        low=0,
        high=1,
    ),
]
