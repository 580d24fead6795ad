"""Three examples for the help page of each command. A test reads every line as the program would, and runs most."""

EXAMPLES: dict[str, tuple[str, str, str]] = {
    "pull": (
        "localinfer pull starter",
        "localinfer pull Qwen/Qwen3-0.6B",
        "localinfer pull Qwen/Qwen3-0.6B@main --json",
    ),
    "list": (
        "localinfer list",
        "localinfer ls --json",
        "localinfer list --quiet | wc -l",
    ),
    "show": (
        "localinfer show starter",
        "localinfer show starter --template",
        "localinfer show starter:INT4 --json",
    ),
    "rm": (
        "localinfer rm starter:INT4 --dry-run",
        "localinfer rm starter:INT4",
        "localinfer rm starter starter:INT4 --yes",
    ),
    "cache verify": (
        "localinfer cache verify",
        "localinfer cache verify --json",
        "localinfer cache verify --quiet && echo all is well",
    ),
    "cache prune": (
        "localinfer cache prune --dry-run",
        "localinfer cache prune",
        "localinfer cache prune --json",
    ),
    "import": (
        "localinfer import model.gguf",
        "localinfer import model.gguf --name me/model",
        "localinfer import model.gguf --name me/plain --bits 16",
    ),
    "quantize": (
        "localinfer quantize starter --bits 4",
        "localinfer quantize starter --bits 8 --method rtn --no-report",
        "localinfer quantize starter --bits 4 --calib notes.txt",
    ),
    "eval": (
        "localinfer eval starter:INT4 --against starter",
        "localinfer eval starter starter:INT4 --text notes.txt --ctx 128",
        "localinfer eval starter:INT4 --against starter --tasks all --json",
    ),
    "export": (
        "localinfer export starter:INT4 --format gguf",
        "localinfer export starter --format gguf --type Q8_0 -o q8.gguf",
        "localinfer export starter:INT4 --format gptq --head bf16 -o gptq",
    ),
    "run": (
        "localinfer run starter 'Why is the sky blue?'",
        "cat notes.txt | localinfer run starter 'Sum this up:' -n 60",
        "localinfer run starter 'Name a colour.' --temp 0 --json",
    ),
    "map": (
        "localinfer map starter questions.jsonl -o answers.jsonl",
        "cat questions.jsonl | localinfer map starter -n 20 > answers.jsonl",
        "localinfer map starter questions.csv --in-column question -o a.csv",
    ),
    "score": (
        "localinfer score starter texts.jsonl",
        "localinfer score starter texts.jsonl -o scores.jsonl",
        "cat texts.jsonl | localinfer score starter --quiet",
    ),
    "embed": (
        "localinfer embed starter texts.jsonl",
        "localinfer embed starter texts.jsonl --pool mean -o vectors.jsonl",
        "cat texts.jsonl | localinfer embed starter --quiet",
    ),
    "chat": (
        "localinfer chat",
        "localinfer chat starter starter:INT4",
        "localinfer chat --continue",
    ),
    "serve": (
        "localinfer serve starter:INT4",
        "localinfer serve starter --port 9000 --keep 30m",
        "localinfer serve starter --api-key-file key.txt",
    ),
    "ps": (
        "localinfer ps",
        "localinfer ps --json",
        "localinfer ps | head -1",
    ),
    "stop": (
        "localinfer stop",
        "localinfer stop --json",
        "localinfer stop 4711",
    ),
    "bench": (
        "localinfer bench starter:INT4",
        "localinfer bench starter --test pp64 --test tg16 --reps 2 --json",
        "localinfer bench --random qwen2-1.5b --against llamacpp",
    ),
    "fit": (
        "localinfer fit starter",
        "localinfer fit starter --ctx-size 512 --json",
        "localinfer fit Qwen/Qwen3-8B --kv-bits 4",
    ),
    "cost": (
        "localinfer cost starter:INT4",
        "localinfer cost starter --tokens-per-day 1000000",
        "localinfer cost starter --json",
    ),
    "draft train": (
        "localinfer draft train starter:INT4",
        "localinfer draft train starter --minutes 20 --text notes.txt",
        "localinfer draft train starter --kind early",
    ),
    "draft list": (
        "localinfer draft list",
        "localinfer draft list --json",
        "localinfer draft list --quiet",
    ),
    "draft rm": (
        "localinfer draft rm starter",
        "localinfer draft rm starter --json",
        "localinfer draft rm --texts",
    ),
    "doctor": (
        "localinfer doctor --json",
        "localinfer doctor --recalibrate",
        "localinfer doctor starter",
    ),
    "config show": (
        "localinfer config show",
        "localinfer config show --json",
        "localinfer config show | head -5",
    ),
    "config keys": (
        "localinfer config keys",
        "localinfer config keys | grep kv",
        "localinfer config keys | wc -l",
    ),
    "config set": (
        "localinfer config set threads 4",
        "localinfer config set kv-bits 4",
        "localinfer config set model starter:INT4",
    ),
    "config unset": (
        "localinfer config unset threads",
        "localinfer config unset kv-bits",
        "localinfer config unset model",
    ),
    "completion": (
        "source <(localinfer completion bash)",
        "localinfer completion zsh > _localinfer",
        "localinfer completion fish | source",
    ),
}
"""By command, in the order of the help page; lines of at most 76 characters."""
