"""From token ids back to text: each token is a fixed run of bytes, so text can be shown as it comes."""

import codecs
import re
from collections.abc import Iterable
from typing import Any

from localinfer.errors import NotSupported
from localinfer.formats.tokenizer_parts import TokenizerParts

_BYTE = re.compile(r"<0x([0-9A-F]{2})>")
_SPM_PARTS = {"Replace", "ByteFallback", "Fuse", "Strip", "Metaspace"}


class TokenBytes:
    """The bytes of every token id. Special tokens are empty unless they are asked for.

    Raises `NotSupported` for a decoder that is neither byte level nor SentencePiece's.
    """

    def __init__(self, tokenizer: TokenizerParts) -> None:
        parts = _decoder_parts(tokenizer.decoder)
        kinds = {str(part.get("type")) for part in parts}
        if kinds == {"ByteLevel"}:
            self._to_bytes = _byte_level
        elif kinds and kinds <= _SPM_PARTS:
            self._to_bytes = _sentencepiece
        else:
            words = ", ".join(sorted(kinds)) or "none"
            raise NotSupported(
                f"this tokenizer's decoder ({words[:80]}) is not supported",
                hint="use a model with a byte-level BPE or a SentencePiece tokenizer",
            )
        self.strips_first_space = self._to_bytes is _sentencepiece and any(map(_strips, parts))
        self._spaced = tokenizer.spaced
        self._tokens, self._same_as = tokenizer.tokens, tokenizer.same_as
        self._added = {token.id: token for token in tokenizer.added}
        self._bytes: dict[int, bytes] = {}  # of the tokens that were asked for: an answer needs few of them

    def spelling(self, token: int) -> str | None:
        """How the vocabulary writes it; None for an id nobody defined."""
        return self._tokens.get(self._same_as.get(token, token))

    def of(self, token: int, *, specials: bool = False) -> bytes:
        """The bytes of one token; empty for a special one (unless `specials`) and for an id nobody defined."""
        found = self._bytes.get(token)
        if found is not None:
            return found
        content, added = self.spelling(token), self._added.get(token)
        if content is None:
            return b""
        if added is None:
            found = self._to_bytes(content)
        elif added.special:
            return content.encode() if specials else b""
        else:
            found = content.replace("▁", " ").encode() if added.harmless else content.encode()
            if added.normalized and self._spaced:
                found = b" " + found
        self._bytes[token] = found
        return found


class StreamDecoder:
    """Text from tokens one by one: whole characters only, and all of it together equals the decoding of all tokens."""

    def __init__(self, table: TokenBytes, *, specials: bool = False, continues: bool = False) -> None:
        self._table = table
        self._specials = specials
        self._strip = table.strips_first_space and not continues
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def push(self, token: int) -> str:
        """The text that `token` completes; empty while a character is still missing bytes."""
        return self._first(self._decoder.decode(self._table.of(token, specials=self._specials)))

    def finish(self) -> str:
        """What is left: U+FFFD if the tokens ended inside a character."""
        return self._first(self._decoder.decode(b"", final=True))

    def _first(self, text: str) -> str:
        if self._strip and text:
            self._strip = False
            return text.removeprefix(" ")
        return text

    def push_all(self, tokens: Iterable[int]) -> str:
        """The text that all `tokens` complete."""
        return "".join(map(self.push, tokens))


def _decoder_parts(decoder: Any) -> list[dict[str, Any]]:
    if not isinstance(decoder, dict):
        return []
    if decoder.get("type") == "Sequence":
        inner = decoder.get("decoders")
        return [part for item in inner for part in _decoder_parts(item)] if isinstance(inner, list) else []
    return [decoder]


def _strips(part: dict[str, Any]) -> bool:
    if part.get("type") == "Metaspace":
        return bool(part.get("prepend_scheme", "always") != "never")
    return part.get("type") == "Strip" and part.get("content") == " " and part.get("start") == 1


def _alphabet() -> dict[str, int]:
    """GPT-2's printable stand-in of each byte: itself where it prints, else a character from U+0100 on."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    rest = [byte for byte in range(256) if byte not in plain]
    return {chr(byte): byte for byte in plain} | {chr(256 + n): byte for n, byte in enumerate(rest)}


BYTE_OF = _alphabet()
"""Byte of each character in a byte-level vocabulary."""


def _byte_level(content: str) -> bytes:
    try:
        return bytes(map(BYTE_OF.__getitem__, content))
    except KeyError:
        return content.encode()


def _sentencepiece(content: str) -> bytes:
    byte = _BYTE.fullmatch(content)
    return bytes([int(byte.group(1), 16)]) if byte else content.replace("▁", " ").encode()
