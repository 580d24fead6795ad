"""All that a tokenizer is made of, once the files of a model directory were read, checked and put together."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from localinfer.errors import Corrupt, NotSupported
from localinfer.formats.chat_templates import DEFAULT, read_templates
from localinfer.formats.json_files import shown
from localinfer.formats.tokenizer_files import NAMED, completed, optional_object, read_declared
from localinfer.formats.tokenizer_json import (
    MAX_ID,
    AddedToken,
    TokenizerFile,
    full_document,
    plain_document,
    read_tokenizer_file,
)

_AGAIN = "download the model again"


@dataclass(frozen=True, slots=True)
class TokenizerParts:
    """What the files say, as far as it is used. The documents are JSON for the tokenizers library."""

    first: str
    """Of text that begins."""
    later: str | None
    """Of text that something precedes; None: the same."""
    full: str | None
    """With all added tokens, where the library alone can say what they match."""
    tokens: Mapping[int, str]
    added: tuple[AddedToken, ...]
    text_ids: frozenset[int]
    """Added tokens that may come of a text that a person wrote."""
    decoder: Any
    spaced: bool
    """As `TokenizerFile.matches_spaced`."""
    same_as: Mapping[int, int]
    """Tokens that mean what another one means."""
    chat_templates: dict[str, str]
    named: dict[str, str]
    """Tokens that templates may name, such as `pad_token`, and their texts."""
    eos_ids: tuple[int, ...]
    vocab_size: int
    bos_id: int | None
    adds_bos: bool
    after: tuple[int, ...]
    notes: tuple[str, ...]


def read_parts(directory: Path) -> TokenizerParts:
    """Read and check the files in `directory`. Raises as `Tokenizer` does."""
    path = directory / "tokenizer.json"
    config = optional_object(directory / "tokenizer_config.json")
    declared = read_declared(directory, config)
    file, notes = completed(read_tokenizer_file(path), declared, _rows(directory))
    templates = read_templates(directory, config)
    named = {name: token.content for name, token in declared.named.items() if token is not None and token.content}
    ids = {content: index for index, content in file.tokens.items()}
    bos, eos = (named.get(name, "") for name in NAMED[:2])
    eos_ids = _eos_ids(directory, ids.get(eos))
    file = file.with_words(templates.values(), eos_ids)
    before, after = _around(file)
    bos_id = ids.get(bos)
    adds_bos = bos_id is not None and before == [bos]
    notes += _unread(config, file, templates, before, after, adds_bos)
    starts_apart = '"first"' in json.dumps(file.document.get("pre_tokenizer"))
    return TokenizerParts(
        first=_text(plain_document(file, first=True)),
        later=_text(plain_document(file, first=False)) if starts_apart else None,
        full=_text(full_document(file)) if file.matches_spaced else None,
        tokens=file.tokens,
        added=file.added,
        text_ids=frozenset(token.id for token in file.added if file.is_text(token)),
        decoder=file.document.get("decoder"),
        spaced=file.matches_spaced,
        same_as=_same_as(directory, config, file),
        chat_templates=templates,
        named=named,
        eos_ids=eos_ids,
        vocab_size=max(file.tokens) + 1,
        bos_id=bos_id,
        adds_bos=adds_bos,
        after=tuple(ids[one] for one in after if one in ids),
        notes=tuple(notes),
    )


def require_tokenizer(directory: Path) -> Path:
    """The `tokenizer.json`. Raises `NotSupported` where there is another kind of tokenizer only."""
    path = directory / "tokenizer.json"
    if not path.exists() and (directory / "tokenizer.model").exists():
        raise NotSupported(
            f"{directory}: has tokenizer.model only", hint="use a repository that has tokenizer.json too"
        )
    return path


def _text(document: dict[str, Any]) -> str:
    return json.dumps(document, ensure_ascii=False)


def _eos_ids(directory: Path, eos_id: int | None) -> tuple[int, ...]:
    """The union of what the tokenizer and the two configs call end of sequence."""
    found = set() if eos_id is None else {eos_id}
    for name in ("generation_config.json", "config.json"):
        value = optional_object(directory / name).get("eos_token_id")
        values: Sequence[Any] = value if isinstance(value, list) else [] if value is None else [value]
        for item in values:
            if type(item) is not int or not 0 <= item <= MAX_ID:
                raise Corrupt(f"{directory / name}: `eos_token_id` is {str(item)[:40]}, not a token id", hint=_AGAIN)
            found.add(item)
    return tuple(sorted(found))


def _same_as(directory: Path, config: dict[str, Any], file: TokenizerFile) -> dict[int, int]:
    """Tokens that mean what another one means: `same_as` of tokenizer_config.json, which `import` writes."""
    value = config.get("same_as") or {}
    found: dict[int, int] = {}
    for one, other in value.items() if isinstance(value, dict) else [("", None)]:
        index = int(one) if one.isdecimal() and len(one) < 9 else -1
        if index not in file.tokens or type(other) is not int or other not in file.tokens:
            raise Corrupt(f"{directory}: `same_as` in tokenizer_config.json must give tokens for tokens", hint=_AGAIN)
        found[index] = other
    return found


def _rows(directory: Path) -> int | None:
    """Rows of the embedding, as far as config.json tells."""
    config = optional_object(directory / "config.json")
    inner = config.get("text_config")
    rows = config.get("vocab_size", inner.get("vocab_size") if isinstance(inner, dict) else None)
    return rows if type(rows) is int else None


def _around(file: TokenizerFile) -> tuple[list[str], list[str]]:
    """The special tokens that the post-processor puts before and after one text."""
    processor = file.document.get("post_processor")
    parts = [processor]
    if isinstance(processor, dict) and isinstance(processor.get("processors"), list):
        parts = processor["processors"]
    before, after = list[str](), list[str]()
    for part in parts:
        single = part.get("single") if isinstance(part, dict) else None
        here = before
        for piece in single if isinstance(single, list) else []:
            token = piece.get("SpecialToken") if isinstance(piece, dict) else None
            if isinstance(token, dict) and isinstance(token.get("id"), str):
                here.append(token["id"])
            else:
                here = after
    return before, after


def _unread(
    config: Mapping[str, Any],
    file: TokenizerFile,
    templates: Mapping[str, str],
    before: Sequence[str],
    after: Sequence[str],
    adds_bos: bool,
) -> Iterator[str]:
    """What the files say that would change a prompt or an answer, and is not done here."""
    if before and not adds_bos:
        yield f"texts of their own (`--raw`) are read without {shown(' '.join(before))} before them"
    if isinstance(said := config.get("add_bos_token"), bool) and said is not adds_bos:
        yield f"`add_bos_token` is {str(said).lower()} in tokenizer_config.json; tokenizer.json decides, and differs"
    if after:
        yield f"texts of their own (`--raw`) are read without {shown(' '.join(after))} after them"
    if config.get("split_special_tokens") is True:
        yield "`split_special_tokens` of tokenizer_config.json is not followed: a template's special tokens are tokens"
    if config.get("clean_up_tokenization_spaces") is True and file.kind != "BPE":
        yield "`clean_up_tokenization_spaces` of tokenizer_config.json is not followed: answers keep their spaces"
    if templates and DEFAULT not in templates:
        yield f"its chat templates are named {shown(', '.join(templates))}, and none holds by default"
