"""Models with a SentencePiece tokenizer as GGUF: llama.cpp splits text like us, and answers like our engine."""

import json
import random
from pathlib import Path
from typing import Any

import pytest

from localinfer.errors import Corrupt
from localinfer.evaluate import evaluate, held_out_text
from localinfer.formats.tokenizer import Tokenizer
from localinfer.graph.weights import Checkpoint
from localinfer.quantize.export import export_gguf
from tests.formats.small_tokenizers import CORPUS, save
from tests.graph.packed import quantized
from tests.tiny import Family, make_checkpoint

GEMMA4: dict[str, Any] = {"hidden_size_per_layer_input": 0}
GEMMA: dict[str, Any] = {"num_hidden_layers": 7, "sliding_window_pattern": 6, "query_pre_attn_scalar": 32}


def model(folder: Path, family: Family, kind: str, config: dict[str, Any]) -> Path:
    """A tiny model whose tokenizer was trained here; it begins every text with BOS, as such models do."""
    names = {"bos_token": "<s>", "eos_token": "</s>", "add_bos_token": True}
    folder.mkdir()
    library = save(kind, folder, names)
    files = {name: (folder / name).read_bytes() for name in ("tokenizer.json", "tokenizer_config.json")}
    make_checkpoint(folder, family, vocab_size=library.get_vocab_size(), **config)
    for name, data in files.items():
        (folder / name).write_bytes(data)
    if family == "gemma4_text":
        keep_lines(folder / "tokenizer.json")
    ids = {name: library.token_to_id(token) for name, token in (("bos_token_id", "<s>"), ("eos_token_id", "</s>"))}
    for file in ("config.json", "generation_config.json"):
        (folder / file).write_text(json.dumps(json.loads((folder / file).read_text()) | ids))
    return folder


def keep_lines(path: Path) -> None:
    """Leave out merges of line ends with something else, of which Gemma's vocabulary has none."""
    tokenizer = json.loads(path.read_text())
    pairs = [merge.split(" ") if isinstance(merge, str) else merge for merge in tokenizer["model"]["merges"]]
    tokenizer["model"]["merges"] = [pair for pair in pairs if not {*"".join(pair)} > {"\n"}]
    path.write_text(json.dumps(tokenizer))


@pytest.mark.parametrize(
    ("family", "kind", "config"),
    [
        ("llama", "prepend", {}),
        ("mistral", "prepend", {}),
        ("gemma3_text", "gemma", GEMMA),
        ("gemma4_text", "gemma", GEMMA4),
    ],
)
@pytest.mark.parametrize("bits", [16, 4])
def test_llama_cpp_reads_it(tmp_path: Path, family: Family, kind: str, config: dict[str, Any], bits: int) -> None:
    source = model(tmp_path / "m", family, kind, config)
    if bits != 16:
        source = quantized(source, tmp_path / "q", bits, 32)
    export_gguf(source, tmp_path / "x.gguf")
    llama_cpp = pytest.importorskip("llama_cpp")
    theirs = llama_cpp.Llama(str(tmp_path / "x.gguf"), vocab_only=True, verbose=False, n_ctx=32)
    ours = Tokenizer(source)
    rng, corpus = random.Random(3), "".join(CORPUS[:2])
    pieces = [corpus[i : i + rng.randrange(1, 40)] for i in rng.sample(range(len(corpus)), 80)]
    for text in ["Hello world", "two  spaces", "a\n\nb", "tail ", "日本 🎉", "<0x41> <s> </s>", *pieces]:
        assert theirs.tokenize(text.encode(), add_bos=False, special=False) == ours.encode_text(text), text
    assert (theirs.token_bos(), theirs.token_eos()) == (ours.bos_id, ours.eos_ids[0])
    assert theirs.n_vocab() == Checkpoint(source).spec.vocab_size
    theirs.close()
    quality = evaluate([tmp_path / "x.gguf"], source, held_out_text(), ctx=32, chunks=4, kv_bits=16)[0]
    assert quality.kld_mean is not None
    assert quality.kld_mean < {16: 1e-4, 4: 1e-2}[bits]


def test_more_tokens_than_rows(tmp_path: Path) -> None:
    source = model(tmp_path / "m", "llama", "prepend", {})
    tokenizer = json.loads((source / "tokenizer.json").read_text())
    tokenizer["model"]["vocab"]["one more"] = len(tokenizer["model"]["vocab"])
    (source / "tokenizer.json").write_text(json.dumps(tokenizer))
    with pytest.raises(Corrupt, match=r"the tokenizer has token .*, but the weights have"):
        export_gguf(source, tmp_path / "x.gguf")
