"""A single file of weights beside an index and its shards: transformers reads the single file, and so do we, aloud."""

import json
from pathlib import Path

from localinfer.formats.layout import INDEX, SINGLE
from tests.cases.right import greedy, ours
from tests.cli.conftest import Cli
from tests.tiny import make_checkpoint

TEXT = "Hello world"


def two_sets(path: Path) -> tuple[Path, Path]:
    """A directory with both, and one with the shards alone."""
    old = make_checkpoint(path / "old", seed=9, shards=2)
    both = make_checkpoint(path / "both", seed=3)
    for file in [old / INDEX, *old.glob("*.safetensors")]:
        (both / file.name).write_bytes(file.read_bytes())
    return both, old


def test_the_single_file_is_read_and_both_are_named(cli: Cli, tmp_path: Path) -> None:
    both, old = two_sets(tmp_path)
    right = greedy(both, TEXT, 12)
    assert right != greedy(old, TEXT, 12)
    assert ours(cli, both, TEXT, 12) == right
    ran = cli("run", str(both), "--raw", TEXT, "-n", "1")
    assert ran.code == 0
    assert SINGLE in ran.err
    assert INDEX in ran.err
    assert "model-00001-of-00002.safetensors" in ran.err


def test_an_index_that_is_left_behind_alone(cli: Cli, tmp_path: Path) -> None:
    """Its shards are gone, or it is no index at all: the single file is a whole model."""
    both, _ = two_sets(tmp_path)
    for file in both.glob("model-*.safetensors"):
        file.unlink()
    right = greedy(both, TEXT, 6)
    assert ours(cli, both, TEXT, 6) == right
    (both / INDEX).write_text("[")
    assert ours(cli, both, TEXT, 6) == right


def test_an_index_of_the_single_file_is_no_second_set(cli: Cli, tmp_path: Path) -> None:
    path = make_checkpoint(tmp_path / "m")
    (path / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": {"lm_head.weight": SINGLE}}))
    assert ours(cli, path, TEXT, 6) == greedy(path, TEXT, 6)
    assert "two sets" not in cli("run", str(path), "--raw", TEXT, "-n", "1").err
