"""Which names may become paths; and the catalogue."""

import string
import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from localinfer.errors import Corrupt, UsageError
from localinfer.hub import catalogue
from localinfer.hub.names import (
    COMMIT,
    SHA256,
    check_file_names,
    check_model_name,
    folder_of,
    is_model_name,
    is_name_letter,
    is_repo_name,
    is_revision,
    name_from,
    name_of,
    unsafe_reason,
)

word = st.text(string.ascii_letters + string.digits + "._-", min_size=1, max_size=12)


@given(st.one_of(word, st.tuples(word, word).map("/".join), st.text(max_size=20)))
def test_a_model_name_maps_to_one_folder_and_back(name: str) -> None:
    if not is_model_name(name):
        with pytest.raises(UsageError):
            check_model_name(name)
        return
    folder = folder_of(name)
    assert name_of(folder) == name
    assert all(map(is_name_letter, folder))
    assert len(folder.encode()) <= 242
    assert not folder.startswith(".")
    assert ".." not in folder


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        "../x",
        "a/../b",
        "a//b",
        "a/b/c",
        "/a",
        "a/",
        "-a",
        "a--b",
        "a b",
        "a\n",
        "e\u0301",
        "\u3164",
        "a\u202eb",
        "é" * 61,
    ],
)
def test_names_that_are_none(name: str) -> None:
    assert not is_model_name(name)


@given(st.text(max_size=300))
def test_a_name_can_be_made_of_any_text(text: str) -> None:
    name = name_from(text)
    assert name == "" or (is_model_name(name) and "/" not in name)
    assert name_from(name) == name


def test_the_hub_knows_ascii_only() -> None:
    assert is_model_name("größe/模型-7b")
    assert not is_repo_name("größe/模型-7b")
    assert is_repo_name("org/Model-7B.v2")


@given(st.text(max_size=30))
def test_a_safe_file_name_stays_in_its_folder(name: str) -> None:
    if unsafe_reason(name) is None:
        assert all(part not in ("", ".", "..") for part in name.split("/"))
        assert "\0" not in name
        assert "\\" not in name


@pytest.mark.parametrize("names", [["a.json", "A.json"], ["\u00e9.json", "e\u0301.json"], ["ß.json", "ss.json"]])
def test_names_that_a_file_system_may_take_for_one(names: list[str]) -> None:
    check_file_names(names[:1])
    with pytest.raises(Corrupt, match="same name"):
        check_file_names(names)


@pytest.mark.parametrize("revision", ["main", "v1.0", "refs/pr/1", "a" * 40])
def test_revisions(revision: str) -> None:
    assert is_revision(revision)


@pytest.mark.parametrize("revision", ["", "/main", "a/../b", "a//b", "..", "-x", "a\nb", "x" * 129, "a/"])
def test_revisions_that_are_none(revision: str) -> None:
    assert not is_revision(revision)


def test_the_catalogue_is_sound() -> None:
    entries = catalogue.entries()
    aliases = [alias for entry in entries for alias in entry.aliases]
    repos = [entry.repo.lower() for entry in entries]
    assert len(set(aliases)) == len(aliases)
    assert len(set(repos)) == len(repos)
    for entry in entries:
        assert is_model_name(entry.repo)
        assert "/" in entry.repo
        assert entry.aliases
        assert all(alias == alias.lower() and is_model_name(alias) and "/" not in alias for alias in entry.aliases)
        assert entry.advised_bits in (3, 4, 8)
        assert entry.revision == "main" or COMMIT.fullmatch(entry.revision)
        assert entry.parameters > 10**8
        assert entry.licence
        if entry.package:
            assert SHA256.fullmatch(entry.package.sha256)


def test_the_catalogue_knows_every_family_of_the_graph() -> None:
    assert {entry.family for entry in catalogue.entries()} >= {
        "llama3",
        "mistral",
        "qwen2",
        "qwen3",
        "gemma3",
        "smollm2",
    }


def test_an_alias_finds_its_entry() -> None:
    starter = catalogue.find("Starter")
    assert starter is not None
    assert starter.package is not None
    assert catalogue.find(starter.repo) == starter
    assert catalogue.aliases()["starter"] == starter.repo
    assert catalogue.find("nobody/nothing") is None


def test_every_family_file_says_its_licence() -> None:
    for path in catalogue.folder().glob("*.toml"):
        assert "licence" in tomllib.loads(path.read_text(encoding="utf-8"))
