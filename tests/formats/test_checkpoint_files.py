"""Directories with one file or many: every tensor found once, or a clear error."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from localinfer.errors import Corrupt, LocalInferError, NotFound, NotSupported
from localinfer.formats.checkpoint_files import open_tensors
from localinfer.formats.layout import INDEX
from localinfer.formats.safetensors import write_safetensors

SHARDS = {"m-1.safetensors": ["a", "b"], "m-2.safetensors": ["c"]}


@pytest.fixture
def sharded(tmp_path: Path) -> Path:
    for number, (file, names) in enumerate(SHARDS.items()):
        write_safetensors(tmp_path / file, {name: ("F32", np.full((2, 3), number, np.float32)) for name in names})
    write_index(tmp_path, {name: file for file, names in SHARDS.items() for name in names})
    return tmp_path


def write_index(directory: Path, weight_map: Any) -> None:
    (directory / INDEX).write_text(json.dumps({"metadata": {"total_size": 72}, "weight_map": weight_map}))


def refused(directory: Path, error: type[LocalInferError], words: str) -> None:
    with pytest.raises(error, match=words) as caught:
        open_tensors(directory)
    assert caught.value.hint


def test_shards(sharded: Path) -> None:
    tensors = open_tensors(sharded)
    assert sorted(tensors) == ["a", "b", "c"]
    assert tensors.nbytes == 72
    assert tensors["c"].info.shape == (2, 3)
    assert tensors["c"].read()[0, 0] == 1
    assert tensors["a"].read_rows(1, None).shape == (1, 3)
    assert [file.path.name for file in tensors.files] == list(SHARDS)


def test_one_file(tmp_path: Path) -> None:
    write_safetensors(tmp_path / "model.safetensors", {"a": ("F16", np.ones(4, np.float16))})
    assert list(open_tensors(tmp_path)) == ["a"]


def test_links_are_followed(sharded: Path, tmp_path: Path) -> None:
    """The Hub's cache is made of links."""
    snapshot = tmp_path / "snapshot"
    snapshot.mkdir()
    for path in list(sharded.iterdir()):
        (snapshot / path.name).symlink_to(path)
    assert len(open_tensors(snapshot)) == 3


def test_missing_shard(sharded: Path) -> None:
    (sharded / "m-2.safetensors").unlink()
    refused(sharded, Corrupt, r"m-2\.safetensors is missing")


def test_truncated_shard(sharded: Path) -> None:
    data = (sharded / "m-2.safetensors").read_bytes()
    (sharded / "m-2.safetensors").write_bytes(data[:-1])
    refused(sharded, Corrupt, r"m-2\.safetensors: its tensors end at byte")


def test_tensor_in_another_shard(sharded: Path) -> None:
    write_index(sharded, {"a": "m-1.safetensors", "b": "m-2.safetensors", "c": "m-2.safetensors"})
    files = open_tensors(sharded)
    assert files["b"].file.path.name == "m-1.safetensors"
    assert "`b`" in files.notes[0]


def test_tensor_nowhere(sharded: Path) -> None:
    write_index(sharded, {"a": "m-1.safetensors", "nowhere": "m-2.safetensors"})
    refused(sharded, Corrupt, "says `nowhere` is in m-2.safetensors, but it is in none of the files")


def test_tensor_twice(sharded: Path) -> None:
    """The last file by name is read, as in transformers, also where the index names the first."""
    write_safetensors(sharded / "m-2.safetensors", {"b": ("F32", np.full(1, 7.0)), "c": ("F32", np.ones(1))})
    files = open_tensors(sharded)
    assert files["b"].read() == 7.0
    assert "`b`" in files.notes[0]


@pytest.mark.parametrize(
    "name",
    [
        "../m-1.safetensors",
        "/etc/passwd",
        "x/m.safetensors",
        "",
        ".",
        "m.bin",
        "m\0.safetensors",
        "x" * 300,
        5,
        None,
        ["a"],
    ],
)
def test_names_that_lead_elsewhere(sharded: Path, name: object) -> None:
    write_index(sharded, {"a": name})
    refused(sharded, Corrupt, "is not the name of a file")


@pytest.mark.parametrize("weight_map", [None, [], {}, "x", 5])
def test_no_map(sharded: Path, weight_map: object) -> None:
    write_index(sharded, weight_map)
    refused(sharded, Corrupt, "`weight_map` must be an object")


def test_too_many_files(sharded: Path) -> None:
    write_index(sharded, {f"t{i}": f"m{i}.safetensors" for i in range(5000)})
    refused(sharded, Corrupt, "names more than 4096 files")


def test_no_weights(tmp_path: Path) -> None:
    refused(tmp_path / "none", NotFound, "no such directory")
    refused(tmp_path, NotFound, r"has no model\.safetensors")
    (tmp_path / "pytorch_model.bin").write_bytes(b"\x80\x02")
    refused(tmp_path, NotSupported, "pickled weights only")
