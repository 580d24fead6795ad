"""The flags for what is measured: tests, workloads, texts, what they are compared with. Part of `options`."""

from typing import Annotated, Literal

from localinfer.cli.flags import flag

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
    Literal["8", "5", "4", "3"] | None,
    flag("head-bits", "text", "Bits of embedding and head of random weights.", choices=("8", "5", "4", "3"), shows="8"),
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
