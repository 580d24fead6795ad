"""SentencePiece vocabularies in GGUF, against llama.cpp's own tokenizer on the same file."""

import json
import math
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from localinfer.errors import Corrupt
from localinfer.formats.gguf_import import import_gguf
from localinfer.formats.tokenizer import Tokenizer
from tests.formats.files import write
from tests.formats.gguf_models import Pairs, gguf_of
from tests.formats.small_tokenizers import CORPUS, SPM_SPECIALS, build
from tests.tiny import make_checkpoint

EXTRA_USER = ["\n\n", "  ", "<b>"]


def sentencepiece_pairs(prefix: bool) -> Pairs:
    """A trained vocabulary with scores by rank, as SentencePiece's BPE has them, and three user-defined tokens."""
    document = json.loads(build("prepend").to_str())
    ranks = {"".join(merge): rank for rank, merge in enumerate(document["model"]["merges"])}
    tokens = [token for token, _ in sorted(document["model"]["vocab"].items(), key=lambda item: item[1])]
    tokens += [token for token in EXTRA_USER if token not in tokens]
    kinds = []
    for token in tokens:
        byte = token.startswith("<0x") and len(token) == 6
        special = 2 if token == "<unk>" else 3
        kinds.append(special if token in SPM_SPECIALS else 6 if byte else 4 if token in EXTRA_USER else 1)
    scores = [-float(ranks.get(token, len(ranks))) if kinds[i] == 1 else 0.0 for i, token in enumerate(tokens)]
    return {
        "tokenizer.ggml.model": ("str", "llama"),
        "tokenizer.ggml.tokens": ("arr", ("str", tokens)),
        "tokenizer.ggml.scores": ("arr", ("f32", scores)),
        "tokenizer.ggml.token_type": ("arr", ("i32", kinds)),
        "tokenizer.ggml.merges": ("str", None),
        "tokenizer.ggml.unknown_token_id": ("u32", tokens.index("<unk>")),
        "tokenizer.ggml.bos_token_id": ("u32", tokens.index("<s>")),
        "tokenizer.ggml.eos_token_id": ("u32", tokens.index("</s>")),
        "tokenizer.ggml.add_bos_token": ("bool", True),
        "tokenizer.ggml.add_space_prefix": ("bool", prefix),
        "llama.vocab_size": ("u32", len(tokens)),
    }


@pytest.fixture(params=[True, False], ids=["prefix", "no-prefix"])
def source(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    pairs = sentencepiece_pairs(bool(request.param))
    count = len(pairs["tokenizer.ggml.tokens"][1][1])
    tiny = make_checkpoint(tmp_path / "tiny", "llama", dtype="float32", vocab_size=count)
    return write(tmp_path / "x.gguf", gguf_of(tiny, extra=pairs))


@pytest.fixture
def llama_tokens(source: Path) -> Iterator[Callable[[str], list[int]]]:
    llama_cpp = pytest.importorskip("llama_cpp")
    model = llama_cpp.Llama(str(source), vocab_only=True, verbose=False, n_ctx=32)

    def tokens(text: str) -> list[int]:
        found: list[int] = model.tokenize(text.encode(), add_bos=False, special=False) if text else []
        return found

    yield tokens
    model.close()


def texts() -> list[str]:
    rng = random.Random(2)
    corpus = "".join(CORPUS[:2])
    pieces = [corpus[i : i + rng.randrange(1, 40)] for i in rng.sample(range(len(corpus)), 80)]
    return ["", " ", "Hello world", "a\n\nb", "two  spaces", "tail ", "日本 🎉", "<0x41> <s> </s>", *pieces]


def test_plain_text_is_split_as_llama_cpp_does(
    source: Path, tmp_path: Path, llama_tokens: Callable[[str], list[int]]
) -> None:
    import_gguf(source, tmp_path / "back")
    ours = Tokenizer(tmp_path / "back")
    for text in texts():
        assert ours.encode_text(text) == llama_tokens(text), text
        if not any(token in text for token in EXTRA_USER):  # after these the prefix comes again, as in HF and llama.cpp
            assert ours.decode(ours.encode_text(text)) == text
    assert ours.adds_bos
    assert ours.bos_token == "<s>"
    assert ours.eos_token == "</s>"


def test_user_tokens_that_mean_something_are_text_here(source: Path, tmp_path: Path) -> None:
    """llama.cpp takes `<b>` from a person's words; we do not, since such tokens may be markers of a template."""
    import_gguf(source, tmp_path / "back")
    ours = Tokenizer(tmp_path / "back")
    assert ours.special_strings == (*SPM_SPECIALS, "<b>")
    assert ours.token_id("<b>") not in ours.encode_text("a<b>c")
    assert ours.token_id("<b>") in ours.encode_rendered("a<b>c")
    assert ours.token_id("\n\n") in ours.encode_text("a\n\nb")


@pytest.mark.parametrize("value", [math.nan, -math.inf])
def test_scores_must_be_numbers(tmp_path: Path, value: float) -> None:
    pairs = sentencepiece_pairs(True)
    scores = pairs["tokenizer.ggml.scores"][1][1]
    scores[-1] = value
    tiny = make_checkpoint(tmp_path / "tiny", "llama", dtype="float32", vocab_size=len(scores))
    with pytest.raises(Corrupt, match="scores` holds NaN or infinity"):
        import_gguf(write(tmp_path / "x.gguf", gguf_of(tiny, extra=pairs)), tmp_path / "back")
