"""Text to token ids and back, for a Hugging Face directory.

What a person wrote can never become a special token: `encode_text` knows none, and `encode_rendered` takes them only
from the parts of a rendered chat template that the template itself wrote.
"""

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from localinfer.errors import Corrupt, NotSupported, UsageError
from localinfer.formats.json_files import CONFIG_LIMIT, read_bytes, read_object
from localinfer.formats.token_bytes import StreamDecoder, TokenBytes
from localinfer.formats.tokenizer_json import MAX_ID, AddedToken, TokenizerFile, plain_document, read_tokenizer_file

T = TypeVar("T")
TEMPLATE_LIMIT = 1 << 20


class Tokenizer:
    """The tokenizer of a model directory (`tokenizer.json`, `tokenizer_config.json`, `generation_config.json`).

    Raises `NotFound`, `Corrupt` (naming the file and field) or `NotSupported` on opening.
    """

    def __init__(self, directory: Path) -> None:
        path = directory / "tokenizer.json"
        if not path.exists() and (directory / "tokenizer.model").exists():
            raise NotSupported(
                f"{directory}: has tokenizer.model only", hint="use a repository that has tokenizer.json too"
            )
        file = read_tokenizer_file(path)
        config = _object(directory / "tokenizer_config.json")
        self._path = path
        self._table = TokenBytes(file, _same_as(directory, config, file))
        self._ids = {token.content: token.id for token in file.added}
        self._added = {token.content: token for token in file.added if not token.harmless}
        self._finder = _Finder(self._added)
        self._first = _load(path, plain_document(file, first=True))
        self._later = self._first
        if '"first"' in json.dumps(file.document.get("pre_tokenizer")):
            self._later = _load(path, plain_document(file, first=False))
        self.vocab_size: int = max(file.tokens) + 1
        """Highest token id plus one; a model's embedding may have more rows."""
        self.special_strings: tuple[str, ...] = tuple(self._added)
        """Every string that `encode_rendered` turns into one token."""
        self.bos_token, self.bos_id = self._named(config, "bos_token", file)
        self.eos_token, eos_id = self._named(config, "eos_token", file)
        self.eos_ids: tuple[int, ...] = _eos_ids(directory, eos_id)
        """Tokens that end a reply, ascending."""
        self.adds_bos: bool = self.bos_id is not None and _adds_bos(config, file, self.bos_token)
        """Whether a text of its own (not from a chat template) begins with `bos_id`."""
        self.chat_template: str | None = _chat_template(directory, config)

    def encode_text(self, text: str) -> list[int]:
        """Ids of plain text; strings like `<|im_end|>` in it are text too. No BOS is added.

        Raises `UsageError` if `text` holds half of a surrogate pair.
        """
        return self._encode(text, self._first)

    def encode_rendered(self, text: str, guard: str = "") -> list[int]:
        """Ids of a rendered chat template. Special and added tokens are taken where `text` holds them whole.

        `guard` is a character that was put inside such strings where a person wrote them, so that they do not match;
        all guards are removed before anything is encoded.
        """
        ids: list[int] = []
        position = 0
        for start, end, token in self._matches(text):
            ids += self._segment(text[position:start], guard, first=position == 0)
            ids.append(token.id)
            position = end
        return ids + self._segment(text[position:], guard, first=position == 0)

    def decode(self, ids: Iterable[int], *, specials: bool = False) -> str:
        """The text of `ids`; special tokens are left out unless `specials`, broken UTF-8 becomes U+FFFD."""
        decoder = self.stream(specials=specials)
        return decoder.push_all(ids) + decoder.finish()

    def stream(self, *, specials: bool = False, continues: bool = False) -> StreamDecoder:
        """A decoder for tokens that come one by one. `continues`: the text goes on after a prompt, so a space that
        SentencePiece puts before a first word is kept."""
        return StreamDecoder(self._table, specials=specials, continues=continues)

    def spelling(self, token: int) -> str | None:
        """How the vocabulary writes a token; None for an id that it does not have."""
        return self._table.spelling(token)

    def token_id(self, content: str) -> int | None:
        """The id of a special or added token, or None."""
        return self._ids.get(content)

    def _matches(self, text: str) -> Iterator[tuple[int, int, AddedToken]]:
        """Added tokens in `text`, left to right, with the white space they swallow."""
        position = 0
        while (found := self._finder.find(text, position)) is not None:
            start, token = found
            end = start + len(token.content)
            begin = max(position, len(text[:start].rstrip())) if token.lstrip else start
            end += len(text) - end - len(text[end:].lstrip()) if token.rstrip else 0
            yield begin, end, token
            position = end

    def _segment(self, text: str, guard: str, *, first: bool) -> list[int]:
        plain = text.replace(guard, "") if guard else text
        return self._encode(plain, self._first if first else self._later) if plain else []

    def _encode(self, text: str, tokenizer: Any) -> list[int]:
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise UsageError(
                f"the text is not valid Unicode at character {error.start}", hint="give the text as UTF-8"
            ) from error
        ids: list[int] = _guarded(lambda: tokenizer.encode(text, add_special_tokens=False).ids, self._path)
        return ids

    def _named(self, config: dict[str, Any], name: str, file: TokenizerFile) -> tuple[str, int | None]:
        """`bos_token` or `eos_token` and its id; `("", None)` when the model has none."""
        value = config.get(name)
        content = value.get("content") if isinstance(value, dict) else value
        if content is None:
            return "", None
        if not isinstance(content, str):
            raise Corrupt(f"{self._path.parent}: `{name}` in tokenizer_config.json must be text", hint=_AGAIN)
        index = self._ids.get(content)
        if index is None:
            index = next((i for i, token in file.tokens.items() if token == content), None)
        if index is None:
            raise Corrupt(f"{self._path.parent}: `{name}` {content[:80]!r} is not in tokenizer.json", hint=_AGAIN)
        return content, index


_AGAIN = "download the model again"


def _load(path: Path, document: dict[str, Any]) -> Any:
    from tokenizers import Tokenizer as Library

    text = json.dumps(document, ensure_ascii=False)
    return _guarded(lambda: Library.from_str(text), path)


def _guarded(call: Callable[[], T], path: Path) -> T:
    """Run a call into the tokenizers library; its panics are not `Exception`s."""
    try:
        return call()
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:
        raise Corrupt(f"{path}: the tokenizer failed: {str(error)[:200]}", hint=_AGAIN) from None


class _Finder:
    """Finds the leftmost, longest token; some vocabularies have thousands, so one big pattern would be slow."""

    def __init__(self, tokens: Mapping[str, AddedToken]) -> None:
        self._tokens = tokens
        self._starts = re.compile("[" + re.escape("".join({content[0] for content in tokens}) or "x") + "]")
        self._lengths: dict[str, list[int]] = {}
        for content in sorted(tokens, key=len, reverse=True):
            lengths = self._lengths.setdefault(content[0], [])
            if len(content) not in lengths:
                lengths.append(len(content))

    def find(self, text: str, position: int) -> tuple[int, AddedToken] | None:
        if not self._tokens:
            return None
        for match in self._starts.finditer(text, position):
            start = match.start()
            for length in self._lengths[match.group()]:
                token = self._tokens.get(text[start : start + length])
                if token is None:
                    continue
                if token.single_word and (
                    _word(text[start - 1 : start]) or _word(text[start + length : start + length + 1])
                ):
                    continue
                return start, token
        return None


def _word(character: str) -> bool:
    return character.isalnum() or character == "_"


def _object(path: Path) -> dict[str, Any]:
    return read_object(path, CONFIG_LIMIT) if path.exists() else {}


def _eos_ids(directory: Path, eos_id: int | None) -> tuple[int, ...]:
    """The union of what the tokenizer and the two configs call end of sequence."""
    found = set() if eos_id is None else {eos_id}
    for name in ("generation_config.json", "config.json"):
        value = _object(directory / name).get("eos_token_id")
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


def _adds_bos(config: dict[str, Any], file: TokenizerFile, bos: str) -> bool:
    said = config.get("add_bos_token")
    if isinstance(said, bool):
        return said
    processor = file.document.get("post_processor")
    parts = [processor]
    if isinstance(processor, dict) and isinstance(processor.get("processors"), list):
        parts = processor["processors"]
    return any(
        isinstance(part, dict)
        and isinstance(part.get("single"), list)
        and part["single"][:1]
        and isinstance(part["single"][0], dict)
        and isinstance(token := part["single"][0].get("SpecialToken"), dict)
        and token.get("id") == bos
        for part in parts
    )


def _chat_template(directory: Path, config: dict[str, Any]) -> str | None:
    """The model's chat template: the file of its own first, then `tokenizer_config.json`."""
    path = directory / "chat_template.jinja"
    if path.exists():
        try:
            return read_bytes(path, TEMPLATE_LIMIT).decode("utf-8")
        except UnicodeDecodeError as error:
            raise Corrupt(f"{path}: is not UTF-8 (byte {error.start})", hint=_AGAIN) from error
    value = config.get("chat_template")
    if isinstance(value, list):
        named = [item for item in value if isinstance(item, dict) and item.get("name") == "default"]
        value = named[0].get("template") if named else None
    if value is not None and (not isinstance(value, str) or len(value) > TEMPLATE_LIMIT):
        raise Corrupt(f"{directory}: `chat_template` must be text of at most {TEMPLATE_LIMIT} characters", hint=_AGAIN)
    return value
