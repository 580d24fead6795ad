"""A GGUF file, written tensor by tensor, and the tokenizer of a Hugging Face directory as GGUF metadata."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from localinfer.errors import Corrupt, NotSupported
from localinfer.formats.durable import sync, write_failed
from localinfer.formats.gguf_pretokenizers import PATTERN_NAMES
from localinfer.formats.json_files import TOKENIZER_LIMIT, read_object
from localinfer.formats.tokenizer import Tokenizer

_NORMAL, _UNKNOWN, _CONTROL, _USER, _UNUSED, _BYTE = range(1, 7)
_HINT = "keep the model in our form, or export it to gptq"

Metadata = dict[str, Any]
"""Values by key; numbers are written as u32 and f32, lists by the type of their first item."""


@dataclass(frozen=True, slots=True)
class Written:
    """One tensor to write: its GGUF name, shape and ggml type, and what makes its bytes."""

    name: str
    shape: tuple[int, ...]
    type: str
    make: Callable[[], NDArray[Any]]

    @property
    def nbytes(self) -> int:
        block, size = block_size(self.type)
        return int(np.prod(self.shape, dtype=np.int64)) // block * size


def block_size(kind: str) -> tuple[int, int]:
    """Weights of a block of ggml's type `kind`, and its bytes."""
    import gguf

    block, size = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[kind]]
    return block, size


_PLAIN: dict[str, type[np.floating[Any]]] = {"F32": np.float32, "F16": np.float16}


def write_gguf(
    path: Path, arch: str, metadata: Metadata, tensors: Sequence[Written], on_tensor: Callable[[int], None]
) -> None:
    """Write the file whole, or not at all; `on_tensor(bytes)` after each. Raises `DoesNotFit` when the disk is full."""
    import gguf

    part = path.with_name(path.name + ".tmp")
    try:
        writer = gguf.GGUFWriter(part, arch)
        for key, value in metadata.items():
            _add(writer, key, value)
        for one in tensors:
            block, size = block_size(one.type)
            plain = one.type in _PLAIN
            shape = one.shape if plain else (*one.shape[:-1], one.shape[-1] // block * size)
            dtype = np.dtype(_PLAIN[one.type] if plain else np.uint8)
            writer.add_tensor_info(one.name, shape, dtype, one.nbytes, gguf.GGMLQuantizationType[one.type])
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        for one in tensors:
            writer.write_tensor_data(np.ascontiguousarray(one.make()))
            on_tensor(one.nbytes)
        writer.close()
        sync(part)
        part.replace(path)
        sync(path.parent)
    except OSError as error:
        raise write_failed(path, sum(one.nbytes for one in tensors), error) from error
    finally:
        part.unlink(missing_ok=True)


def _add(writer: Any, key: str, value: Any) -> None:
    match value:
        case bool():
            writer.add_bool(key, value)
        case int():
            writer.add_uint32(key, value)
        case float():
            writer.add_float32(key, value)
        case str():
            writer.add_string(key, value)
        case _:
            writer.add_array(key, value)


def tokenizer_metadata(directory: Path, rows: int, *, raw: bool = False) -> Metadata:
    """The tokenizer of `directory`, with a token for each of the embedding's `rows`. `raw`: one that falls back to
    bytes keeps its merges, as llama.cpp has Gemma 4's.

    Raises `NotSupported` for one that GGUF has no word for, `Corrupt` for one of more tokens.
    """
    tokenizer = Tokenizer(directory)
    document = read_object(directory / "tokenizer.json", TOKENIZER_LIMIT)
    model = document["model"]
    if model.get("type") != "BPE":
        raise NotSupported(f"a tokenizer of kind {str(model.get('type'))[:40]!r} cannot be exported", hint=_HINT)
    highest = max([*model["vocab"].values(), *(added["id"] for added in document.get("added_tokens") or ())], default=0)
    if highest >= rows:
        raise Corrupt(
            f"the tokenizer has token {highest}, but the weights have {rows} rows",
            hint="the tokenizer belongs to another model; download the model again",
        )
    tokens = [f"[PAD{i}]" for i in range(rows)]
    kinds = [_UNUSED] * rows
    fallback = bool(model.get("byte_fallback"))
    for token, index in model["vocab"].items():
        tokens[index] = token
        byte = fallback and len(token) == 6 and token.startswith("<0x") and token.endswith(">")
        kinds[index] = _BYTE if byte else _NORMAL
    for added in document.get("added_tokens", ()):
        tokens[added["id"]] = added["content"]
        kinds[added["id"]] = _CONTROL if added.get("special") else _USER
    unknown = model.get("unk_token")
    if unknown in model["vocab"]:
        kinds[model["vocab"][unknown]] = _UNKNOWN
    ids = {token: index for index, token in enumerate(tokens)}
    found: Metadata = {"tokenizer.ggml.tokens": tokens, "tokenizer.ggml.token_type": kinds}
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]]
    byte_merges = _raw if raw and not any(_across_lines(merge) for merge in merges) else _sentencepiece
    found |= byte_merges(document, tokens, merges) if fallback else _byte_level(document, merges)
    eos = ids.get(tokenizer.eos_token or "", next(iter(tokenizer.eos_ids), None))
    named = {"bos": tokenizer.bos_id, "eos": eos, "unknown": model["vocab"].get(unknown)}
    named["eot"] = next((index for index in tokenizer.eos_ids if index != eos), None)
    found |= {f"tokenizer.ggml.{name}_token_id": index for name, index in named.items() if index is not None}
    found["tokenizer.ggml.add_bos_token"] = tokenizer.adds_bos
    if tokenizer.chat_template:
        found["tokenizer.chat_template"] = tokenizer.chat_template
    return found


def _steps(value: Any, inner: str) -> list[dict[str, Any]]:
    """The steps of a normalizer or pre-tokenizer, whether it is one or a sequence."""
    if not isinstance(value, dict):
        return []
    return list(value.get(inner, ())) if value.get("type") == "Sequence" else [value]


def _byte_level(document: dict[str, Any], merges: list[str]) -> Metadata:
    steps = _steps(document.get("pre_tokenizer"), "pretokenizers")
    kinds = [step.get("type") for step in steps]
    splits = kinds[-1:] == ["ByteLevel"] and steps[-1].get("use_regex", True)
    name = None
    if kinds == ["ByteLevel"] and splits:
        name = "gpt-2"
    elif kinds == ["Digits", "ByteLevel"] and splits and steps[0].get("individual_digits"):
        name = "smollm"
    elif kinds == ["Split", "ByteLevel"] and not splits:
        name = PATTERN_NAMES.get(steps[0].get("pattern", {}).get("Regex"))
    if name is None:
        raise NotSupported("the tokenizer splits text in a way that GGUF has no name for that we know", hint=_HINT)
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": name,
        "tokenizer.ggml.merges": merges or ["\u0120 \u0120"],  # there must be one
    }


def _across_lines(merge: str) -> bool:
    """Whether the token it makes has line ends and something else, which llama.cpp cuts there for `gemma4`."""
    made = merge.replace(" ", "")
    return "\n" in made and made.strip("\n") != ""


def _raw(document: dict[str, Any], tokens: list[str], merges: list[str]) -> Metadata:
    """Merges of UTF-8 in which `▁` stands for a space."""
    steps = _steps(document.get("normalizer"), "normalizers")
    if [step.get("type") for step in steps] != ["Replace"] or steps[0].get("content") != "▁":
        raise NotSupported("the tokenizer changes text in a way that GGUF has no word for", hint=_HINT)
    return {
        "tokenizer.ggml.model": "gemma4",
        "tokenizer.ggml.merges": merges,
        "tokenizer.ggml.scores": [-1000.0] * len(tokens),
        "tokenizer.ggml.add_space_prefix": False,
    }


def _sentencepiece(document: dict[str, Any], tokens: list[str], merges: list[str]) -> Metadata:
    """Tokens with scores, from which the merges follow: the earlier a token can be merged, the better it is."""
    steps = _steps(document.get("normalizer"), "normalizers")
    splits = _steps(document.get("pre_tokenizer"), "pretokenizers")
    kinds = {step.get("type") for step in steps}
    if not {"Replace"} <= kinds <= {"Replace", "Prepend"} or {s.get("type") for s in splits} - {"Split"}:
        raise NotSupported("the tokenizer changes text in a way that GGUF has no word for", hint=_HINT)
    rank: dict[str, int] = {}
    for index, merge in enumerate(merges):
        rank.setdefault(merge.replace(" ", ""), index)
    return {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.scores": [-float(rank.get(token, len(merges))) for token in tokens],
        "tokenizer.ggml.add_space_prefix": "Prepend" in kinds,
    }
