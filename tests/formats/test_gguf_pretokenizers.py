"""Every pre-tokenizer that a GGUF file can name, against llama.cpp's own on the same file."""

import functools
import json
import os
import random
import re
import unicodedata
from collections.abc import Callable
from pathlib import Path

import pytest
from tokenizers import Tokenizer as Library
from tokenizers import models, pre_tokenizers, trainers

from localinfer.formats.gguf import GgufFile
from localinfer.formats.gguf_pretokenizers import PRE_TOKENIZERS
from localinfer.formats.gguf_tokenizer import read_gguf_tokenizer
from localinfer.formats.tokenizer import Tokenizer
from tests.formats.files import gguf_bytes, write
from tests.formats.gguf_models import Pairs
from tests.formats.test_starter import diverse_texts

KNOWN = [
    "I'll SAY we've 'quoted' don'T",
    "x = 1234567.89 + 12 345 6 // ok",
    "def f(x):\n\treturn x**2\r\n\r\n  # done\n\n\n",
    "HTTPServer camelCase iPhone naïve Größe",
    "日本語のテキスト 漢字 한국어 ภาษาไทย",
    "مرحبا، بالعالم؟ नमस्ते दुनिया",
    "a  b   c    d \u00a0 e\u3000f",
    "(a|b), [c] {d}! what?? $5 + 3 = <8> `~^",
    "….。，、।۔، done",
    "🎉🎉👩‍👩‍👧 ½ ² ⅷ",
]
CLOSE = {"kimi-k2", "tekken", "gpt-4o", "llama4", "kanana2", "talkie", "minimax-m2", "granite-embed-multi-97m", "youtu"}
CLOSE |= {"tiny_aya", "cohere2moe"}
"""Here llama.cpp takes letters beyond A-Z for capitals and small ones at once, and marks for no letters; the models'
patterns do not. These are compared on letters and marks that both take alike."""
CASELESS = {"tiny_aya", "cohere2moe", "youtu", "kimi-k2"}
"""Here llama.cpp does not see where a capital follows another letter, either."""
FIRST = {id(pre): name for name, pre in reversed(PRE_TOKENIZERS.items())}
NFC = {name for name, pre in PRE_TOKENIZERS.items() if pre.composes}


@functools.cache
def trained() -> tuple[list[str], list[str]]:
    """Tokens and merges that were learned from uncut text: a text that is cut elsewhere has other tokens."""
    library = Library(models.BPE())
    library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=6000, initial_alphabet=alphabet, special_tokens=["<s>", "</s>"], show_progress=False
    )
    library.train_from_iterator([text[i : i + 6] for text in texts() for i in range(0, len(text), 3)] * 2, trainer)
    model = json.loads(library.to_str())["model"]
    tokens = [token for token, _ in sorted(model["vocab"].items(), key=lambda item: item[1])]
    return tokens, [" ".join(merge) for merge in model["merges"]]


def texts() -> list[str]:
    rng = random.Random(1)
    plain = [chr(c) for c in range(32, 127)] + list("\n\r\t  \n") + list("日本語漢字かな")
    made = ["".join(rng.choice(plain) for _ in range(rng.randrange(1, 30))) for _ in range(60)]
    numbers = [f"{rng.randrange(10 ** rng.randrange(1, 12))}{rng.choice(' .,ab')}" * 2 for _ in range(30)]
    return [*KNOWN, *made, *numbers, *rng.sample(diverse_texts(), 60)]


def vocabulary(pre: str) -> Pairs:
    """A file that names `pre`, without weights."""
    tokens, merges = trained()
    return {
        "general.architecture": ("str", "llama"),
        "llama.context_length": ("u32", 64),
        "tokenizer.ggml.model": ("str", "gpt2"),
        "tokenizer.ggml.pre": ("str", pre),
        "tokenizer.ggml.tokens": ("arr", ("str", tokens)),
        "tokenizer.ggml.token_type": ("arr", ("i32", [3, 3, *[1] * (len(tokens) - 2)])),
        "tokenizer.ggml.merges": ("arr", ("str", merges)),
        "tokenizer.ggml.bos_token_id": ("u32", 0),
        "tokenizer.ggml.eos_token_id": ("u32", 1),
    }


def opened(path: Path, directory: Path) -> Tokenizer:
    made = read_gguf_tokenizer(GgufFile(path), 1 << 20)
    directory.mkdir()
    (directory / "tokenizer.json").write_text(json.dumps(made.document))
    (directory / "tokenizer_config.json").write_text(json.dumps(made.config))
    return Tokenizer(directory)


def theirs(path: Path) -> Callable[[str], list[int]]:
    llama_cpp = pytest.importorskip("llama_cpp")
    model = llama_cpp.Llama(str(path), vocab_only=True, verbose=False, n_ctx=32)

    def tokens(text: str) -> list[int]:
        found: list[int] = model.tokenize(text.encode(), add_bos=False, special=False) if text else []
        return found

    return tokens


def _alike(pre: str, text: str) -> bool:
    """Whether llama.cpp's approximation means the same as the pattern for this text."""
    if pre in NFC and unicodedata.normalize("NFC", text) != text:
        return False
    if any(
        unicodedata.category(c) == "Cn" or (unicodedata.category(c)[0] == "C" and c not in "\r\n\t\0\x7f") for c in text
    ):
        return False  # their tables are of another version of Unicode
    if pre in CASELESS and re.search("[^\\WA-Z][A-Z]", text):
        return False
    letters = [c for c in text if not c.isascii() and unicodedata.category(c)[0] in "LM"]
    return pre not in CLOSE or all(unicodedata.category(c) == "Lo" for c in letters)


@pytest.mark.parametrize("pre", [name for name, one in PRE_TOKENIZERS.items() if not one.raw])
def test_text_is_cut_as_llama_cpp_does(tmp_path: Path, pre: str) -> None:
    path = write(tmp_path / "x.gguf", gguf_bytes(vocabulary(pre)))
    ours, llama = opened(path, tmp_path / "back"), theirs(path)
    seen: list[str] = []
    for text in texts() if FIRST[id(PRE_TOKENIZERS[pre])] == pre else KNOWN:
        assert ours.decode(ours.encode_text(text)) == (unicodedata.normalize("NFC", text) if pre in NFC else text)
        if _alike(pre, text):
            seen.append(text)
            assert ours.encode_text(text) == llama(text), text
    assert len(seen) > 3


FOLDER = os.environ.get("GGML_VOCABS", "")
"""Where llama.cpp's `models` folder with its `ggml-vocab-*.gguf` files and their vectors lies."""
ENCODERS = ("bert-bge", "nomic-bert-moe")


@pytest.mark.skipif(not FOLDER, reason="GGML_VOCABS does not name llama.cpp's folder `models`")
@pytest.mark.parametrize("path", sorted(Path(FOLDER or "/nonexistent").glob("ggml-vocab-*.gguf")), ids=lambda p: p.stem)
def test_llama_cpps_own_vectors(tmp_path: Path, path: Path) -> None:
    vectors = path.with_name(f"{path.name}.inp")
    if path.stem.removeprefix("ggml-vocab-") in ENCODERS or not vectors.exists():
        pytest.skip("an encoder, or without vectors")
    ours = opened(path, tmp_path / "back")
    texts = vectors.read_text(encoding="utf-8").split("\n__ggml_vocab_test__\n")
    rows = path.with_name(f"{path.name}.out").read_text().split("\n")
    for text, row in zip(texts, rows, strict=False):
        assert ours.encode_text(text) == [int(token) for token in row.split()], text
