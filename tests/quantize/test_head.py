"""A head in other bits than the embedding: one matrix becomes two, and all who read it still agree."""

from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest

from localinfer.chats.template import conversation
from localinfer.formats.gguf import GgufFile
from localinfer.formats.gguf_import import import_gguf
from localinfer.formats.tokenizer import Tokenizer
from localinfer.graph.memory import weights_bytes
from localinfer.graph.weights import Checkpoint
from localinfer.quantize import CalibrationText, quantize_checkpoint
from localinfer.quantize.calibration import calibration
from localinfer.quantize.export import export_gguf
from localinfer.quantize.from_gguf import GgufImporter
from localinfer.reference.executor import logits
from tests.quantize.trees import record, tree
from tests.tiny import Family, make_checkpoint

TEXT = CalibrationText(tokens=2048, render=conversation)
TABLE, HEAD = "model.embed_tokens", "lm_head"


def made(source: Path, dest: Path, **how: Any) -> Checkpoint:
    quantize_checkpoint(source, dest, text=TEXT, threads=1, **{"bits": 4, "method": "gptq", **how})
    return Checkpoint(dest)


@pytest.fixture(scope="module")
def tied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("tied") / "m", "llama", tie_word_embeddings=True, head_dim=32)


@pytest.fixture(scope="module")
def narrow(tied: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With a head of four bits."""
    dest = tmp_path_factory.mktemp("narrow") / "q"
    made(tied, dest, head=4)
    return dest


def test_a_tied_table_becomes_two(tied: Path, narrow: Path) -> None:
    """The table as it would be without, the head of its own beside it, and nothing to remark about that."""
    ours = Checkpoint(narrow)
    assert ours.form(TABLE) == (8, 64)
    assert ours.form(HEAD) == (4, 32)
    assert not ours.spec.tied
    assert not ours.own_head
    assert ours.notes == ()
    assert ours.config["tie_word_embeddings"] is False
    said = record(narrow)
    assert said["recipe"]["head"] == 4
    assert 0 < said["output_error"]["lm_head.weight"] < 0.2
    assert weights_bytes(ours) > weights_bytes(Checkpoint(tied), lambda name: (8, 64) if name == TABLE else (4, 32))


def test_it_is_calibrated_for_what_comes_out_of_the_layers(tied: Path, tmp_path: Path) -> None:
    """On another text the scores come nearer to the original's than with a head rounded to the nearest."""
    ids = calibration(Tokenizer(tied), None, 4 * 512, 99)[0].tolist()
    true, lost = logits(Checkpoint(tied), ids), list[float]()
    for method in ("gptq", "rtn"):
        ours = made(tied, tmp_path / method, bits=8, head=4, method=method)
        lost.append(float((logits(ours, ids) - true).pow(2).mean()))
    assert lost[0] < 0.9 * lost[1]


def test_stopped_at_the_head_it_ends_with_the_same_bytes(tied: Path, narrow: Path, tmp_path: Path) -> None:
    def stop(done: int, total: int) -> None:
        if done == total:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        made(tied, tmp_path / "q", head=4, on_progress=stop)
    assert made(tied, tmp_path / "q", head=4).form(HEAD) == (4, 32)
    assert _weights(tmp_path / "q") == _weights(narrow)


def _weights(folder: Path) -> dict[str, bytes]:
    return {name: data for name, data in tree(folder).items() if name.endswith(".safetensors")}


@pytest.mark.parametrize("tie", [True, False])
def test_bf16_leaves_it_as_it_is(tmp_path: Path, tie: bool) -> None:
    source = make_checkpoint(tmp_path / "m", "llama", tie_word_embeddings=tie)
    ours, original = made(source, tmp_path / "q", head=16), Checkpoint(source)
    assert ours.form(TABLE) == ((16, 0) if tie else (8, 64))
    assert ours.form(ours.graph.head.table.name) == (16, 0)
    name = TABLE if tie else HEAD
    np.testing.assert_array_equal(ours.matrix(name), original.matrix(name))
    assert ours.spec.tied is tie


@pytest.mark.parametrize("family", ["gemma3", "lfm2", "qwen2"])
def test_families_say_it_in_their_own_words(tmp_path: Path, family: Family) -> None:
    """Nested configs and other names of the field: read back without a remark."""
    source = make_checkpoint(tmp_path / "m", family, tie_word_embeddings=True)
    ours = made(source, tmp_path / "q", head=4, method="rtn")
    assert ours.form(HEAD)[0] == 4
    assert not ours.own_head


@pytest.mark.parametrize(("bits", "kind"), [(5, "Q5_0"), (4, "Q8_0")])
def test_five_bits_are_exported_exactly(tmp_path: Path, bits: Literal[5, 4], kind: str) -> None:
    """In blocks of their own width beside layers of it, in wider ones beside narrower layers."""
    source = make_checkpoint(tmp_path / "m", "llama", tie_word_embeddings=True)
    ours = made(source, tmp_path / "q", bits=bits, head=5, method="rtn")
    assert ours.form(HEAD) == (5, 32)
    export_gguf(tmp_path / "q", tmp_path / "x.gguf")
    assert GgufFile(tmp_path / "x.gguf").tensors["output.weight"].type == kind
    GgufImporter().write(tmp_path / "x.gguf", tmp_path / "back")
    assert np.array_equal(Checkpoint(tmp_path / "back").matrix(HEAD), ours.matrix(HEAD))


def test_other_programs_get_the_same_head(narrow: Path, tmp_path: Path) -> None:
    export_gguf(narrow, tmp_path / "x.gguf")
    kinds = {name: tensor.type for name, tensor in GgufFile(tmp_path / "x.gguf").tensors.items()}
    assert (kinds["token_embd.weight"], kinds["output.weight"]) == ("Q8_0", "Q4_0")
    import_gguf(tmp_path / "x.gguf", tmp_path / "back")
    ours = Checkpoint(narrow)
    for name in (TABLE, HEAD):
        np.testing.assert_allclose(Checkpoint(tmp_path / "back").matrix(name), ours.matrix(name), rtol=2**-8)
