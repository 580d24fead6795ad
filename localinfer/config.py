"""Frozen, checked settings, and where their values come from. Long because each field's docstring is its manual."""

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal, get_args

from localinfer.errors import UsageError

KvBits = Literal[16, 8, 4]
Overflow = Literal["error", "shift"]
Draft = Literal["auto", "off", "suffix", "lookup", "early", "head", "mtp", "model"]
DRAFTS: tuple[Draft, ...] = get_args(Draft)
Where = Literal["auto", "resident", "mapped"]
"""Where experts are: all in memory, or in a file, of which memory has those that were wanted lately."""
Pool = Literal["last", "mean"]
"""Which tokens of a text its vector is made of."""
DEFAULT_CONTEXT = 8192
"""Tokens of context when none is asked for and the model could take more."""
BLOCK_TOKENS = 32
"""Tokens in one block of the KV cache; the native code is built for this number."""
FULL_CONTEXTS = 4
"""Sequences whose whole context the KV cache holds when nothing is said; more of them share it."""
MOST_DRAFTS = 31
"""Rows of guesses that a step can check, for all texts together."""
DRAFT_BACK = 2 * (MOST_DRAFTS + 1)
"""Tokens that a draft model can go back without reading its text anew, when its target goes another way."""
PREFILL_CHUNK = 256
"""Prompt tokens that a step reads when nothing is said."""
KEPT_WINDOWS = 2
"""Beginnings for each full context, and one more, whose windows are kept beside those of the texts that run."""


def in_range(name: str, value: float, low: float, high: float) -> None:
    """Raise `UsageError` unless `low <= value <= high` (NaN fails too)."""
    if not low <= value <= high:
        raise UsageError(f"{name} is {value}, but must lie between {low} and {high}", hint=f"choose another {name}")


def texts_of(name: str, value: object) -> tuple[str, ...]:
    """`value` as a tuple of texts: one text is one of them, not its letters. Raises `UsageError` for anything else."""
    listed = (value,) if isinstance(value, str) else value
    if not isinstance(listed, (tuple, list)) or not all(isinstance(one, str) for one in listed):
        raise UsageError(f"{name} is {value!r}, but must be a text or several", hint=f'write it like {name}=("…", "…")')
    return tuple(listed)


MOST_TOP = 20
"""Likeliest tokens that may be asked for with each one."""
MOST_BIASES = 1024
"""Tokens whose logits one request may change."""


def biases_of(value: Mapping[Any, Any] | Iterable[tuple[Any, Any]]) -> tuple[tuple[int, float], ...]:
    """Biases by token, in the order of the tokens. Raises `UsageError` for what are none."""
    pairs = dict(value)
    if len(pairs) > MOST_BIASES:
        raise UsageError(f"logit-bias has {len(pairs)} tokens, more than {MOST_BIASES}", hint="name fewer")
    for token, bias in pairs.items():
        if type(token) is not int or not 0 <= token < 1 << 31:
            raise UsageError(f"logit-bias names token {token!r}", hint="name tokens by their numbers, from 0")
        in_range("logit-bias", bias, -100.0, 100.0)
    return tuple((token, float(pairs[token])) for token in sorted(pairs))


def bias_of(word: str) -> tuple[int, float]:
    """What `TOKEN=BIAS` says. Raises `UsageError`."""
    token, _, bias = word.partition("=")
    try:
        return int(token), float(bias)
    except ValueError:
        raise UsageError(
            f"logit-bias is {word!r}, but must be TOKEN=BIAS", hint="like `--logit-bias 42=-100`"
        ) from None


def one_of(name: str, value: object, allowed: Sequence[object]) -> None:
    """Raise `UsageError` unless `value` is one of `allowed`."""
    if value not in allowed:
        words = ", ".join(map(str, allowed))
        raise UsageError(f"{name} is {value!r}, but must be one of {words}", hint=f"choose another {name}")


def window_blocks(window: int, rows: int) -> int:
    """Blocks that `rows` following rows of a text, and the `window` tokens that each of them sees, lie in at most."""
    return -(-(window + rows) // BLOCK_TOKENS) + 1


def draft_kv_blocks(windows: Sequence[int], *, context: int, parallel: int, prefill_chunk: int) -> tuple[int, ...]:
    """The same of a draft model."""
    whole = parallel * -(-context // BLOCK_TOKENS) * BLOCK_TOKENS
    return kv_blocks(windows, kv_tokens=whole, parallel=parallel, rows=prefill_chunk + DRAFT_BACK, reuse=False)


def most_rows(prefill_chunk: int) -> int:
    """Rows of one text that a step holds at most."""
    return max(prefill_chunk, MOST_DRAFTS + 1)


def kv_blocks(
    windows: Sequence[int], *, kv_tokens: int, parallel: int, rows: int, reuse: bool = True
) -> tuple[int, ...]:
    """Blocks of the KV cache for each group of layers, by the tokens that these look back on; 0: all.

    Without a window they hold `kv_tokens`; with one, what `parallel` texts look back on, with `rows` rows of each in a
    step, and with `reuse` some beginnings, but never more.
    """
    whole, kept = -(-kv_tokens // BLOCK_TOKENS), reuse * (KEPT_WINDOWS * min(parallel, FULL_CONTEXTS) + 1)

    def blocks(window: int) -> int:
        return parallel * window_blocks(window, rows) + kept * window_blocks(window, 0)

    return tuple(min(whole, blocks(window)) if window else whole for window in windows)


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineConfig:
    """How one engine runs."""

    context: int | None = None
    """Longest conversation kept, in tokens. Unset: the model's own limit, at most 8192."""

    parallel: int = 1
    """How many sequences may run at once."""

    kv_tokens: int | None = None
    """Tokens that the KV cache holds for all sequences together. Unset: `context` for each, for four at the most."""

    latency_goal_ms: int = 120
    """Milliseconds that a step may take while somebody's answer is written: prompts are read in pieces that fit."""

    kv_bits: KvBits = 8
    """Bits of each key and value in the cache. With 4, layers that do not bear it keep 8."""

    threads: int | None = None
    """Worker threads. Unset: one per physical core, or fewer where that was measured to be faster."""

    prefill_chunk: int = PREFILL_CHUNK
    """Prompt tokens handled in one step. Smaller keeps other replies flowing; larger reads faster."""

    isa: str = ""
    """Kernel set (`scalar`, `avx2`, …). Empty: `LOCALINFER_ISA`, else the best one here."""

    draft: Draft = "auto"
    """Who guesses ahead. `auto` takes whoever saves time, step by step; the text is the same either way."""

    draft_model: Path | None = None
    """The model that guesses, with `draft` `model`: a checkpoint with the same tokenizer."""

    draft_tokens: int = MOST_DRAFTS
    """Most tokens guessed ahead in one step."""

    remember: bool = False
    """Keep the tokens of finished texts, privately, and guess from those of earlier ones."""

    reuse: bool = True
    """Find the beginning of a text in the cache if an earlier one left it there. Off only for measuring."""

    kv_disk_gb: float = 0.0
    """Gigabytes of keys and values kept on disk, for all models together, so that chats are taken up without reading
    them anew. 0 keeps none."""

    experts: Where = "auto"
    """Where a mixture's experts are: all in memory (`resident`), or in a file (`mapped`), of which memory has as many
    as there is room for. `auto` maps what does not fit."""

    experts_bytes: int = 0
    """Bytes of memory for experts that are mapped; those of one layer at least. 0: what is free when it is opened."""

    def choose_context(self, longest: int) -> int:
        """The context asked for, else the model's own up to `DEFAULT_CONTEXT`. Raises `UsageError` above the model's
        `longest`."""
        if self.context is None:
            return min(longest, DEFAULT_CONTEXT)
        if self.context > longest:
            raise UsageError(
                f"the context is to be {self.context} tokens, but the model was made for {longest}",
                hint=f"ask for at most `-c {longest}`",
            )
        return self.context

    def pool_tokens(self, context: int) -> int:
        """Tokens that the KV cache holds for all sequences, where one may have `context`. Raises `UsageError` when
        that is not even room for one."""
        if self.kv_tokens is None:
            return -(-context // BLOCK_TOKENS) * BLOCK_TOKENS * min(self.parallel, FULL_CONTEXTS)
        if self.kv_tokens < context:
            raise UsageError(
                f"the KV cache is to hold {self.kv_tokens} tokens, but one text may have {context}",
                hint=f"ask for at least `--kv-tokens {context}`, or lower the context (-c)",
            )
        return self.kv_tokens

    @property
    def most_rows(self) -> int:
        """Rows of one text that a step holds at most."""
        return most_rows(self.prefill_chunk)

    def __post_init__(self) -> None:
        if self.context is not None:
            in_range("context", self.context, 1, 1 << 20)
        in_range("parallel", self.parallel, 1, 64)
        if self.kv_tokens is not None:
            in_range("kv-tokens", self.kv_tokens, 1, 1 << 24)
        in_range("kv-disk", self.kv_disk_gb, 0, 1000)
        in_range("latency-goal", self.latency_goal_ms, 1, 60_000)
        one_of("kv-bits", self.kv_bits, (16, 8, 4))
        if self.threads is not None:
            in_range("threads", self.threads, 1, 256)
        in_range("prefill-chunk", self.prefill_chunk, 1, 4096)
        one_of("draft", self.draft, DRAFTS)
        if isinstance(self.draft_model, str):
            object.__setattr__(self, "draft_model", Path(self.draft_model))
        if (self.draft == "model") != (self.draft_model is not None):
            raise UsageError("`draft` model and `draft_model` go together", hint="give both, or neither")
        in_range("draft-tokens", self.draft_tokens, 1, MOST_DRAFTS)
        one_of("experts", self.experts, get_args(Where))
        in_range("experts_bytes", self.experts_bytes, 0, 1 << 48)


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
    """Divide the logits of tokens seen in the last 64 by this (multiply when negative); of all seen, where the
    model's own files ask for a penalty, as in transformers. 1 is off."""

    presence_penalty: float = 0.0
    """Taken once from the logits of tokens that the answer has already."""

    frequency_penalty: float = 0.0
    """Taken from the logits of tokens that the answer has already, as often as it has them."""

    dry_multiplier: float = 0.0
    """Taken from the logit of a token that would go on with a repetition (DRY): this much at `dry_allowed_length`
    tokens, `dry_base` times as much for each one more. 0 is off."""

    dry_base: float = 1.75
    """How the DRY penalty grows with each token that is repeated."""

    dry_allowed_length: int = 2
    """Repetitions of fewer tokens cost nothing."""

    top_n_sigma: float = 0.0
    """Keep tokens whose logit is at most this many standard deviations below the largest. 0 keeps all."""

    typical_p: float = 1.0
    """Keep the tokens that are nearest to typical and together reach this probability. 1 keeps all."""

    xtc_probability: float = 0.0
    """At this share of all positions, drop the likeliest tokens but the last that is at least `xtc_threshold` likely
    (XTC). 0 is off."""

    xtc_threshold: float = 0.1
    """How likely a token must be for XTC to drop it."""

    logit_bias: tuple[tuple[int, float], ...] = ()
    """Added to the logits of these tokens, before all else."""

    seed: int = 0
    """Same seed, same text."""

    max_tokens: int | None = None
    """Stop after this many new tokens. Unset: as many as the context holds."""

    stop: tuple[str, ...] = ()
    """Stop before any of these strings. A single string, or a list, may be given, too."""

    ignore_eos: bool = False
    """Go on after the end-of-turn token; for benchmarks."""

    def __post_init__(self) -> None:
        in_range("temp", self.temperature, 0.0, 100.0)
        in_range("top-k", self.top_k, 0, 1 << 22)
        in_range("top-p", self.top_p, 0.0, 1.0)
        in_range("min-p", self.min_p, 0.0, 1.0)
        in_range("repeat-penalty", self.repeat_penalty, 0.01, 100.0)
        in_range("presence-penalty", self.presence_penalty, -100.0, 100.0)
        in_range("frequency-penalty", self.frequency_penalty, -100.0, 100.0)
        in_range("dry-multiplier", self.dry_multiplier, 0.0, 100.0)
        in_range("dry-base", self.dry_base, 1.0, 100.0)
        in_range("dry-allowed-length", self.dry_allowed_length, 1, 64)
        in_range("top-n-sigma", self.top_n_sigma, 0.0, 1000.0)
        in_range("typical-p", self.typical_p, 0.0, 1.0)
        in_range("xtc-probability", self.xtc_probability, 0.0, 1.0)
        in_range("xtc-threshold", self.xtc_threshold, 0.0, 1.0)
        object.__setattr__(self, "logit_bias", biases_of(self.logit_bias))
        in_range("seed", self.seed, 0, (1 << 64) - 1)
        if self.max_tokens is not None:
            in_range("max-tokens", self.max_tokens, 1, 1 << 20)
        object.__setattr__(self, "stop", texts_of("stop", self.stop))
        if any(not s for s in self.stop):
            raise UsageError("a stop string is empty", hint="leave it out, or give it some text")


Kind = Literal["flag", "int", "float", "text", "list"]

PREFIX = "LOCALINFER_"
_SHORT_NAME = 4
"""Letters from which on a name may be what a longer word begins with."""
SPECIAL = {
    "LOCALINFER_HOME": "where models, chats and measurements are kept",
    "LOCALINFER_CONFIG": "another settings file",
    "LOCALINFER_ISA": "the kernel set to use: scalar, avx2, avxvnni, avx512, neon or neon_i8mm",
    "LOCALINFER_DEBUG": "1 shows tracebacks",
    "LOCALINFER_API_KEY": "the key that `serve` wants; `--api-key-file` wins",
    "LOCALINFER_LIBCUDA": "the NVIDIA driver's library, if it is not where the system looks",
    "LOCALINFER_NVRTC": "the library of NVIDIA's runtime compiler, if it is not where the system looks",
    "LOCALINFER_CUDA_GRAPHS": "0 launches every kernel by itself, to look for a fault",
}
"""Environment variables that stand for no flag."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """One thing that a person can set by flag, by environment variable or in the settings file."""

    name: str
    """The long flag without its dashes; also the key in the settings file."""

    kind: Kind
    help: str
    short: str = ""
    choices: tuple[str, ...] = ()
    low: float | None = None
    high: float | None = None
    default: object = None
    secret: bool = False

    @property
    def env(self) -> str:
        """`max-tokens` → `LOCALINFER_MAX_TOKENS`."""
        return PREFIX + self.name.upper().replace("-", "_")

    def parse(self, raw: object, origin: str) -> Any:
        """`raw` (words from a shell, or a TOML value) as this setting's type. Raises `UsageError` naming `origin`."""
        if self.kind == "list":
            parts = raw if isinstance(raw, (list, tuple)) else [raw]
            return tuple(self._one(part, "text", origin) for part in parts)
        return self._one(raw, self.kind, origin)

    def _one(self, raw: object, kind: Kind, origin: str) -> bool | int | float | str:
        value: bool | int | float | str | None = None
        words = str(raw).strip().lower()
        if kind == "flag":
            value = {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}.get(words)
        elif isinstance(raw, bool):
            value = None  # TOML's true is not the number 1
        elif kind == "int":
            value = int(words) if re.fullmatch(r"[+-]?[0-9]{1,20}", words) else None
        elif kind == "float":
            value = float(words) if re.fullmatch(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)(e[+-]?[0-9]{1,3})?", words) else None
        elif isinstance(raw, (str, int, float)):
            value = str(raw)
        if value is None:
            raise UsageError(f"{origin} is {raw!r}, but must be {_KINDS[kind]}", hint=f"{self.name}: {self.help}")
        if self.choices:
            one_of(origin, str(value), self.choices)
        if isinstance(value, (int, float)) and self.low is not None and self.high is not None:
            in_range(origin, value, self.low, self.high)
        return value


_KINDS = {"flag": "true or false", "int": "a whole number", "float": "a number", "text": "text", "list": "text"}


@dataclass(frozen=True, slots=True)
class Value:
    """A setting's value, and which of the four sources it came from."""

    value: Any
    origin: str
    """`default`, `<file>:<line>`, the environment variable or the flag."""


def load_config(
    settings: Mapping[str, Setting],
    flags: Mapping[str, object],
    *,
    file: Path | None,
    env: Mapping[str, str] | None = None,
) -> dict[str, Value]:
    """Every setting's value: defaults < settings file < environment < flags.

    `flags` holds raw values by setting name; `file` None reads no file. Raises `UsageError` for an unknown key, naming
    the nearest known one, and for a value that does not fit its setting, naming where it stands.
    """
    env = os.environ if env is None else env
    values = {name: Value(setting.default, "default") for name, setting in settings.items()}
    for name, (raw, origin) in read_config_file(file, settings).items() if file else ():
        values[name] = Value(settings[name].parse(raw, origin), origin)
    for name, setting in settings.items():
        if env.get(setting.env, "") != "":
            values[name] = Value(setting.parse(env[setting.env], setting.env), setting.env)
        if name in flags:
            values[name] = Value(setting.parse(flags[name], f"--{name}"), f"--{name}")
    return values


def read_config_file(file: Path, settings: Mapping[str, Setting]) -> dict[str, tuple[object, str]]:
    """The raw values of a settings file with where each stands (`<file>:<line>`). No file is an empty one, but for one
    that `LOCALINFER_CONFIG` names."""
    import tomllib

    try:
        text = file.read_text(encoding="utf-8")
    except FileNotFoundError:
        if os.environ.get("LOCALINFER_CONFIG"):
            raise UsageError(
                f"LOCALINFER_CONFIG names {file}, which is not there", hint="make that file, or unset LOCALINFER_CONFIG"
            ) from None
        return {}
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot read {file}: {error}", hint="mend or remove that file") from None
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{file} is not TOML: {error}", hint="mend that line; strings need quotes") from None
    found: dict[str, tuple[object, str]] = {}
    for key, raw in table.items():
        origin = f"{file}:{line_of(text, key)}"
        if key not in settings:
            raise unknown_key(key, settings, origin)
        found[key] = (raw, origin)
    return found


def line_of(text: str, key: str) -> int:
    """The line, from 1, where the TOML file sets `key` at its top level; 0 if that cannot be told."""
    name = re.escape(key)
    match = re.search(rf"^[ \t]*(\[+[ \t]*)?[\"']?{name}[\"']?[ \t]*[]=.]", text, re.MULTILINE)
    return text.count("\n", 0, match.start()) + 1 if match else 0


def unknown_variables(settings: Mapping[str, Setting], env: Mapping[str, str] | None = None) -> dict[str, str]:
    """Variables of `env` that look like ours and mean nothing, each with the nearest name that does, or ""."""
    known = {setting.env for setting in settings.values()} | SPECIAL.keys()
    names = os.environ if env is None else env
    found = {}
    for name in sorted(name for name in names if name.startswith(PREFIX) and name not in known):
        near = _nearest(name.removeprefix(PREFIX), [one.removeprefix(PREFIX) for one in known], 0.6)
        found[name] = PREFIX + near if near else ""
    return found


def _nearest(word: str, known: Iterable[str], cutoff: float) -> str:
    """What `word` begins with, as `temprature` does with `temp`, or else what is spelled alike; "" if nothing is."""
    names = sorted(known)
    begun = [name for name in names if len(name) >= _SHORT_NAME and word.startswith(name)]
    near = sorted(begun, key=len)[-1:] or get_close_matches(word, names, n=1, cutoff=cutoff)
    return near[0] if near else ""


def unknown_key(key: str, settings: Mapping[str, Setting], origin: str = "") -> UsageError:
    """The error for a key that is no setting, with the nearest one that is."""
    near = _nearest(key.replace("_", "-").lower(), settings, 0.5)
    where = f"{origin}: " if origin else ""
    hint = f"did you mean `{near}`?" if near else "`localinfer config keys` lists all keys"
    return UsageError(f"{where}there is no setting `{key}`", hint=hint)
