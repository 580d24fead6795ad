"""`tokenizer.json`, checked before the tokenizers library sees it, and made safe for text that a person wrote.

The library panics on odd files, runs any regular expression a file brings, and parses `<|im_start|>` wherever it is.
So the file is checked here first, and `plain_document` makes a second one in which no text can become an added token.
"""

import re
import secrets
from collections.abc import Collection, Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from localinfer.errors import Corrupt, NotSupported
from localinfer.formats.json_files import TOKENIZER_LIMIT, read_object

MAX_ID = (1 << 22) - 1
"""Largest token id that is believed; the largest vocabularies in use have about 2**18 tokens."""

MAX_ADDED = 1 << 16
MAX_CONTENT = 4096
MAX_PATTERN = 4096
_KINDS = "use a model with a byte-level BPE or a SentencePiece tokenizer"
_HINT = "download the model again; its tokenizer.json is damaged"


@dataclass(frozen=True, slots=True)
class AddedToken:
    """A token that is matched in the text before the model splits it; `special` ones are never shown."""

    id: int
    content: str
    special: bool
    lstrip: bool
    rstrip: bool
    single_word: bool
    normalized: bool = False
    """Matched in the normalized text, not in the text as it is."""

    @property
    def harmless(self) -> bool:
        """Runs of spaces and line ends are text like any other, though some tokenizers keep them here."""
        return not self.special and not self.content.strip(" \t\r\n▁")


@dataclass(frozen=True, slots=True)
class TokenizerFile:
    """A checked `tokenizer.json`: the whole document, every token's text by id, and the added tokens."""

    document: dict[str, Any]
    kind: str
    tokens: dict[int, str]
    added: tuple[AddedToken, ...]
    words: frozenset[str] = frozenset()
    """Added tokens that are ordinary words, so they are matched in anyone's text."""

    def is_text(self, token: AddedToken) -> bool:
        """Whether an added token may come of a text that a person wrote."""
        return token.harmless or token.content in self.words

    def with_words(self, templates: Iterable[str], ends: Collection[int]) -> "TokenizerFile":
        """The same with its ordinary words told: added tokens that are not special, are not written like control
        tokens, stand in no chat template and end no reply. Many models list control tokens as not special."""
        written = "\0".join(templates)
        last = MAX_ID if self.kind == "BPE" else self.model_size + len(self.added)
        return replace(
            self,
            words=frozenset(
                token.content
                for token in self.added
                if not token.special
                and token.id <= last
                and token.id not in ends
                and not _CONTROL.search(token.content)
                and token.content.strip() not in written
            ),
        )

    @property
    def model_size(self) -> int:
        """Tokens of the model itself, added ones not counted."""
        return len(self.document["model"]["vocab"])

    @property
    def matches_spaced(self) -> bool:
        """Whether added tokens are matched after SentencePiece's normalizer has put spaces before words. Where a token
        ends, and how the text after it begins, is then for the library alone to say."""
        normalizer = self.document.get("normalizer")
        inner = normalizer.get("normalizers") if isinstance(normalizer, dict) else None
        parts = inner if isinstance(inner, list) else [normalizer]
        kinds = {str(part.get("type")) for part in parts if isinstance(part, dict)}
        normalized = any(token.normalized and not token.harmless for token in self.added)
        return normalized and "Prepend" in kinds and kinds <= {"Prepend", "Replace"}

    def with_added(self, added: tuple[AddedToken, ...]) -> "TokenizerFile":
        """The same with these added tokens."""
        if added == self.added:
            return self
        entries = [asdict(token) for token in sorted(added, key=lambda token: token.id)]
        return TokenizerFile(
            self.document | {"added_tokens": entries},
            self.kind,
            self.tokens | {token.id: token.content for token in added},
            added,
            self.words,
        )


def read_tokenizer_file(path: Path) -> TokenizerFile:
    """Read and check `path`. Raises `NotFound`, `Corrupt` (naming the field) or `NotSupported`."""
    document = read_object(path, TOKENIZER_LIMIT)
    model = document.get("model")
    if not isinstance(model, dict):
        raise Corrupt(f"{path}: `model` must be an object", hint=_HINT)
    kind = model.get("type") or ("BPE" if "merges" in model else "Unigram")
    if kind not in ("BPE", "Unigram"):
        raise NotSupported(f"{path}: a {str(kind)[:40]!r} tokenizer is not supported", hint=_KINDS)
    if not isinstance(model.get("unk_token"), (str, type(None))):
        raise Corrupt(f"{path}: `model.unk_token` must be text", hint=_HINT)
    if model.get("continuing_subword_prefix") or model.get("end_of_word_suffix"):
        # Some prefixes abort the library, and with it this process.
        raise NotSupported(f"{path}: subword prefixes and suffixes are not supported", hint=_KINDS)
    tokens = _bpe_tokens(path, model) if kind == "BPE" else _unigram_tokens(path, model)
    added = _added_tokens(path, document.get("added_tokens") or [])
    by_content = {content: index for index, content in tokens.items()}
    for token in added:
        if by_content.get(token.content, token.id) != token.id or tokens.get(token.id, token.content) != token.content:
            raise Corrupt(f"{path}: added token {token.content!r} and `model.vocab` disagree on its id", hint=_HINT)
        tokens[token.id] = token.content
    for field in ("normalizer", "pre_tokenizer", "decoder"):
        _check_patterns(path, field, document.get(field))
    return TokenizerFile(document, kind, tokens, added)


def _bpe_tokens(path: Path, model: dict[str, Any]) -> dict[int, str]:
    vocab, merges = model.get("vocab"), model.get("merges")
    if not isinstance(vocab, dict) or not vocab:
        raise Corrupt(f"{path}: `model.vocab` must be an object that is not empty", hint=_HINT)
    if not all(type(index) is int and 0 <= index <= MAX_ID for index in vocab.values()):
        raise Corrupt(f"{path}: `model.vocab` has an id that is not a whole number up to {MAX_ID}", hint=_HINT)
    tokens = {index: content for content, index in vocab.items()}
    if len(tokens) != len(vocab):
        raise Corrupt(f"{path}: `model.vocab` gives one id to two tokens", hint=_HINT)
    if not isinstance(merges, list):
        raise Corrupt(f"{path}: `model.merges` must be a list", hint=_HINT)
    return tokens


def _unigram_tokens(path: Path, model: dict[str, Any]) -> dict[int, str]:
    vocab = model.get("vocab")
    if not isinstance(vocab, list) or not 0 < len(vocab) <= MAX_ID:
        raise Corrupt(f"{path}: `model.vocab` must be a list that is not empty", hint=_HINT)
    for entry in vocab:
        if not (
            isinstance(entry, list) and len(entry) == 2 and type(entry[0]) is str and type(entry[1]) in (int, float)
        ):
            raise Corrupt(f"{path}: `model.vocab` holds {str(entry)[:80]}, not a token and its score", hint=_HINT)
    unknown = model.get("unk_id")
    if unknown is not None and not (type(unknown) is int and 0 <= unknown < len(vocab)):
        raise Corrupt(f"{path}: `model.unk_id` is {unknown!r}, but there are {len(vocab)} tokens", hint=_HINT)
    if len({entry[0] for entry in vocab}) != len(vocab):
        raise Corrupt(f"{path}: `model.vocab` holds one token twice", hint=_HINT)
    return {index: entry[0] for index, entry in enumerate(vocab)}


def _added_tokens(path: Path, entries: object) -> tuple[AddedToken, ...]:
    if not isinstance(entries, list) or len(entries) > MAX_ADDED:
        raise Corrupt(f"{path}: `added_tokens` must be a list of at most {MAX_ADDED} tokens", hint=_HINT)
    added = []
    for entry in entries:
        content = entry.get("content") if isinstance(entry, dict) else None
        index = entry.get("id") if isinstance(entry, dict) else None
        if not isinstance(content, str) or not 0 < len(content) <= MAX_CONTENT:
            raise Corrupt(f"{path}: `added_tokens` holds {str(entry)[:80]}, which has no text", hint=_HINT)
        if type(index) is not int or not 0 <= index <= MAX_ID:
            raise Corrupt(f"{path}: added token {content[:80]!r} has the id {str(index)[:40]}", hint=_HINT)
        flags = (entry.get(name) is True for name in ("special", "lstrip", "rstrip", "single_word", "normalized"))
        added.append(AddedToken(index, content, *flags))
    if len({token.id for token in added}) != len(added) or len({token.content for token in added}) != len(added):
        raise Corrupt(f"{path}: `added_tokens` has one token or id twice", hint=_HINT)
    return tuple(added)


def _check_patterns(path: Path, field: str, value: object) -> None:
    """Refuse regular expressions that could take exponential time on some text."""
    if isinstance(value, list):
        for item in value:
            _check_patterns(path, field, item)
    elif isinstance(value, dict):
        pattern = value.get("Regex")
        if isinstance(pattern, str) and (len(pattern) > MAX_PATTERN or repeats_a_group(pattern)):
            raise NotSupported(
                f"{path}: `{field}` has a regular expression that could run for ever: {pattern[:80]!r}",
                hint="use the tokenizer.json of the original model",
            )
        if value.get("type") == "Precompiled" and not isinstance(value.get("precompiled_charsmap"), str):
            raise Corrupt(f"{path}: `{field}` has no precompiled_charsmap", hint=_HINT)
        for item in value.values():
            _check_patterns(path, field, item)


_CONTROL = re.compile(r"[<\[{(].*[>\]})]|<[|/\uff5c]|[|/\uff5c]>", re.DOTALL)
"""How control tokens are written: in brackets, or half of `<|…|>`."""

_SYNTAX = re.compile(r"\\.|\[(?:\\.|\[:|[^\]\\])*\]|\)(?:[*+]|\{\d*,\})", re.DOTALL)


def repeats_a_group(pattern: str) -> bool:
    """Whether a group is repeated without bound, as in `(a+)+`. No tokenizer in use needs it."""
    return any(match.group().startswith(")") for match in _SYNTAX.finditer(pattern))


def full_document(file: TokenizerFile) -> dict[str, Any]:
    """`file.document` with all its tokens, but nothing put before or after a text, and nothing left to chance."""
    document = dict(file.document, post_processor=None, truncation=None, padding=None)
    if file.kind == "BPE":
        document["model"] = document["model"] | {"dropout": None}
    return document


def plain_document(file: TokenizerFile, *, first: bool) -> dict[str, Any]:
    """`file.document` changed so that no text encodes to an added token, and nothing is put before or after the text.

    Harmless added tokens and words stay. `first` False is for text that something precedes: a prefix space meant for
    the start of a text is then left out.
    """
    of_text = [token for token in file.added if file.is_text(token)]
    gone = {token.content: f"\0{secrets.token_hex(8)}:{token.id}" for token in file.added if not file.is_text(token)}
    contents = {token.content for token in of_text}
    document = dict(file.document, post_processor=None, truncation=None, padding=None)
    document["added_tokens"] = [t for t in file.document.get("added_tokens") or [] if t["content"] in contents]
    model = dict(document["model"], type=file.kind)
    model |= {"continuing_subword_prefix": None, "end_of_word_suffix": None} if file.kind == "BPE" else {}
    if file.kind == "BPE":
        model["dropout"] = None  # it would make the tokens random
        vocab = {gone.get(content, content): index for content, index in model["vocab"].items()}
        vocab.update((token.content, token.id) for token in of_text)
        model["vocab"] = vocab
        if any(content in file.document["model"]["vocab"] for content in gone):
            model["merges"] = _without_parts(model["merges"], gone)
        if model.get("unk_token") in gone:
            model["unk_token"] = gone[model["unk_token"]]
    else:
        model["vocab"] = [[gone.get(content, content), score] for content, score in model["vocab"]]
        model["vocab"] += _beyond(file, of_text)
    document["model"] = model
    if not first:
        document["pre_tokenizer"] = _without_prefix(document.get("pre_tokenizer"))
    return document


def _beyond(file: TokenizerFile, of_text: list[AddedToken]) -> list[list[object]]:
    """Pieces behind a Unigram vocabulary, so that added words keep their ids; the library numbers them itself."""
    words = {token.id: token.content for token in of_text if token.content in file.words}
    lowest = min(score for _, score in file.document["model"]["vocab"])
    after = range(file.model_size, max(words, default=0) + 1)
    return [[words.get(index, f"\0{secrets.token_hex(8)}:{index}"), lowest] for index in after]


def _without_parts(merges: list[Any], gone: dict[str, str]) -> list[Any]:
    """`merges` but those that use or make one of the tokens in `gone`."""
    starts = {content[0] for content in gone}  # most merges hold none of these, which is quickly seen
    try:
        texts = [merge if type(merge) is str else "".join(merge) for merge in merges]
    except TypeError:  # the library says what is wrong with it
        return [merge for merge in merges if not _touches(merge, gone)]
    return [
        merge for merge, text in zip(merges, texts, strict=True) if starts.isdisjoint(text) or not _touches(merge, gone)
    ]


def _touches(merge: object, gone: dict[str, str]) -> bool:
    parts = merge.split(" ") if isinstance(merge, str) else merge
    if not isinstance(parts, list) or len(parts) != 2 or not all(type(part) is str for part in parts):
        return False  # the library says what is wrong with it
    return parts[0] + parts[1] in gone or parts[0] in gone or parts[1] in gone


def _without_prefix(value: Any) -> Any:
    """The pre-tokenizer with every "first word only" prefix taken out."""
    if isinstance(value, dict):
        changed = {key: _without_prefix(item) for key, item in value.items()}
        return dict(changed, prepend_scheme="never") if changed.get("prepend_scheme") == "first" else changed
    return [_without_prefix(item) for item in value] if isinstance(value, list) else value
