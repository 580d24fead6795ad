"""The pre-tokenizers that a GGUF file can name (`tokenizer.ggml.pre`), as steps of a Hugging Face tokenizer.

The names and what goes with them (BOS, whole words before merges) are those of llama.cpp's `llama-vocab.cpp`; where it
approximates the pattern of a model's own tokenizer.json, the pattern of tokenizer.json is used. Patterns are applied
one after the other, each to the pieces that the one before it left.
"""

from dataclasses import dataclass
from typing import Any

_CONTRACTIONS = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_WORD = r"[^\r\n\p{L}\p{N}]?\p{L}+"
_SYMBOLS = r" ?[^\s\p{L}\p{N}]+"
_LINES = r"\s*[\r\n]+"
_SPACES = r"\s+(?!\S)|\s+"
_TAIL = rf"{_SYMBOLS}[\r\n]*|{_LINES}|{_SPACES}"
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_LEAD = r"[^\r\n\p{L}\p{N}]?"
_FROM_THE_RIGHT = r"\p{N}{1,3}(?=(?:\p{N}{3}){0,300}(?!\p{N}))"
"""Groups of three digits counted from the right; runs of more than 900 digits begin with a longer piece."""

GPT2 = rf"'(?:[sdmt]|ll|ve|re)| ?\p{{L}}+| ?\p{{N}}+|{_SYMBOLS}|{_SPACES}"
LLAMA3 = rf"{_CONTRACTIONS}|{_WORD}|\p{{N}}{{1,3}}|{_TAIL}"
QWEN2 = rf"{_CONTRACTIONS}|{_WORD}|\p{{N}}|{_TAIL}"
_QWEN35 = (
    rf"{_CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?[\p{{L}}\p{{M}}]+|\p{{N}}"
    rf"| ?[^\s\p{{L}}\p{{M}}\p{{N}}]+[\r\n]*|{_LINES}|{_SPACES}"
)


def _cased(suffix: str, upper: str = _UPPER, lower: str = _LOWER) -> str:
    """Words that may begin with capitals, each with `suffix` after it."""
    return rf"{_LEAD}{upper}*{lower}+{suffix}|{_LEAD}{upper}+{lower}*{suffix}"


_SLASHES = rf"{_SYMBOLS}[\r\n/]*|{_LINES}|{_SPACES}"
_TEKKEN = rf"{_cased('')}|\p{{N}}|{_SLASHES}"
_GPT4O = rf"{_cased(_CONTRACTIONS + '?')}|\p{{N}}{{1,3}}|{_SLASHES}"
_YOUTU = rf"{_cased(_CONTRACTIONS + '?')}|\p{{N}}|{_SLASHES}"
_KIMI_WORDS = _cased(f"{_CONTRACTIONS}?", rf"[{_UPPER[1:-1]}&&[^\p{{Han}}]]", rf"[{_LOWER[1:-1]}&&[^\p{{Han}}]]")
_KIMI = rf"\p{{Han}}+|{_KIMI_WORDS}|\p{{N}}{{1,3}}|{_TAIL}"
_PUNCTUATED = (
    r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"""
    r"| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_CJK = "[一-龥\u3040-ゟ゠-ヿ]+"
_HAN_OR_HANGUL = "[一-龥\u0800-一가-\ud7ff]+"
_NOT_CASED = (
    "\u0560-\u0588\u10c7\u10cd\u10d0-\u10ff\u1c80-\u1c88\u2d00-\u2d2d\ua790-\ua7ff\uab30-\uab68"
    "\U00010570-\U000105bc\U00016e40-\U00016e7f\U0001d400-\U0001d7cb\U0001df00-\U0001df2a"
)
"""Letters with case that DeepSeek's list of them leaves out."""
_CASED_LETTERS = rf"[\p{{Lu}}\p{{Ll}}\p{{Lt}}&&[^{_NOT_CASED}]]"
_BLOOM = " ?[^(\\s|.,!?…。，、।۔،)]+"
_LINE_RUNS = r"[^\n]+|\n+"
_AFMOE_SCRIPTS = (
    "[一-鿿㐀-䶿豈-\ufaff\u3040-ゟ゠-ヿ･-ﾟ⼀-\u2fdfเ-\u0e7f\u0e80-\u0effក-\u17ffက-႟ꩠ-ꩿꧠ-\ua9ff가-\ud7af\u1100-ᇿ]+"
)
_YOUTU_SCRIPTS = "[가-힣ㄱ-ㆎ]+|[！…“”‘’—：；，、-〿︰-﹏]+|[ㄅ-ㄯ]+|[一-龥\u3040-ゟ゠-ヿ]+"


@dataclass(frozen=True, slots=True)
class PreTokenizer:
    """How text is cut before merges, and what llama.cpp's loader takes for granted with it."""

    patterns: tuple[str, ...]
    digits: bool = False
    """Every digit stands alone, before the patterns."""
    full_words: bool = False
    """A piece that is a token is taken whole, whatever the merges say."""
    adds_bos: bool = False
    """Unless the file says otherwise."""
    no_bos: bool = False
    """There is no BOS unless the file names one."""
    composes: bool = False
    """Text is normalized to NFC first."""
    raw: bool = False
    """Tokens are UTF-8 with `▁` for a space, not the alphabet of bytes."""

    def steps(self) -> list[dict[str, Any]]:
        """The `pretokenizers` of tokenizer.json."""
        if self.raw:
            return [_split(pattern) for pattern in self.patterns]
        bytes_only = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
        first: list[dict[str, Any]] = [{"type": "Digits", "individual_digits": True}] if self.digits else []
        if self.patterns == (GPT2,):
            return [*first, bytes_only | {"use_regex": True}]
        return [*first, *map(_split, self.patterns), bytes_only]


def _split(pattern: str) -> dict[str, Any]:
    return {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}


_LLAMA3_KIND = PreTokenizer((LLAMA3,), full_words=True, adds_bos=True)
_GPT2_KIND = PreTokenizer((GPT2,))
_DIGITS_KIND = PreTokenizer((GPT2,), digits=True)
_QWEN2_KIND = PreTokenizer((QWEN2,), composes=True)
_GPT4O_KIND = PreTokenizer((_GPT4O,))
_BAILING = rf"'(?i:[sdmt]|ll|ve|re)|{_WORD}|\p{{N}}|{_SYMBOLS}[\r\n]*|\s*[\r\n]|{_SPACES}"
_JAIS2 = "|".join([*(rf"\s{{{n}}}(?!\S)" for n in (512, 256, 128, 64, 32, 16, 8, 4)), r"\s{1,2}(?!\S)", r"\s"])

DEFAULT = "default"
"""What a file means that names none."""

PRE_TOKENIZERS: dict[str, PreTokenizer] = {
    DEFAULT: PreTokenizer((r"[\p{P}$+<=>^~|]+", GPT2, r"\p{N}+", "[0-9][0-9][0-9]")),
    **dict.fromkeys(("llama-bpe", "llama3", "llama-v3", "falcon3", "falcon-h1", "pixtral"), _LLAMA3_KIND),
    **dict.fromkeys(("midm-2.0", "lfm2", "jina-v5-nano"), _LLAMA3_KIND),
    **dict.fromkeys(("dbrx", "smaug-bpe"), PreTokenizer((LLAMA3,))),
    "chatglm-bpe": PreTokenizer((LLAMA3,), no_bos=True),
    **dict.fromkeys(("glm4", "glm5"), PreTokenizer((LLAMA3,), full_words=True, no_bos=True)),
    **dict.fromkeys(("qwen2", "deepseek-r1-qwen", "kormo", "f2llmv2", "megrez"), _QWEN2_KIND),
    **dict.fromkeys(("stablelm2", "hunyuan", "solar-open", "grok-2"), PreTokenizer((QWEN2,))),
    "qwen35": PreTokenizer((_QWEN35,)),
    "ufakzeka": PreTokenizer((rf"{_WORD}|\p{{N}}|{_TAIL}",)),
    "gpt-2": _GPT2_KIND,
    **dict.fromkeys(("phi-2", "jina-es", "jina-de", "gigachat", "jina-v2-es", "jina-v2-de"), _GPT2_KIND),
    **dict.fromkeys(("a.x-4.0", "mellum", "modern-bert", "exaone4", "mpt", "olmo", "jais"), _GPT2_KIND),
    **dict.fromkeys(("trillion", "granite-docling"), _GPT2_KIND),
    "smollm": _DIGITS_KIND,
    **dict.fromkeys(("starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b"), _DIGITS_KIND),
    "mellum2": _DIGITS_KIND,
    "falcon": PreTokenizer((r"[\p{P}$+<=>^~|`]+", GPT2, "[0-9][0-9][0-9]")),
    "deepseek-llm": PreTokenizer(
        (
            r"[\r\n]",
            rf"\s?{_CASED_LETTERS}+",
            r"\s?[!-/:-~！-／：-～‘-‟\u3000-。]+",
            r"\s+$",
            _HAN_OR_HANGUL,
            r"\p{N}+",
        )
    ),
    "deepseek-coder": PreTokenizer((r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", _HAN_OR_HANGUL, r"\p{N}")),
    **dict.fromkeys(
        ("deepseek-v3", "hunyuan-dense", "joyai-llm", "hy_v4"), PreTokenizer((r"\p{N}{1,3}", _CJK, _PUNCTUATED))
    ),
    "spark2_5": PreTokenizer(
        (
            r"\p{N}{1,3}",
            _CJK,
            _PUNCTUATED.replace(r"+[\r\n]*|\s*[\r\n]+", r"+|[\r\n]"),
            r"\p{N}",
        )
    ),
    "youtu": PreTokenizer((_YOUTU_SCRIPTS, _YOUTU), full_words=True),
    **dict.fromkeys(("poro-chat", "bloom", "gpt3-finnish"), PreTokenizer((_BLOOM,))),
    "viking": PreTokenizer((_BLOOM, r"\p{N}")),
    "tekken": PreTokenizer((_TEKKEN,), full_words=True, adds_bos=True),
    **dict.fromkeys(("gpt-4o", "llama4", "kanana2", "talkie", "minimax-m2"), _GPT4O_KIND),
    "granite-embed-multi-97m": PreTokenizer((_GPT4O,), full_words=True),
    **dict.fromkeys(("tiny_aya", "cohere2moe"), PreTokenizer((_FROM_THE_RIGHT, _GPT4O))),
    "kimi-k2": PreTokenizer((_KIMI,)),
    "superbpe": PreTokenizer((r"\p{N}+", r"(?=(?:\d{3}){1,300}(?!\d))")),
    **dict.fromkeys(("bailingmoe", "bailingmoe2", "llada-moe"), PreTokenizer((_BAILING,))),
    "seed-coder": PreTokenizer((rf"{_CONTRACTIONS}|{_WORD}|\p{{N}}| ?[^\s\p{{L}}\p{{N}}\r\n]+|{_LINES}|{_SPACES}",)),
    "afmoe": PreTokenizer((_FROM_THE_RIGHT, _AFMOE_SCRIPTS, _PUNCTUATED)),
    "laguna": PreTokenizer((_LINE_RUNS, QWEN2)),
    "minicpm5": PreTokenizer((r"\p{N}{1,3}", rf"{_CONTRACTIONS}|{_WORD}|\p{{N}}+|{_TAIL}"), full_words=True),
    "jais-2": PreTokenizer((rf"{_CONTRACTIONS}|{_WORD}|\p{{N}}{{1,3}}|{_SYMBOLS}[\r\n]*|{_LINES}|{_JAIS2}",)),
    "chameleon": PreTokenizer(
        (
            "<sentinel:[0-9]+>",
            "IMGIMG[A-I]{1,4}Z",
            r"[\t\n]|    |  ",
            r"\p{N}",
            r"[\p{P}!-/:-@\[-`{-~]",
            GPT2,
        ),
        adds_bos=True,
    ),
    "gemma4": PreTokenizer((_LINE_RUNS,), raw=True, adds_bos=True),
    "sarvam-moe": PreTokenizer((_LINE_RUNS,), raw=True),
}

PATTERN_NAMES: dict[str, str] = {
    pre.patterns[0]: name
    for name, pre in reversed(PRE_TOKENIZERS.items())
    if len(pre.patterns) == 1 and not pre.digits and not pre.raw
}
"""The first name of each pre-tokenizer of one pattern."""
