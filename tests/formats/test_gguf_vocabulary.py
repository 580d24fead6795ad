"""Vocabularies as they are published: tokens empty or there twice, types that are wrong, ids that are missing."""

from pathlib import Path
from typing import Any

import pytest

from localinfer.errors import Corrupt
from localinfer.formats.gguf import GgufFile
from localinfer.formats.gguf_ends import end_tokens
from localinfer.formats.gguf_import import import_gguf
from localinfer.formats.gguf_tokenizer import read_gguf_tokenizer
from localinfer.formats.tokenizer import Tokenizer
from tests.formats.files import write
from tests.formats.gguf_models import Pairs, gguf_of, tokenizer_pairs
from tests.tiny import make_checkpoint


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    return make_checkpoint(tmp_path / "tiny", "llama", dtype="float32", vocab_size=324)


def merged(pairs: Pairs) -> set[str]:
    """The tokens that merges need."""
    return {part for merge in pairs["tokenizer.ggml.merges"][1][1] for part in (*merge.split(), merge.replace(" ", ""))}


def pairs_with(tiny: Path, *more: str, types: dict[int, int] | None = None, pre: str = "gpt-2") -> Pairs:
    """The tiny vocabulary, its last tokens replaced by `more`, with `types` of some."""
    pairs = tokenizer_pairs(tiny, pre)
    tokens, kinds = pairs["tokenizer.ggml.tokens"][1][1], pairs["tokenizer.ggml.token_type"][1][1]
    merges = pairs["tokenizer.ggml.merges"][1][1]
    del merges[-8:], tokens[-8:], kinds[-8:]
    tokens += [f"<spare{n}>" for n in range(324 - len(tokens) - len(more))] + list(more)
    kinds += [1] * (len(tokens) - len(kinds))
    assert merged(pairs) <= set(tokens)
    for index, kind in (types or {}).items():
        kinds[index] = kind
    return pairs


def opened(tmp_path: Path, tiny: Path, pairs: Pairs) -> Tokenizer:
    import_gguf(write(tmp_path / "x.gguf", gguf_of(tiny, extra=pairs)), tmp_path / "back")
    return Tokenizer(tmp_path / "back")


def notes_of(tmp_path: Path, tiny: Path, pairs: Pairs) -> tuple[str, ...]:
    return read_gguf_tokenizer(GgufFile(write(tmp_path / "n.gguf", gguf_of(tiny, extra=pairs))), 324).notes


def test_empty_tokens_have_llama_cpps_name(tmp_path: Path, tiny: Path) -> None:
    pairs = pairs_with(tiny, "", "[EMPTY_322]", "")
    ours = opened(tmp_path, tiny, pairs)
    assert ours.spelling(321) == "[EMPTY_321]"
    assert ours.spelling(323) == "[EMPTY_323]"
    assert ours.spelling(322) == "[EMPTY_322]"
    assert "2 tokens have no text" in notes_of(tmp_path, tiny, pairs)[0]


def test_a_name_that_is_taken_gets_another(tmp_path: Path, tiny: Path) -> None:
    ours = opened(tmp_path, tiny, pairs_with(tiny, "[EMPTY_323]", ""))
    assert ours.spelling(322) == "[EMPTY_323]"
    assert ours.spelling(323) == "[EMPTY_323]_"


def test_a_token_that_is_there_twice(tmp_path: Path, tiny: Path) -> None:
    """Text becomes the first of them; both mean the same text."""
    pairs = pairs_with(tiny, "he", "<|im_end|>")
    ours = opened(tmp_path, tiny, pairs)
    first = pairs["tokenizer.ggml.tokens"][1][1].index("he")
    assert first < 322
    assert 322 not in ours.encode_text("he said the heap")
    assert ours.decode([first, 322]) == "hehe"
    assert 258 in ours.encode_rendered("a<|im_end|>")
    assert "2 tokens are there twice" in notes_of(tmp_path, tiny, pairs)[0]


@pytest.mark.parametrize("value", ["x", {"9": "1"}, {"9": 10**6}, {"-1": 3}, {"9" * 5000: 3}])
def test_tokens_that_mean_others_are_checked(tmp_path: Path, tiny: Path, value: Any) -> None:
    import json

    path = tiny / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"same_as": value}))
    with pytest.raises(Corrupt, match="`same_as`"):
        Tokenizer(tiny)


def test_an_end_token_ends_whatever_its_type(tmp_path: Path, tiny: Path) -> None:
    pairs = pairs_with(tiny, "<end_of_turn>", "<|eom_id|>", types={258: 4, 322: 1, 323: 4})
    pairs |= {"tokenizer.ggml.eos_token_id": ("u32", 256)}
    ours = opened(tmp_path, tiny, pairs)
    assert ours.eos_ids == (256, 258, 322, 323)
    assert ours.decode([258, 322, 323]) == ""


def test_channels_end_parts_of_a_reply() -> None:
    tokens = ["<|end|>", "<|return|>", "<|call|>", "x"]
    assert end_tokens(tokens, {"eos": 1}) == (1, 2)
    assert end_tokens(["<|end|>", "x"], {"eos": 1}) == (0, 1)
    assert end_tokens(["</s>", "<|tool_response>", "<eos>"], {}) == (1, 2)
    assert end_tokens(["<fim_pad>", "pad"], {"fim_pad": 1}) == (1,)


def test_missing_and_impossible_ids_are_llama_cpps_defaults(tmp_path: Path, tiny: Path) -> None:
    pairs = pairs_with(tiny) | {
        "tokenizer.ggml.eos_token_id": ("u32", 999),
        "tokenizer.ggml.bos_token_id": ("u32", None),
    }
    pairs |= {"tokenizer.ggml.add_bos_token": ("bool", True)}
    ours = opened(tmp_path, tiny, pairs)
    assert ours.bos_id == 11
    assert 11 in ours.eos_ids
    told = " ".join(notes_of(tmp_path, tiny, pairs))
    assert "`tokenizer.ggml.eos_token_id` is 999, but there are 324 tokens" in told
    assert "`tokenizer.ggml.bos_token_id` is missing" in told


@pytest.mark.parametrize(
    ("pre", "said", "adds"),
    [("llama-bpe", None, True), ("tekken", None, True), ("gpt-2", None, False), ("llama-bpe", False, False)],
)
def test_who_begins_with_bos(tmp_path: Path, tiny: Path, pre: str, said: bool | None, adds: bool) -> None:
    pairs = pairs_with(tiny, pre=pre) | {"tokenizer.ggml.add_bos_token": ("bool", said)}
    assert opened(tmp_path, tiny, pairs).adds_bos is adds


def test_lists_that_are_longer_than_the_vocabulary(tmp_path: Path, tiny: Path) -> None:
    pairs = pairs_with(tiny)
    pairs["tokenizer.ggml.token_type"][1][1].append(1)
    assert opened(tmp_path, tiny, pairs).vocab_size == 324
