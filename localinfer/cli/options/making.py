"""The flags for models that are made or fetched: widths, calibration, where they are written. Part of `options`."""

from typing import Annotated, Literal

from localinfer.cli.flags import flag

Bits = Annotated[
    Literal["16", "8", "5", "4", "3"] | None,
    flag(
        "bits",
        "text",
        "Bits of each weight of the body. 16 is for `import`, which keeps the file's own without it.",
        choices=("16", "8", "5", "4", "3"),
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
Head = Annotated[
    Literal["bf16", "f16", "8", "5", "4"] | None,
    flag(
        "head",
        "text",
        "`quantize`: bits of the head, bf16, 8, 5 or 4. Below 8 it is calibrated, and apart from an embedding that is "
        "the same matrix; with bf16 it stays as it is. `export` to folders: what embedding and head become, bf16 or "
        "f16.",
        choices=("bf16", "f16", "8", "5", "4"),
        shows="8; in exports bf16 for compressed-tensors, f16 for gptq",
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
Resume = Annotated[
    bool,
    flag(
        "resume",
        "flag",
        "Go on with a stopped run, and refuse other settings than it had; rows of errors are made anew.",
    ),
]
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
    Literal["Q8_0", "Q5_0", "Q4_0", "F16"] | None,
    flag(
        "type",
        "text",
        "For gguf: what the layers' weights become.",
        choices=("Q8_0", "Q5_0", "Q4_0", "F16"),
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
