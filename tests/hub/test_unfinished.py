"""Models that were begun and never finished: seen, deleted by the name they would have, never while they are made."""

import json
from pathlib import Path

import pytest

from localinfer.errors import NotFound, UsageError
from localinfer.hub.cache import list_models, repo_dir, variant_dir
from localinfer.hub.client import pull
from localinfer.hub.removal import bytes_below
from localinfer.hub.resolve import resolve
from localinfer.hub.unfinished import find_unfinished, remove_unfinished, unfinished_models
from localinfer.hub.upkeep import prune
from localinfer.paths import drafters_dir, kv_dir
from localinfer.quantize.journal import locked
from tests.cli.conftest import Cli, cli  # noqa: F401 - a fixture
from tests.hub.conftest import NAME, Naps
from tests.hub.fake_hub import FakeHub
from tests.hub.test_resolve import ours

LATER = 4e9
"""A day after anything that these tests write."""


def half_made(name: str, variant: str, size: int = 30) -> Path:
    folder = variant_dir(name, variant).with_name(f"{variant}.partial")  # type: ignore[arg-type]
    folder.mkdir(parents=True)
    (folder / "model-00001-of-00003.safetensors").write_bytes(b"x" * size)
    return folder


def test_what_was_stopped_is_found_by_the_name_it_would_have(isolated: Path) -> None:
    ours("org/one", "INT8")
    folder = half_made("org/one", "INT4")
    words = folder.with_name("INT4-words.partial")
    words.mkdir()
    (words / "text.jsonl").write_bytes(b"y" * 5)
    (one,) = unfinished_models()
    assert (one.ref, one.size_bytes, one.busy) == ("org/one:INT4", 35, False)
    assert find_unfinished("org/one:INT4") == one
    assert find_unfinished("org/one:INT8") is None
    with pytest.raises(NotFound, match="never finished") as error:
        resolve("org/one:INT4")
    assert "localinfer rm org/one:INT4" in str(error.value.hint)
    assert remove_unfinished(one, dry_run=True) == 35
    assert folder.exists()
    assert remove_unfinished(one) == 35
    assert unfinished_models() == []
    assert [model.ref for model in list_models()] == ["org/one:INT8"]


def test_the_only_form_needs_no_width(cli: Cli, isolated: Path) -> None:  # noqa: F811
    """As for whole models: the original first, else the only one; of several, none is chosen."""
    half_made("org/one", "INT3")
    assert "`localinfer rm org/one:INT3`" in cli("show", "org/one").err
    half_made("org/one", "INT4")
    ran = cli("rm", "org/one", "--yes")
    assert (ran.code, ran.err.count("`org/one:INT4`, `org/one:INT3`")) == (4, 1), ran.err
    assert cli("rm", "org/one:INT4", "--yes").code == 0
    ours("org/one", "BF16")
    assert cli("rm", "org/one", "--yes").out.startswith("deleted org/one:BF16")
    assert cli("rm", "org/one", "--yes").out.startswith("deleted org/one:INT3")
    half_made("org/one", "INT4")
    ours("org/one", "INT8")
    assert cli("rm", "org/one", "--yes").code == 4
    assert [one.ref for one in unfinished_models()] == ["org/one:INT4"]


def test_the_last_one_takes_its_folder_along(isolated: Path) -> None:
    folder = half_made("org/one", "INT4")
    remove_unfinished(unfinished_models()[0])
    assert not folder.parent.exists()


def test_what_is_being_made_stays(isolated: Path) -> None:
    folder = half_made("org/one", "INT4")
    with locked(folder):
        (one,) = unfinished_models()
        assert one.busy
        with pytest.raises(UsageError, match="is being made now"):
            remove_unfinished(one)
        assert prune(now=LATER) == []
        assert folder.exists()
    assert [leftover.path for leftover in prune(now=LATER)] == [folder]


def test_a_link_that_leads_out_is_no_model_of_ours(isolated: Path, tmp_path: Path) -> None:
    (tmp_path / "precious").mkdir()
    folder = half_made("org/one", "INT8").with_name("INT4.partial")
    folder.symlink_to(tmp_path / "precious")
    assert [one.ref for one in unfinished_models()] == ["org/one:INT8"]
    for one in unfinished_models():
        remove_unfinished(one)
    assert (tmp_path / "precious").is_dir()


def test_a_download_that_was_cut_off(hub: FakeHub, naps: Naps) -> None:
    repo = repo_dir(NAME)
    (repo / "blobs").mkdir(parents=True)
    (repo / "blobs" / ("c" * 64 + ".incomplete")).write_bytes(b"x" * 10)
    (repo / "blobs" / ("d" * 64)).write_bytes(b"x" * 7)
    (one,) = unfinished_models()
    assert (one.ref, one.source, one.size_bytes) == (NAME, "hub", 17)
    with pytest.raises(NotFound, match="never finished") as error:
        resolve(NAME)
    assert f"`localinfer pull {NAME}` goes on" in str(error.value.hint)
    remove_unfinished(one)
    assert not repo.exists()
    pull(NAME, patience=naps.patience())
    assert unfinished_models() == []


def test_what_other_tools_keep_without_weights_is_no_half_made_model(hub: FakeHub, naps: Naps) -> None:
    model = pull(NAME, patience=naps.patience())
    (model.path / "model.safetensors").unlink()
    assert list_models() == []
    assert unfinished_models() == []


def test_list_rm_and_prune_tell_of_them(cli: Cli, isolated: Path) -> None:  # noqa: F811
    half_made("me/tiny", "INT4", 2_000)
    (row,) = json.loads(cli("list", "--json").out)
    assert (row["ref"], row["unfinished"], row["size_bytes"]) == ("me/tiny:INT4", "stopped", 2000)
    assert cli("list").out.splitlines()[1].split() == [
        "me/tiny:INT4",
        "INT4",
        "2.0",
        "kB",
        "made",
        "here",
        "unfinished",
    ]
    kept = cli("cache", "prune")
    assert kept.out == "freed 0 B\n"
    assert "`localinfer rm me/tiny:INT4` deletes it" in kept.err
    assert cli("rm", "me/tiny:INT4", "--yes").out == "deleted me/tiny:INT4, 2.0 kB\n"
    assert cli("list", "--json").out == "[]\n"
    assert cli("rm", "me/tiny:INT4", "--yes").code == 4


def test_prune_takes_text_that_a_drafter_was_to_learn_from(isolated: Path) -> None:
    left = drafters_dir() / "abc-words-0.partial"
    left.mkdir(parents=True)
    (left / "words.jsonl").write_bytes(b"x" * 9)
    assert prune() == []
    assert [(one.path, one.size_bytes) for one in prune(now=LATER)] == [(left, 9)]
    assert not left.exists()


def test_prune_takes_a_file_where_the_cache_of_keys_belongs(isolated: Path) -> None:
    kv_dir().parent.mkdir(parents=True, exist_ok=True)
    kv_dir().write_bytes(b"x" * 1234)
    assert [one.size_bytes for one in prune()] == [1234]
    assert not kv_dir().exists()
    assert bytes_below(kv_dir().parent) == 0
