"""Tokens that stand beside `tokenizer.json`, and which of them hold: as `transformers` (5.23) puts them together.

`tokenizer_config.json` names tokens (`bos_token`) and lists added ones (`added_tokens_decoder`). Where it has no such
list, what `special_tokens_map.json` says goes before it, and `added_tokens.json` adds tokens. A token that
`tokenizer.json` has takes the flags of the list; a new one gets the next free id, whatever number the list gives it.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from localinfer.errors import Corrupt
from localinfer.formats.json_files import CONFIG_LIMIT, read_object, shown
from localinfer.formats.tokenizer_json import MAX_ADDED, MAX_CONTENT, AddedToken, TokenizerFile

NAMED = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
_AGAIN = "download the model again"


@dataclass(slots=True)
class DeclaredTokens:
    """What the files beside `tokenizer.json` say. Ids in `listed` are those of the file, not those in force."""

    named: dict[str, AddedToken | None] = field(default_factory=lambda: dict.fromkeys(NAMED))
    extra: list[AddedToken] = field(default_factory=list)
    listed: dict[int, AddedToken] = field(default_factory=dict)
    legacy: bool = False
    """Whether `listed` is of `added_tokens.json`; the tokens of `tokenizer.json` then go before those of equal id."""


def optional_object(path: Path) -> dict[str, Any]:
    """The JSON object in a small file; empty where there is no such file."""
    return read_object(path, CONFIG_LIMIT) if path.exists() else {}


def read_declared(directory: Path, config: Mapping[str, Any]) -> DeclaredTokens:
    """The tokens of a model directory, whose `tokenizer_config.json` is `config`. Raises `Corrupt` (file and field)."""
    path = directory / "tokenizer_config.json"
    declared = DeclaredTokens()
    _take_names(declared, path, config)
    extra = config.get("extra_special_tokens") or config.get("additional_special_tokens") or []
    named = config.get("model_specific_special_tokens") or {}
    if not isinstance(named, dict):
        raise Corrupt(f"{path}: `model_specific_special_tokens` is no object of tokens", hint=_AGAIN)
    if not isinstance(extra, dict) and declared.named.keys() == set(NAMED):  # others with names of theirs replace it
        _take_extra(declared, path, named)
    _take_extra(declared, path, extra)
    if "added_tokens_decoder" in config:
        declared.listed = dict(_decoder(path, config["added_tokens_decoder"]))
        return declared
    declared.legacy = True
    path = directory / "special_tokens_map.json"
    special = optional_object(path)
    _take_names(declared, path, special)
    _take_extra(declared, path, special.get("extra_special_tokens") or [])
    if not extra:
        _take_extra(declared, path, special.get("additional_special_tokens") or [])
    declared.listed = dict(_added(directory / "added_tokens.json", declared))
    return declared


def completed(file: TokenizerFile, declared: DeclaredTokens, rows: int | None) -> tuple[TokenizerFile, list[str]]:
    """`file` with the declared tokens, and what to tell of them. New ones without a row among `rows` are left out."""
    tokens = {token.content: token for token in file.added}
    before = dict(tokens)
    listed = declared.listed | ({token.id: token for token in file.added} if declared.legacy else {})
    names = {token.content for token in declared.named.values() if token is not None}
    wanted = [replace(token, special=True) if token.content in names else token for _, token in sorted(listed.items())]
    known = tokens.keys() | {token.content for token in wanted} | {""}
    for token in (*declared.named.values(), *declared.extra):
        if token is not None and token.content not in known:
            wanted.append(token)
            known |= {token.content}
    ids = {content: index for index, content in file.tokens.items()}
    size = file.model_size
    following = max(size, *(token.id + 1 for token in file.added), 0)
    moved, beyond = [], []
    for token in filter(lambda token: token.content, wanted):
        index = ids.get(token.content)
        if index is None:
            index = following
            if rows is not None and index >= rows:
                beyond.append(token.content)
                continue
            following += 1
            if token.id not in (-1, index):
                moved.append(token.content)
        tokens[token.content] = replace(token, id=index)
        ids[token.content] = index
    notes = []
    if moved:
        notes.append(f"{_some(moved)}: the next free id, not the one that the files give, as in transformers")
    if beyond:
        notes.append(f"{_some(beyond)}: no row of the model's {rows} is left for it; it is read as text")
    return file if tokens == before else file.with_added(tuple(tokens.values())), notes


def _some(contents: list[str]) -> str:
    more = f" and {len(contents) - 1} more" if len(contents) > 1 else ""
    return f"added token {shown(contents[0])}{more}"


def _take_names(declared: DeclaredTokens, path: Path, config: Mapping[str, Any]) -> None:
    for name, value in config.items():
        if name in NAMED:
            declared.named[name] = None if value is None else _token(path, name, value, special=True)
        elif name.endswith("_token") and isinstance(value, str | dict):
            declared.named[name] = _token(path, name, value, special=True)


def _take_extra(declared: DeclaredTokens, path: Path, value: object) -> None:
    if isinstance(value, dict):
        declared.named |= {name: _token(path, name, token, special=True) for name, token in value.items()}
    elif isinstance(value, list) and len(value) <= MAX_ADDED:
        declared.extra += [_token(path, "extra_special_tokens", token, special=True) for token in value]
    else:
        raise Corrupt(f"{path}: `extra_special_tokens` is no list of tokens", hint=_AGAIN)


def _decoder(path: Path, value: object) -> Iterator[tuple[int, AddedToken]]:
    if not isinstance(value, dict) or len(value) > MAX_ADDED:
        raise Corrupt(f"{path}: `added_tokens_decoder` must be an object of at most {MAX_ADDED} tokens", hint=_AGAIN)
    for name, token in value.items():
        if not name.isascii() or not name.isdigit() or len(name) > 9:
            raise Corrupt(f"{path}: `added_tokens_decoder` has the id {shown(name)}", hint=_AGAIN)
        yield int(name), replace(_token(path, "added_tokens_decoder", token), id=int(name))


def _added(path: Path, declared: DeclaredTokens) -> Iterator[tuple[int, AddedToken]]:
    special = {token.content for token in (*declared.named.values(), *declared.extra) if token is not None}
    value = optional_object(path)
    if len(value) > MAX_ADDED or any(type(index) is not int or index < 0 for index in value.values()):
        raise Corrupt(f"{path}: must give an id to each of at most {MAX_ADDED} tokens", hint=_AGAIN)
    for content, index in value.items():
        token = _token(path, "content", content, special=content in special)
        yield index, replace(token, id=index, normalized=content not in special)


def _token(path: Path, name: str, value: object, *, special: bool = False) -> AddedToken:
    """A token that is written as its text, or as an object with flags. Its id is -1, which is not known here."""
    entry = value if isinstance(value, dict) else {"content": value}
    content = entry.get("content")
    if not isinstance(content, str) or len(content) > MAX_CONTENT:
        raise Corrupt(f"{path}: `{shown(name)}` must be text of at most {MAX_CONTENT} characters", hint=_AGAIN)
    special = special or entry.get("special") is True
    flags = {flag: entry.get(flag) is True for flag in ("lstrip", "rstrip", "single_word")}
    return AddedToken(-1, content, special, **flags, normalized=entry.get("normalized", not special) is True)
