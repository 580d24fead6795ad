"""Text to token ids and back, for a Hugging Face directory.

What a person wrote can never become a special token: `encode_text` knows none, only added words, which are text, and
`encode_rendered` takes them only from the parts of a rendered chat template that the template itself wrote.
"""

import ctypes
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from localinfer.errors import Corrupt, UsageError
from localinfer.formats.channels import Channels, marks_of
from localinfer.formats.chat_templates import DEFAULT, WITH_TOOLS
from localinfer.formats.token_bytes import StreamDecoder, TokenBytes
from localinfer.formats.tokenizer_files import NAMED
from localinfer.formats.tokenizer_json import AddedToken
from localinfer.formats.tokenizer_kept import kept_or_read
from localinfer.formats.tokenizer_parts import require_tokenizer

T = TypeVar("T")


class Tokenizer:
    """The tokenizer of a model directory: `tokenizer.json`, and what the files beside it say of tokens and templates.

    Raises `NotFound`, `Corrupt` (naming the file and field) or `NotSupported` on opening.
    """

    def __init__(self, directory: Path) -> None:
        self._path = require_tokenizer(directory)
        parts = kept_or_read(directory)
        self.chat_templates: dict[str, str] = parts.chat_templates
        """By name; `default` holds where none is asked for."""
        self.bos_token, self.eos_token = (parts.named.get(name, "") for name in NAMED[:2])
        self.eos_ids: tuple[int, ...] = parts.eos_ids
        """Tokens that end a reply, ascending."""
        self._table = TokenBytes(parts)
        self._ids = {token.content: token.id for token in parts.added}
        self._added = {token.content: token for token in parts.added if token.id not in parts.text_ids}
        self.added_ids: tuple[int, ...] = tuple(sorted(self._ids.values()))
        """Tokens that are no pieces of text."""
        self._finder = _Finder(self._added)
        self._channels = marks_of(self._ids.get)
        self._first = _load(self._path, parts.first)
        self._later = self._first if parts.later is None else _load(self._path, parts.later)
        self._full = None if parts.full is None else _load(self._path, parts.full)
        _give_back()
        self.vocab_size: int = parts.vocab_size
        """Highest token id plus one; a model's embedding may have more rows."""
        self.special_strings: tuple[str, ...] = (*self._added, *(_spaced(self._added) if parts.spaced else ()))
        """Every string that `encode_rendered` turns into one token."""
        self.special_tokens: dict[str, str] = parts.named
        """Tokens that templates may name, such as `pad_token`, and their texts."""
        self.bos_id: int | None = parts.bos_id
        self.adds_bos: bool = parts.adds_bos
        """Whether a text of its own (not from a chat template) begins with `bos_id`."""
        self.after: tuple[int, ...] = parts.after
        """Tokens that stand behind a text whose vector is made, such as the end-of-text token."""
        self.notes: tuple[str, ...] = parts.notes
        """What these files say and is not done here, a line each."""

    @property
    def chat_template(self) -> str | None:
        """The template that holds where none is asked for; None where there is none."""
        return self.chat_templates.get(DEFAULT)

    @property
    def tools_template(self) -> str | None:
        """The template of its own for a conversation with tools; None where there is none."""
        return self.chat_templates.get(WITH_TOOLS)

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
        if self._full is not None and not (guard and guard in text):
            return self._encode(text, self._full)
        ids: list[int] = []
        position = 0
        for start, end, token in self._matches(text, guard):
            ids += self._segment(text[position:start], guard, first=position == 0)
            ids.append(token.id)
            position = end
        return ids + self._segment(text[position:], guard, first=position == 0)

    def decode(self, ids: Iterable[int], *, specials: bool = False) -> str:
        """The text of `ids`; special tokens are left out unless `specials`, broken UTF-8 becomes U+FFFD."""
        decoder = StreamDecoder(self._table, specials=specials)
        return decoder.push_all(ids) + decoder.finish()

    def stream(self, *, specials: bool = False, continues: bool = False) -> StreamDecoder | Channels:
        """A decoder for tokens that come one by one. `continues`: the text goes on after a prompt, so a space that
        SentencePiece puts before a first word is kept, and channels of an answer are read (`formats/channels.py`)."""
        plain = StreamDecoder(self._table, specials=specials, continues=continues)
        return Channels(plain, self._channels) if continues and self._channels and not specials else plain

    def token_bytes(self, token: int, *, specials: bool = False) -> bytes:
        """What a token adds to a text; nothing for a special one, unless `specials`, and for an id nobody defined."""
        return self._table.of(token, specials=specials)

    def spelling(self, token: int) -> str | None:
        """How the vocabulary writes a token; None for an id that it does not have."""
        return self._table.spelling(token)

    def token_id(self, content: str) -> int | None:
        """The id of a special or added token, or None."""
        return self._ids.get(content)

    def _matches(self, text: str, guard: str) -> Iterator[tuple[int, int, AddedToken]]:
        """Added tokens in `text`, left to right, with the white space they swallow."""
        position = 0
        while (found := self._finder.find(text, position, guard)) is not None:
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


_AGAIN = "download the model again"


def _load(path: Path, text: str) -> Any:
    from tokenizers import Tokenizer as Library

    return _guarded(lambda: Library.from_str(text), path)


def _give_back() -> None:
    """Let the C library give the system what parsing has used and freed, tens of megabytes; only glibc keeps it."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


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

    def find(self, text: str, position: int, guard: str) -> tuple[int, AddedToken] | None:
        """Where the next token begins. One of a single character has its guard behind it."""
        if not self._tokens:
            return None
        for match in self._starts.finditer(text, position):
            start = match.start()
            for length in self._lengths[match.group()]:
                token = self._tokens.get(text[start : start + length])
                if token is None or (length == 1 and guard and text.startswith(guard, start + 1)):
                    continue
                if token.single_word and (
                    _word(text[start - 1 : start]) or _word(text[start + length : start + length + 1])
                ):
                    continue
                return start, token
        return None


def _word(character: str) -> bool:
    return character.isalnum() or character == "_"


def _spaced(contents: Iterable[str]) -> tuple[str, ...]:
    return tuple(content.replace(" ", "▁") for content in contents if " " in content)
