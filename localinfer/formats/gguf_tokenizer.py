"""The tokenizer inside a GGUF file, as `tokenizer.json` and `tokenizer_config.json`.

Byte-level BPE files ("gpt2") bring tokens and merges, and name their pre-tokenizer; SentencePiece files ("llama") bring
tokens and scores, from which the merges follow.
"""

import math
from dataclasses import dataclass
from typing import Any

from localinfer.errors import NotSupported
from localinfer.formats.gguf import GgufFile

_NORMAL, _UNKNOWN, _CONTROL, _USER, _UNUSED, _BYTE = range(1, 7)
_CONTRACTIONS = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_TAIL = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_QWEN2 = _CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}" + _TAIL
_LLAMA3 = _CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}" + _TAIL
_PATTERNS = {
    **dict.fromkeys(("llama-bpe", "llama3", "llama-v3"), _LLAMA3),
    **dict.fromkeys(("qwen2", "deepseek-r1-qwen"), _QWEN2),
}
_DIGITS = ("smollm", "starcoder", "refact", "command-r")
_END_NAMES = {
    "<|im_end|>",
    "<|eot_id|>",
    "<|eom_id|>",
    "<|end_of_text|>",
    "<|endoftext|>",
    "<|end|>",
    "<end_of_turn>",
    "<eos>",
    "</s>",
    "<EOT>",
}


PRE_NAMES = {_LLAMA3: "llama-bpe", _QWEN2: "qwen2"}
"""The pre-tokenizers that split by a pattern of their own."""


@dataclass(frozen=True, slots=True)
class GgufTokenizer:
    """`tokenizer.json` and `tokenizer_config.json` to write, and the ids that the configs name."""

    document: dict[str, Any]
    config: dict[str, Any]
    bos_id: int | None
    eos_ids: tuple[int, ...]
    pad_id: int | None


def read_gguf_tokenizer(file: GgufFile, rows: int) -> GgufTokenizer:
    """The tokenizer of `file`, whose embedding has `rows` rows. Raises `Corrupt` or `NotSupported`."""
    tokens, types = _tokens(file, rows)
    model = file.text("tokenizer.ggml.model")
    if model == "gpt2":
        parts = _byte_level(file, tokens)
    elif model == "llama":
        parts = _sentencepiece(file, tokens, types)
    else:
        raise NotSupported(f"{file.path.name}: tokenizer {model[:40]!r} is not known", hint="use `--backend llamacpp`")
    document = {"version": "1.0", "truncation": None, "padding": None, "added_tokens": _added(tokens, types), **parts}
    bos, eos, pad, unknown = (_special(file, name, tokens) for name in ("bos", "eos", "padding", "unknown"))
    adds_bos = bos is not None and file.metadata.get("tokenizer.ggml.add_bos_token", model == "llama") is True
    document["post_processor"] = _bos_first(tokens[bos], bos) if adds_bos and bos is not None else None
    ends = {eos, _special(file, "eot", tokens), _special(file, "eom", tokens)} - {None}
    ends |= {i for i, kind in enumerate(types) if kind == _CONTROL and tokens[i] in _END_NAMES}
    names = {"bos": bos, "eos": eos, "pad": pad, "unk": unknown}
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "add_bos_token": adds_bos,
        "clean_up_tokenization_spaces": False,
        "model_max_length": file.whole(f"{file.text('general.architecture')}.context_length"),
        **{f"{name}_token": tokens[index] for name, index in names.items() if index is not None},
    }
    template = file.text("tokenizer.chat_template", "")
    if template:
        config["chat_template"] = template
    return GgufTokenizer(document, config, bos, tuple(sorted(i for i in ends if i is not None)), pad)


def _tokens(file: GgufFile, rows: int) -> tuple[list[str], list[int]]:
    tokens = file.metadata.get("tokenizer.ggml.tokens")
    if not isinstance(tokens, list) or not tokens or not isinstance(tokens[0], str):
        raise file.error("`tokenizer.ggml.tokens` is missing")
    types = file.metadata.get("tokenizer.ggml.token_type", [_NORMAL] * len(tokens))
    if not isinstance(types, list) or len(types) != len(tokens) or not all(type(kind) is int for kind in types):
        raise file.error("`tokenizer.ggml.token_type` does not match `tokenizer.ggml.tokens`")
    if len(tokens) > rows:
        raise file.error(f"the tokenizer has {len(tokens)} tokens, but `token_embd.weight` has {rows} rows")
    if len(set(tokens)) != len(tokens) or not all(tokens):
        raise file.error("`tokenizer.ggml.tokens` has a token that is empty or there twice")
    return [str(token) for token in tokens], [int(kind) for kind in types]


def _special(file: GgufFile, name: str, tokens: list[str]) -> int | None:
    key = f"tokenizer.ggml.{name}_token_id"
    if key not in file.metadata:
        return None
    index = file.whole(key)
    if not 0 <= index < len(tokens):
        raise file.error(f"`{key}` is {index}, but there are {len(tokens)} tokens")
    return index


def _added(tokens: list[str], types: list[int]) -> list[dict[str, Any]]:
    """Control tokens are special; user-defined ones are matched in the text too, but shown."""
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    return [
        {"id": index, "content": tokens[index], **flags, "special": kind != _USER}
        for index, kind in enumerate(types)
        if kind in (_CONTROL, _USER, _UNKNOWN)
    ]


def _byte_level(file: GgufFile, tokens: list[str]) -> dict[str, Any]:
    merges = file.metadata.get("tokenizer.ggml.merges")
    if not isinstance(merges, list) or not all(isinstance(merge, str) for merge in merges):
        raise file.error("`tokenizer.ggml.merges` is missing")
    name = file.text("tokenizer.ggml.pre", "default")
    bytes_only = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    steps: list[dict[str, Any]]
    if name in _DIGITS:
        steps = [{"type": "Digits", "individual_digits": True}, bytes_only | {"use_regex": True}]
    elif name == "gpt-2":
        steps = [bytes_only | {"use_regex": True}]
    elif name in _PATTERNS:
        split = {"type": "Split", "pattern": {"Regex": _PATTERNS[name]}, "behavior": "Isolated", "invert": False}
        steps = [split, bytes_only]
    else:
        raise NotSupported(
            f"{file.path.name}: pre-tokenizer {name[:40]!r} is not known", hint="run it with `--backend llamacpp`"
        )
    return {
        "normalizer": {"type": "NFC"} if _PATTERNS.get(name) == _QWEN2 else None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": steps},
        "decoder": bytes_only | {"use_regex": True},
        "model": {
            **_bpe(tokens, unknown=None, fallback=False),
            # Llama 3 takes a whole word that is in the vocabulary, whatever the merges say.
            "ignore_merges": _PATTERNS.get(name) == _LLAMA3,
            "merges": [str(merge) for merge in merges],
        },
    }


def _bpe(tokens: list[str], *, unknown: str | None, fallback: bool) -> dict[str, Any]:
    return {
        "type": "BPE",
        "dropout": None,
        "unk_token": unknown,
        "continuing_subword_prefix": None,
        "end_of_word_suffix": None,
        "fuse_unk": fallback,
        "byte_fallback": fallback,
        "ignore_merges": False,
        "vocab": {token: index for index, token in enumerate(tokens)},
    }


def _sentencepiece(file: GgufFile, tokens: list[str], types: list[int]) -> dict[str, Any]:
    scores = file.metadata.get("tokenizer.ggml.scores")
    if not isinstance(scores, list) or len(scores) != len(tokens) or not all(type(s) is float for s in scores):
        raise file.error("`tokenizer.ggml.scores` does not match `tokenizer.ggml.tokens`")
    if not all(math.isfinite(float(score)) for score in scores):
        raise file.error("`tokenizer.ggml.scores` holds NaN or infinity")
    prefix = file.metadata.get("tokenizer.ggml.add_space_prefix", True) is True
    spaces = {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}
    shown = {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}
    unknown = next((token for token, kind in zip(tokens, types, strict=True) if kind == _UNKNOWN), None)
    start = [{"type": "Prepend", "prepend": "▁"}] if prefix else []
    strip = [{"type": "Strip", "content": " ", "start": 1, "stop": 0}] if prefix else []
    return {
        "normalizer": {"type": "Sequence", "normalizers": [*start, spaces]},
        "pre_tokenizer": None,
        "decoder": {"type": "Sequence", "decoders": [shown, {"type": "ByteFallback"}, {"type": "Fuse"}, *strip]},
        "model": {
            **_bpe(tokens, unknown=unknown, fallback=True),
            "merges": _merges(tokens, types, [float(score) for score in scores]),
        },
    }


def _merges(tokens: list[str], types: list[int], scores: list[float]) -> list[list[str]]:
    """Every way to put a normal token together from two others, the best-scored results first."""
    known = {token: index for index, token in enumerate(tokens) if types[index] == _NORMAL}
    found = []
    for token, index in known.items():
        for cut in range(1, len(token)):
            left, right = known.get(token[:cut]), known.get(token[cut:])
            if left is not None and right is not None:
                found.append((-scores[index], index, left, right))
    found.sort()
    return [[tokens[left], tokens[right]] for _, _, left, right in found]


def _bos_first(token: str, index: int) -> dict[str, Any]:
    def text(name: str) -> dict[str, Any]:
        return {"Sequence": {"id": name, "type_id": 0}}

    bos = {"SpecialToken": {"id": token, "type_id": 0}}
    return {
        "type": "TemplateProcessing",
        "single": [bos, text("A")],
        "pair": [bos, text("A"), bos, text("B")],
        "special_tokens": {token: {"id": token, "ids": [index], "tokens": [token]}},
    }
