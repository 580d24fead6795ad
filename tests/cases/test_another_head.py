"""A head beside a config that says it is the embedding's matrix: transformers compares them, and so do we."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from localinfer.formats.safetensors import SafetensorsFile
from localinfer.graph.weights import Checkpoint
from localinfer.quantize import quantize_checkpoint
from localinfer.quantize.export_folders import export_gptq
from tests.cases.right import change_config, greedy, ours
from tests.cli.conftest import Cli
from tests.graph.test_weights import edit
from tests.tiny import Family, make_checkpoint

TEXT = "Hello world"


@pytest.mark.parametrize("family", ["llama", "gemma3_text"])
def test_another_head_is_used_aloud(cli: Cli, tmp_path: Path, family: Family) -> None:
    path = make_checkpoint(tmp_path / "m", family, seed=2, tie_word_embeddings=False)
    change_config(path, tie_word_embeddings=True)
    right = greedy(path, TEXT, 8)
    assert ours(cli, path, TEXT, 8) == right
    ran = cli("run", str(path), "--raw", TEXT, "-n", "1")
    assert "another one is stored" in ran.err
    change_config(path, tie_word_embeddings=False)
    assert ours(cli, path, TEXT, 8) == right


def test_a_copy_is_the_embedding(cli: Cli, tmp_path: Path) -> None:
    path = make_checkpoint(tmp_path / "m", seed=2, tie_word_embeddings=True)
    before = ours(cli, path, TEXT, 8)
    edit(path, lambda tensors: tensors.update({"lm_head.weight": tensors["model.embed_tokens.weight"]}))
    assert ours(cli, path, TEXT, 8) == before == greedy(path, TEXT, 8)
    assert "another one" not in cli("run", str(path), "--raw", TEXT, "-n", "1").err


def test_only_the_head_is_stored(cli: Cli, tmp_path: Path) -> None:
    path = make_checkpoint(tmp_path / "m", seed=2, tie_word_embeddings=True)
    edit(path, lambda tensors: tensors.update({"lm_head.weight": tensors.pop("model.embed_tokens.weight")}))
    assert ours(cli, path, TEXT, 8) == greedy(path, TEXT, 8)


def test_what_is_made_of_it_says_what_it_is(cli: Cli, tmp_path: Path) -> None:
    """Quantized and exported, the model has its own head, and its config.json says so."""
    path = make_checkpoint(tmp_path / "m", seed=2)
    quantize_checkpoint(path, tmp_path / "plain", bits=4, group=32, threads=1)
    change_config(path, tie_word_embeddings=True)
    quantize_checkpoint(path, tmp_path / "int4", bits=4, group=32, threads=1)
    made = Checkpoint(tmp_path / "int4")
    assert made.config["tie_word_embeddings"] is False
    assert not made.notes
    assert np.array_equal(made.matrix("lm_head"), Checkpoint(tmp_path / "plain").matrix("lm_head"))
    assert ours(cli, tmp_path / "int4", TEXT, 8) == ours(cli, tmp_path / "plain", TEXT, 8)
    export_gptq(tmp_path / "int4", tmp_path / "gptq")
    change_config(tmp_path / "int4", tie_word_embeddings=True)  # as one made before this was compared
    export_gptq(tmp_path / "int4", tmp_path / "again")
    for exported in ("gptq", "again"):
        assert Checkpoint(tmp_path / exported).config["tie_word_embeddings"] is False


def test_a_base_model_alone_is_quantized(cli: Cli, tmp_path: Path) -> None:
    """Without `model.` before its names, and with the head left out as the embedding's."""
    whole = make_checkpoint(tmp_path / "whole", seed=2, tie_word_embeddings=True)
    bare = make_checkpoint(tmp_path / "bare", seed=2, tie_word_embeddings=True)
    edit(bare, lambda tensors: [tensors.update({n.removeprefix("model."): tensors.pop(n)}) for n in list(tensors)])
    assert ours(cli, bare, TEXT, 8) == greedy(bare, TEXT, 8) == ours(cli, whole, TEXT, 8)
    answers: list[Any] = []
    for source in (whole, bare):
        quantize_checkpoint(source, tmp_path / f"{source.name}-int4", bits=4, group=32, threads=1)
        answers.append(ours(cli, tmp_path / f"{source.name}-int4", TEXT, 8))
    assert answers[0] == answers[1]
    stored = SafetensorsFile(next((tmp_path / "bare-int4").glob("*00001*.safetensors"))).tensors
    assert all(not name.startswith("model.") for name in stored)
