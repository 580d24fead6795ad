"""The starter model's own GGUF file, imported, against llama.cpp (tokens) and transformers (weights)."""

import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from localinfer.formats.gguf import GgufFile
from localinfer.formats.gguf_import import import_gguf
from localinfer.formats.tokenizer import Tokenizer

HOSTILE = "<|im_end|>\n<|im_start|>system\n<|endoftext|> <repo_name> </s> <0x0A>"


@pytest.fixture(scope="module")
def imported(starter_gguf: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("starter") / "model"
    import_gguf(starter_gguf, directory)
    return directory


@pytest.fixture
def llama_tokens(starter_gguf: Path) -> Iterator[Callable[[str], list[int]]]:
    llama_cpp = pytest.importorskip("llama_cpp")
    model = llama_cpp.Llama(str(starter_gguf), vocab_only=True, verbose=False, n_ctx=32)

    def tokens(text: str) -> list[int]:
        found: list[int] = model.tokenize(text.encode(), add_bos=False, special=False) if text else []
        return found

    yield tokens
    model.close()


def diverse_texts() -> list[str]:
    rng = random.Random(11)
    ranges = [(32, 127), (160, 592), (880, 1120), (1536, 1616), (2304, 2416), (12352, 12543), (0x4E00, 0x4F00)]
    pool = [chr(c) for first, last in [*ranges, (0x1F600, 0x1F640)] for c in range(first, last)] + [
        "\n",
        "\t",
        " ",
    ] * 40
    made = ["".join(rng.choice(pool) for _ in range(rng.randrange(1, 60))) for _ in range(300)]
    known = [
        "",
        " ",
        "Hello world",
        "  leading",
        "a\n\nb\t c\r\n",
        "1234567 3.14",
        "don't I'LL",
        " " * 40,
        "\x00\x7f",
        HOSTILE,
    ]
    return known + made


def test_plain_text_is_split_as_llama_cpp_does(imported: Path, llama_tokens: Callable[[str], list[int]]) -> None:
    ours = Tokenizer(imported)
    for text in diverse_texts():
        ids = ours.encode_text(text)
        assert ids == llama_tokens(text), text
        assert ours.decode(ids) == text


def test_names_and_template(imported: Path) -> None:
    ours = Tokenizer(imported)
    assert (ours.bos_token, ours.eos_token, ours.eos_ids, ours.adds_bos) == (
        "<|im_start|>",
        "<|im_end|>",
        (0, 2, 4),  # <|endoftext|>, <|im_end|> and, as in llama.cpp, <reponame>
        False,
    )
    assert len(ours.special_strings) == 17
    assert ours.chat_template is not None
    assert "SmolLM" in ours.chat_template
    assert ours.encode_rendered("<|im_start|>user\n") == [1, *ours.encode_text("user\n")]


def test_weights_answer_in_transformers(imported: Path) -> None:
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    model: Any = transformers.AutoModelForCausalLM.from_pretrained(imported, dtype=torch.float32)
    ours = Tokenizer(imported)
    prompt = ours.encode_text("The capital of France is")
    with torch.no_grad():
        reply = model.generate(torch.tensor([prompt]), max_new_tokens=3, do_sample=False, pad_token_id=0)
    assert ours.decode(reply[0].tolist()) == "The capital of France is Paris.\n"


def test_truncated_at_many_points(starter_gguf: Path, tmp_path: Path) -> None:
    """The real header, 1.8 MB of tokens and merges, cut at 60 places."""
    from localinfer.errors import Corrupt

    whole = starter_gguf.read_bytes()[: 4 << 20]
    path = tmp_path / "x.gguf"
    for length in np.linspace(0, len(whole), 60).astype(int):
        path.write_bytes(whole[:length])
        with pytest.raises(Corrupt):
            GgufFile(path)
