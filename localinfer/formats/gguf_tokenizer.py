"""The tokenizer inside a GGUF file, as `tokenizer.json` and `tokenizer_config.json`.

Byte-level BPE files ("gpt2") bring tokens and merges, and name their pre-tokenizer; "gemma4" brings the same as UTF-8;
SentencePiece files ("llama") bring tokens and scores, from which the merges follow. Defaults are llama.cpp's.
"""

import math
from dataclasses import dataclass, field
from typing import Any

from localinfer.errors import NotSupported
from localinfer.formats import chat_templates
from localinfer.formats.gguf import GgufFile
from localinfer.formats.gguf_ends import end_tokens
from localinfer.formats.gguf_pretokenizers import DEFAULT, PRE_TOKENIZERS, PreTokenizer

_NORMAL, _UNKNOWN, _CONTROL, _USER, _UNUSED, _BYTE = range(1, 7)
_BOS_FIRST = ("llama",)
"""Kinds that put BOS before every text unless the file says otherwise."""
_DEFAULT_IDS = {
    "llama": {"bos": 1, "eos": 2, "unknown": 0},
    "gpt2": {"bos": 11, "eos": 11},
    "gemma4": {},
}
"""Of a file that names none, where it has that many tokens."""
_KEY = "tokenizer.ggml."
TEMPLATE = "tokenizer.chat_template"
TOOLS_TEMPLATE = "tokenizer.chat_template.tool_use"
_SPECIAL = ("bos", "eos", "eot", "eom", "unknown", "padding", "fim_pad", "fim_rep", "fim_sep")
_READ = {
    *("model", "pre", "tokens", "token_type", "scores", "merges", "add_bos_token", "add_space_prefix"),
    *(f"{name}_token_id" for name in _SPECIAL),
}
_WITHOUT_EFFECT = {
    *(f"{name}_token_id" for name in ("seperator", "separator", "cls", "mask", "fim_pre", "fim_suf", "fim_mid")),
    *("prefix_token_id", "suffix_token_id", "middle_token_id", "token_type_count", "remove_extra_whitespaces"),
}
"""What llama.cpp does not look at when a text is continued by such a model."""
_OFF = ("add_eos_token", "add_sep_token", "normalizer.lowercase", "normalizer.strip_accents", "suppress_tokens")
"""What must be false or empty."""
_LLAMACPP = "run it with `--backend llamacpp`"


@dataclass(slots=True)
class _Vocabulary:
    """Each token's text (every one another) and type, which tokens stand for another one, and what there is to tell."""

    tokens: list[str]
    types: list[int]
    same_as: dict[int, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class GgufTokenizer:
    """`tokenizer.json` and `tokenizer_config.json` to write, the ids that the configs name, and what to tell."""

    document: dict[str, Any]
    config: dict[str, Any]
    bos_id: int | None
    eos_ids: tuple[int, ...]
    pad_id: int | None
    notes: tuple[str, ...] = ()


def read_gguf_tokenizer(file: GgufFile, rows: int) -> GgufTokenizer:
    """The tokenizer of `file`, whose embedding has `rows` rows. Raises `Corrupt` or `NotSupported`."""
    _refuse_keys(file)
    vocabulary = _vocabulary(file, rows)
    tokens, types = vocabulary.tokens, vocabulary.types
    model = file.text(f"{_KEY}model")
    if model not in _DEFAULT_IDS:
        raise NotSupported(f"{file.path.name}: tokenizer {model[:40]!r} is not known", hint=_LLAMACPP)
    pre = _pre_tokenizer(file, model, vocabulary.notes) if model != "llama" else PreTokenizer(())
    adds_bos = _flag(file, "add_bos_token", pre.adds_bos or model in _BOS_FIRST)
    ids = _special_ids(file, model, adds_bos and not pre.no_bos, vocabulary)
    ends = end_tokens(tokens, ids)
    for index in ends:
        types[index] = _CONTROL  # whatever the file says: it ends a reply and is not shown
    if model == "llama":
        parts = _sentencepiece(file, tokens, types)
    else:
        parts = (_raw if pre.raw else _byte_level)(file, tokens, pre)
    bos = ids.get("bos")
    adds_bos = adds_bos and bos is not None
    added = _added(tokens, types)
    document = {"version": "1.0", "truncation": None, "padding": None, "added_tokens": added, **parts}
    document["post_processor"] = _bos_first(tokens[bos], bos) if adds_bos and bos is not None else None
    names = {"bos": bos, "eos": ids.get("eos"), "pad": ids.get("padding"), "unk": ids.get("unknown")}
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "add_bos_token": adds_bos,
        "clean_up_tokenization_spaces": False,
        "model_max_length": file.integer(f"{file.text('general.architecture')}.context_length"),
        **{f"{name}_token": tokens[index] for name, index in names.items() if index is not None},
    }
    if vocabulary.same_as:
        config["same_as"] = {str(index): other for index, other in vocabulary.same_as.items()}
    if template := file.text(TEMPLATE, ""):
        config["chat_template"] = template
    if with_tools := file.text(TOOLS_TEMPLATE, ""):
        named = {chat_templates.DEFAULT: template, chat_templates.WITH_TOOLS: with_tools}
        config["chat_template"] = [{"name": name, "template": text} for name, text in named.items() if text]
    return GgufTokenizer(document, config, bos, ends, ids.get("padding"), tuple(vocabulary.notes))


def _refuse_keys(file: GgufFile) -> None:
    """Every `tokenizer.ggml.*` key is read, known to change nothing here, or refused."""
    for key, value in file.metadata.items():
        name = key.removeprefix(_KEY)
        if name == key or name in _READ or name in _WITHOUT_EFFECT:
            continue
        if name in _OFF and value in (False, 0, []):
            continue
        if name == "precompiled_charsmap" and value == []:
            continue
        shown = f" is {str(value)[:40]}, which" if name in _OFF else ""
        raise NotSupported(f"{file.path.name}: `{key[:80]}`{shown} is not supported", hint=_LLAMACPP)


def _flag(file: GgufFile, name: str, default: bool) -> bool:
    value = file.metadata.get(f"{_KEY}{name}", default)
    if not isinstance(value, bool):
        raise file.error(f"`{_KEY}{name}` is neither true nor false")
    return value


def _vocabulary(file: GgufFile, rows: int) -> _Vocabulary:
    found = file.metadata.get(f"{_KEY}tokens")
    if not isinstance(found, list) or not found or not isinstance(found[0], str):
        raise file.error(f"`{_KEY}tokens` is missing")
    types = _numbers(file, "token_type", len(found), (int,)) or [_NORMAL] * len(found)
    if len(found) > rows:
        raise file.error(f"the tokenizer has {len(found)} tokens, but `token_embd.weight` has {rows} rows")
    made = _Vocabulary([str(token) for token in found], [int(kind) for kind in types])
    taken = set(made.tokens)
    first: dict[str, int] = {}
    for index, token in enumerate(made.tokens):
        if not token:
            made.tokens[index] = _unused_name(f"[EMPTY_{index}]", taken)
        elif token in first:
            made.same_as[index] = first[token]
            made.tokens[index] = _unused_name(f"[DUPLICATE_{index}]", taken)
            made.types[index] = _UNUSED
        else:
            first[token] = index
    empty = found.count("")
    if empty:
        made.notes.append(f"{empty} tokens have no text; they are called [EMPTY_n]")
    if made.same_as:
        index, other = next(iter(made.same_as.items()))
        made.notes.append(
            f"{len(made.same_as)} tokens are there twice: text becomes the first of them"
            f" ({made.tokens[other]!r} is {other}, not {index})"
        )
    return made


def _unused_name(name: str, taken: set[str]) -> str:
    while name in taken:
        name += "_"
    taken.add(name)
    return name


def _numbers(file: GgufFile, name: str, count: int, kinds: tuple[type, ...]) -> list[Any] | None:
    """A list of at least `count` numbers, cut to that; None where there is none."""
    found = file.metadata.get(f"{_KEY}{name}")
    if found is None:
        return None
    if not isinstance(found, list) or len(found) < count or not all(type(item) in kinds for item in found[:count]):
        raise file.error(f"`{_KEY}{name}` does not match `{_KEY}tokens`")
    return found[:count]


def _special_ids(file: GgufFile, model: str, adds_bos: bool, vocabulary: _Vocabulary) -> dict[str, int]:
    """Ids by name. One that the file does not name, or that is none, is llama.cpp's default, and that is told."""
    count = len(vocabulary.tokens)
    ids: dict[str, int] = {}
    for name in _SPECIAL:
        key = f"{_KEY}{name}_token_id"
        index = file.integer(key) if key in file.metadata else -1
        if 0 <= index < count:
            ids[name] = index
            continue
        default = _DEFAULT_IDS[model].get(name, count)
        if default < count and (name != "bos" or adds_bos):
            ids[name] = default
        if key in file.metadata or (name in ids and name != "unknown"):
            what = f"is {index}, but there are {count} tokens" if key in file.metadata else "is missing"
            taken = f"{default} ({vocabulary.tokens[default]!r})" if name in ids else "none"
            vocabulary.notes.append(f"`{key}` {what}: it is taken to be {taken}, as llama.cpp does")
    return ids


def _added(tokens: list[str], types: list[int]) -> list[dict[str, Any]]:
    """Control tokens are special; user-defined ones are matched in the text too, but shown."""
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    return [
        {"id": index, "content": tokens[index], **flags, "special": kind != _USER}
        for index, kind in enumerate(types)
        if kind in (_CONTROL, _USER, _UNKNOWN)
    ]


def _pre_tokenizer(file: GgufFile, model: str, notes: list[str]) -> PreTokenizer:
    if model == "gemma4":
        return PRE_TOKENIZERS["gemma4"]
    name = file.text(f"{_KEY}pre", "")
    if not name:
        notes.append(
            f"`{_KEY}pre` is missing: text is cut as llama.cpp does by default, which may not be the model's way"
        )
    if (found := PRE_TOKENIZERS.get(name or DEFAULT)) is None:
        raise NotSupported(f"{file.path.name}: pre-tokenizer {name[:40]!r} is not known", hint=_LLAMACPP)
    return found


def _byte_level(file: GgufFile, tokens: list[str], pre: PreTokenizer) -> dict[str, Any]:
    bytes_only = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    return {
        "normalizer": {"type": "NFC"} if pre.composes else None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": pre.steps()},
        "decoder": bytes_only,
        "model": {
            **_bpe(tokens, unknown=None, fallback=False),
            "ignore_merges": pre.full_words,
            "merges": _merges(file, tokens),
        },
    }


def _raw(file: GgufFile, tokens: list[str], pre: PreTokenizer) -> dict[str, Any]:
    """Byte pair encoding of UTF-8 in which `▁` stands for a space, and `<0xXX>` for a byte of what has no token."""
    return {
        "normalizer": {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": pre.steps()},
        "decoder": {"type": "Sequence", "decoders": [_SHOWN_SPACE, {"type": "ByteFallback"}, {"type": "Fuse"}]},
        "model": {**_bpe(tokens, unknown=None, fallback=True), "merges": _merges(file, tokens)},
    }


_SHOWN_SPACE = {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}


def _merges(file: GgufFile, tokens: list[str]) -> list[list[str]]:
    """The file's merges, the first of equal ones. Raises `NotSupported` for one that makes no token."""
    merges = file.metadata.get(f"{_KEY}merges")
    if not isinstance(merges, list) or not all(isinstance(merge, str) for merge in merges):
        raise file.error(f"`{_KEY}merges` is missing")
    known = set(tokens)
    pairs: dict[tuple[str, str], None] = {}
    for merge in merges:
        first, _, second = str(merge)[1:].partition(" ")
        first = str(merge)[:1] + first  # a token may be a space, or begin with one
        if not first or not second:
            raise file.error(f"`{_KEY}merges` holds {str(merge)[:80]!r}, which is no pair")
        for token in (first, second, first + second):
            if token not in known:
                raise NotSupported(
                    f"{file.path.name}: the merge {str(merge)[:80]!r} is of no use: {token[:80]!r} is not a token",
                    hint=f"use another GGUF file of the model, or {_LLAMACPP}",
                )
        pairs.setdefault((first, second))
    return [[first, second] for first, second in pairs]


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
    found = _numbers(file, "scores", len(tokens), (float, int))
    if found is None:
        raise file.error(f"`{_KEY}scores` is missing")
    scores = [float(score) for score in found]
    if not all(math.isfinite(score) for score in scores):
        raise file.error(f"`{_KEY}scores` holds NaN or infinity")
    prefix = _flag(file, "add_space_prefix", True)
    spaces = {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}
    unknown = next((token for token, kind in zip(tokens, types, strict=True) if kind == _UNKNOWN), None)
    start = [{"type": "Prepend", "prepend": "▁"}] if prefix else []
    strip = [{"type": "Strip", "content": " ", "start": 1, "stop": 0}] if prefix else []
    return {
        "normalizer": {"type": "Sequence", "normalizers": [*start, spaces]},
        "pre_tokenizer": None,
        "decoder": {"type": "Sequence", "decoders": [_SHOWN_SPACE, {"type": "ByteFallback"}, {"type": "Fuse"}, *strip]},
        "model": {**_bpe(tokens, unknown=unknown, fallback=True), "merges": _scored_merges(tokens, types, scores)},
    }


def _scored_merges(tokens: list[str], types: list[int], scores: list[float]) -> list[list[str]]:
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
