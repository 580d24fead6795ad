"""What `rm`, `cache verify` and `cache prune` delete, and what they leave."""

import time
from pathlib import Path

import pytest

from localinfer.errors import UsageError
from localinfer.hub.cache import list_models, repo_dir, variant_dir
from localinfer.hub.client import pull
from localinfer.hub.removal import remove
from localinfer.hub.resolve import resolve
from localinfer.hub.upkeep import prune, verify
from localinfer.paths import hub_cache_dir, models_dir
from tests.hub.conftest import NAME, Naps, tiny_files
from tests.hub.fake_hub import COMMIT, FakeHub
from tests.hub.test_resolve import A, checkpoint, download, ours


def files(root: Path) -> list[Path]:
    return sorted(path for path in root.rglob("*") if path.is_file() or path.is_symlink())


def test_a_form_of_ours_goes_alone(isolated: Path) -> None:
    ours("org/one", "INT4")
    ours("org/one", "INT8")
    model = resolve("org/one:INT4")
    assert remove(model, dry_run=True).freed_bytes == model.size_bytes
    assert model.path.exists()
    remove(model)
    assert not model.path.exists()
    assert [m.variant for m in list_models()] == ["INT8"]
    remove(resolve("org/one:INT8"))
    assert not variant_dir("org/one", "INT8").parent.exists()


def test_a_revision_goes_and_shared_blobs_stay(hub: FakeHub, naps: Naps) -> None:
    pull(NAME, patience=naps.patience())
    hub.add(NAME, {**tiny_files(), "config.json": b'{"model_type": "llama", "new": 1}'}, commit="b" * 40)
    new = pull(NAME, patience=naps.patience())
    old = resolve(f"{NAME}@{COMMIT}")
    said = remove(old, dry_run=True)
    assert old.path.exists()
    assert said.freed_bytes == len(tiny_files()["config.json"])
    assert remove(old) == said
    assert list_models() == [new]
    assert (new.path / "model.safetensors").read_bytes() == tiny_files()["model.safetensors"]
    assert not verify()
    remove(new)
    assert not repo_dir(NAME).exists()
    assert files(hub_cache_dir()) == []


def test_links_out_of_the_roots_are_never_followed(isolated: Path, tmp_path: Path) -> None:
    precious = checkpoint(tmp_path / "precious")
    kept = files(tmp_path)
    repo = download("org/one").parent.parent
    (repo / "blobs" / "out").symlink_to(precious)
    (repo / "snapshots" / A / "extra").symlink_to(precious / "config.json")
    (variant := ours("org/one", "INT4")).joinpath("out").symlink_to(precious)
    model = resolve("org/one:INT4")
    remove(model)
    assert not variant.exists()
    (repo / "snapshots" / A / "extra").unlink()
    remove(resolve("org/one"))
    assert files(tmp_path) == kept

    ours("org/two", "INT4")
    model = resolve("org/two:INT4")
    model.path.rename(tmp_path / "moved")
    model.path.symlink_to(tmp_path / "moved")
    with pytest.raises(UsageError, match="leads out"):
        remove(model)
    assert (tmp_path / "moved" / "config.json").exists()


def test_a_path_of_the_users_is_not_ours_to_delete(isolated: Path, tmp_path: Path) -> None:
    path = checkpoint(tmp_path / "mine")
    with pytest.raises(UsageError, match="a path of yours"):
        remove(resolve(str(path)))
    assert path.exists()


def test_verify_finds_a_flipped_bit_in_either_kind(hub: FakeHub, naps: Naps) -> None:
    model = pull(NAME, patience=naps.patience())
    heard: list[tuple[int, int]] = []
    assert verify(lambda done, total: heard.append((done, total))) == []
    assert heard[-1] == (model.size_bytes, model.size_bytes)
    for name in ("model.safetensors", "config.json"):
        blob = (model.path / name).resolve()
        data = blob.read_bytes()
        blob.write_bytes(bytes([data[0] ^ 1]) + data[1:] if name != "config.json" else data + b" ")
    assert sorted(damage.path.name for damage in verify()) == ["config.json", "model.safetensors"]
    assert all("wrong hash" in damage.what for damage in verify())


def test_prune_takes_leftovers_that_are_a_day_old(hub: FakeHub, naps: Naps) -> None:
    model = pull(NAME, patience=naps.patience())
    before = files(hub_cache_dir())
    (repo_dir(NAME) / "blobs" / ("c" * 64 + ".incomplete")).write_bytes(b"x" * 10)
    (repo_dir(NAME) / "blobs" / ("d" * 64)).write_bytes(b"x" * 20)
    partial = models_dir() / "org--one" / "INT4.partial"
    partial.mkdir(parents=True)
    (partial / "shard").write_bytes(b"x" * 30)
    broken = models_dir() / "org--one" / "INT8"
    broken.mkdir()
    assert prune() == []
    later = time.time() + 25 * 3600
    found = prune(dry_run=True, now=later)
    assert [leftover.size_bytes for leftover in found] == [10, 20, 30, 0]
    assert prune(now=later) == found
    assert prune(now=later) == []
    assert files(hub_cache_dir()) == before
    assert not partial.exists()
    assert list_models() == [model]
