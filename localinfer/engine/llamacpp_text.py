"""llama.cpp's own tokenizer with the interface of ours."""

import codecs
import ctypes
import re
from collections.abc import Iterable
from typing import Any

from localinfer.errors import UsageError

_UNKNOWN, _CONTROL, _USER_DEFINED = 1, 8, 16  # llama_token_attr
_SENTENCEPIECE = 1  # llama_vocab_type


class LlamaTokenizer:
    """The tokenizer inside a GGUF file; see `formats.tokenizer.Tokenizer` for what each method means."""

    def __init__(self, lib: Any, model: Any) -> None:
        self._lib = lib
        self._vocab = lib.llama_model_get_vocab(model)
        self._model = model  # the vocabulary lives in it
        self.vocab_size: int = lib.llama_vocab_n_tokens(self._vocab)
        attributes = [lib.llama_vocab_get_attr(self._vocab, i) for i in range(self.vocab_size)]
        ends = lib.llama_vocab_is_eog
        self.eos_ids: tuple[int, ...] = tuple(i for i in range(self.vocab_size) if ends(self._vocab, i))
        self.after: tuple[int, ...] = ()
        special = [i for i, a in enumerate(attributes) if a & (_UNKNOWN | _CONTROL | _USER_DEFINED)]
        self.special_strings: tuple[str, ...] = tuple(filter(None, map(self._text, special)))
        bos, eos = lib.llama_vocab_bos(self._vocab), lib.llama_vocab_eos(self._vocab)
        self.bos_id: int | None = bos if bos >= 0 else None
        self.bos_token: str = self._text(bos) if bos >= 0 else ""
        self.eos_token: str = self._text(eos) if eos >= 0 else ""
        self.special_tokens: dict[str, str] = {}
        self.adds_bos: bool = bool(lib.llama_vocab_get_add_bos(self._vocab)) and bos >= 0
        self._strips = lib.llama_vocab_type(self._vocab) == _SENTENCEPIECE
        defined = [self._text(i) for i, a in enumerate(attributes) if a & _USER_DEFINED]
        words = sorted((word for word in defined if word.strip("▁ \n\t")), key=len, reverse=True)
        self._defined = re.compile("|".join(map(re.escape, words))) if words else None

    def encode_text(self, text: str) -> list[int]:
        """Ids of plain text. llama.cpp takes user-defined tokens from any text, so such words are handed over in two
        parts."""
        if self._defined is None:
            return self._tokenize(text, specials=False)
        ids: list[int] = []
        at = 0
        for match in self._defined.finditer(text):
            ids += self._tokenize(text[at : match.start() + 1], specials=False)
            at = match.start() + 1
        return ids + self._tokenize(text[at:], specials=False)

    def encode_rendered(self, text: str, guard: str = "") -> list[int]:
        """Ids of a rendered chat template. It is cut at the guards, so that no special string is whole around one."""
        parts = text.split(guard) if guard else [text]
        return [token for part in parts for token in self._tokenize(part, specials=True)]

    def decode(self, ids: Iterable[int], *, specials: bool = False) -> str:
        stream = self.stream(specials=specials)
        return "".join(map(stream.push, ids)) + stream.finish()

    def stream(self, *, specials: bool = False, continues: bool = False) -> "LlamaStream":
        return LlamaStream(self, specials=specials, strip=self._strips and not continues)

    def token_bytes(self, token: int, *, specials: bool = False) -> bytes:
        """The bytes of one token; empty for a special one unless `specials`, and for ids that are not there."""
        if not 0 <= token < self.vocab_size:
            return b""
        buffer = ctypes.create_string_buffer(64)
        length = self._lib.llama_token_to_piece(self._vocab, token, buffer, 64, 0, specials)
        if length < 0:
            buffer = ctypes.create_string_buffer(-length)
            length = self._lib.llama_token_to_piece(self._vocab, token, buffer, -length, 0, specials)
        return buffer.raw[:length]

    def _text(self, token: int) -> str:
        return self.token_bytes(token, specials=True).decode("utf-8", "replace")

    def _tokenize(self, text: str, *, specials: bool) -> list[int]:
        if not text:
            return []
        try:
            data = text.encode()
        except UnicodeEncodeError as error:
            raise UsageError(
                f"the text is not valid Unicode at character {error.start}", hint="give the text as UTF-8"
            ) from error
        room = len(data) + 16
        ids = (ctypes.c_int32 * room)()
        count = self._lib.llama_tokenize(self._vocab, data, len(data), ids, room, False, specials)
        if count < 0:  # more tokens than bytes: never seen, but the interface allows it
            ids = (ctypes.c_int32 * -count)()
            count = self._lib.llama_tokenize(self._vocab, data, len(data), ids, -count, False, specials)
        return list(ids[:count])


class LlamaStream:
    """Tokens to text, whole characters only."""

    def __init__(self, tokenizer: LlamaTokenizer, *, specials: bool, strip: bool) -> None:
        self._tokenizer, self._specials, self._strip = tokenizer, specials, strip
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def push(self, token: int) -> str:
        return self._first(self._decoder.decode(self._tokenizer.token_bytes(token, specials=self._specials)))

    def finish(self) -> str:
        return self._first(self._decoder.decode(b"", final=True))

    def _first(self, text: str) -> str:
        if self._strip and text:
            self._strip = False
            return text.removeprefix(" ")
        return text
