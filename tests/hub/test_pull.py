"""Downloads that go well, and what they leave on disk."""

import os
import shutil
import stat
from pathlib import Path

import pytest

from localinfer.errors import NotFound, UsageError
from localinfer.hub import catalogue
from localinfer.hub.cache import list_models, repo_dir
from localinfer.hub.client import pull
from localinfer.hub.locks import locked
from localinfer.hub.resolve import resolve
from tests.hub.conftest import NAME, Naps, sharded_files, tiny_files
from tests.hub.fake_hub import COMMIT, Answer, FakeHub, git_sha1, sha256

TEMPLATE = "additional_chat_templates/tool_use.jinja"
WANTED = {"config.json", "tokenizer.json", "chat_template.jinja", "merges.txt", "model.safetensors", TEMPLATE}


def files_of(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def test_a_model_arrives_whole_and_nothing_else_does(hub: FakeHub, naps: Naps) -> None:
    heard: list[tuple[int, int]] = []
    model = pull(NAME, patience=naps.patience(), on_progress=lambda done, total: heard.append((done, total)))

    assert {str(path.relative_to(model.path)) for path in files_of(model.path)} == WANTED
    for name in WANTED:
        assert (model.path / name).read_bytes() == tiny_files()[name]
    assert (model.ref, model.name, model.variant, model.revision) == (NAME, NAME, "BF16", COMMIT)
    total = sum(len(tiny_files()[name]) for name in WANTED)
    assert model.size_bytes == total
    assert heard[-1] == (total, total)
    assert [done for done, _ in heard] == sorted(done for done, _ in heard)
    assert naps == []
    assert not any(word in s.path for s in hub.seen for word in (".py", ".bin", "README", "original"))
    assert not list(repo_dir(NAME).rglob("*.incomplete"))


def test_the_cache_is_the_one_that_hub_tools_share(hub: FakeHub, naps: Naps, tmp_path: Path) -> None:
    from huggingface_hub import hf_hub_download, scan_cache_dir, try_to_load_from_cache
    from huggingface_hub.utils.tqdm import disable_progress_bars

    disable_progress_bars()
    model = pull(NAME, patience=naps.patience())
    root = repo_dir(NAME).parent
    theirs = {
        Path(hf_hub_download(NAME, name, cache_dir=tmp_path, endpoint=hub.endpoint)).relative_to(tmp_path)
        for name in WANTED
    }
    assert theirs == {path.relative_to(root) for path in files_of(model.path)}
    for path in theirs:
        assert (tmp_path / path).readlink() == (root / path).readlink()
    assert (root / repo_dir(NAME).name / "refs" / "main").read_text() == COMMIT

    before = len(hub.seen)
    assert try_to_load_from_cache(NAME, "config.json", cache_dir=root) == str(model.path / "config.json")
    assert hf_hub_download(NAME, "model.safetensors", revision=COMMIT, cache_dir=root) == str(
        model.path / "model.safetensors"
    )
    assert len(hub.seen) == before
    scanned = scan_cache_dir(root)
    assert not scanned.warnings
    assert [repo.repo_id for repo in scanned.repos] == [NAME]


def test_a_model_that_other_tools_downloaded_is_seen_and_not_fetched_again(hub: FakeHub, naps: Naps) -> None:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.utils.tqdm import disable_progress_bars

    disable_progress_bars()
    root = repo_dir(NAME).parent
    for name in WANTED:
        hf_hub_download(NAME, name, cache_dir=root, endpoint=hub.endpoint)
    assert resolve(NAME).revision == COMMIT
    before = len(hub.seen)
    assert pull(NAME, patience=naps.patience()).path == resolve(NAME).path
    assert len(hub.seen) == before + 1  # the listing


@pytest.mark.parametrize("sharded", [False, True])
def test_what_is_whole_already_is_pulled_without_writing(hub: FakeHub, naps: Naps, sharded: bool) -> None:
    """So that a cache that cannot be written, or belongs to somebody else, serves."""
    if sharded:
        hub.add(NAME, sharded_files())
    model = pull(NAME, patience=naps.patience())
    root = repo_dir(NAME).parent
    shutil.rmtree(root / ".locks")
    folders = [root, *(path for path in root.rglob("*") if path.is_dir() and not path.is_symlink())]
    before = [(path, path.stat().st_mtime_ns, path.stat().st_ino) for path in sorted(root.rglob("*"))]
    modes = {folder: folder.stat().st_mode for folder in folders}
    try:
        for folder in reversed(folders):
            folder.chmod(0o555)
        assert pull(NAME, patience=naps.patience()) == model
    finally:
        for folder, mode in modes.items():
            folder.chmod(mode)
    assert [(path, path.stat().st_mtime_ns, path.stat().st_ino) for path in sorted(root.rglob("*"))] == before


def test_what_is_here_is_said_where_the_hub_does_not_answer(hub: FakeHub, naps: Naps) -> None:
    """At once, and not after all the tries that a download is worth."""
    model, said = pull(NAME, patience=naps.patience()), list[str]()
    hub.script(NAME, *[Answer(status=503)] * 3)
    assert pull(NAME, patience=naps.patience(), on_notice=said.append) == model
    assert naps == []
    assert f"`{model.ref}` is here and whole" in said[0]


def test_what_is_nearly_whole_is_made_whole(hub: FakeHub, naps: Naps) -> None:
    model = pull(NAME, patience=naps.patience())
    for harm in (
        lambda: (model.path / "merges.txt").unlink(),
        lambda: (model.path / "model.safetensors").resolve().write_bytes(b"cut short"),
        lambda: (repo_dir(NAME) / "refs" / "main").write_text("b" * 40),
    ):
        harm()
        assert pull(NAME, patience=naps.patience()).ref == NAME
        assert {str(path.relative_to(model.path)) for path in files_of(model.path)} == WANTED
        assert (model.path / "model.safetensors").read_bytes() == tiny_files()["model.safetensors"]
        assert (repo_dir(NAME) / "refs" / "main").read_text() == COMMIT


def test_blobs_are_named_by_their_hashes(hub: FakeHub, naps: Naps) -> None:
    model = pull(NAME, patience=naps.patience())
    files = tiny_files()
    assert (model.path / "model.safetensors").readlink().name == sha256(files["model.safetensors"])
    assert (model.path / "config.json").readlink().name == git_sha1(files["config.json"])


def test_shards_named_by_the_index_come_and_other_weights_do_not(hub: FakeHub, naps: Naps) -> None:
    hub.add("org/shards", sharded_files())
    model = pull("org/shards", patience=naps.patience())
    names = {path.name for path in model.path.iterdir()}
    assert "model-00002-of-00002.safetensors" in names
    assert "consolidated.safetensors" not in names


def test_of_two_sets_of_weights_the_single_file_comes(hub: FakeHub, naps: Naps) -> None:
    hub.add("org/both", {**sharded_files(), "model.safetensors": tiny_files()["model.safetensors"]})
    model = pull("org/both", patience=naps.patience())
    names = {path.name for path in model.path.iterdir() if path.suffix == ".safetensors"}
    assert names == {"model.safetensors"}


def test_a_second_pull_asks_one_question(hub: FakeHub, naps: Naps) -> None:
    pull(NAME, patience=naps.patience())
    hub.seen.clear()
    pull(NAME, patience=naps.patience())
    assert len(hub.seen) == 1


def test_a_pull_after_a_cut_fetches_only_the_rest(hub: FakeHub, naps: Naps) -> None:
    digest = sha256(tiny_files()["model.safetensors"])
    hub.script(digest, Answer(cut_after=100_000), *[Answer(status=503)] * 2)
    with pytest.raises(Exception, match="answered 503"):
        pull(NAME, patience=naps.patience())
    hub.seen.clear()
    model = pull(NAME, patience=naps.patience())
    assert [s.headers["range"] for s in hub.bodies("model.safetensors")] == ["bytes=100000-"]
    assert not hub.bodies("config.json")
    assert (model.path / "model.safetensors").read_bytes() == tiny_files()["model.safetensors"]


def test_a_partial_file_that_is_complete_needs_no_bytes(hub: FakeHub, naps: Naps) -> None:
    data = tiny_files()["model.safetensors"]
    blobs = repo_dir(NAME) / "blobs"
    blobs.mkdir(parents=True)
    (blobs / f"{sha256(data)}.incomplete").write_bytes(data)
    pull(NAME, patience=naps.patience())
    assert not hub.bodies("model.safetensors")


def test_every_file_is_of_the_commit_that_main_was_at_first(hub: FakeHub, naps: Naps) -> None:
    moved = "b" * 40

    def move(done: int, total: int) -> None:
        hub.add(NAME, tiny_files(seed=1), commit=moved)

    first = pull(NAME, patience=naps.patience(), on_progress=move)
    assert first.revision == COMMIT
    assert (first.path / "model.safetensors").read_bytes() == tiny_files()["model.safetensors"]
    second = pull(NAME, patience=naps.patience())
    assert second.revision == moved
    assert resolve(NAME).revision == moved
    assert resolve(f"{NAME}@{COMMIT}").path == first.path
    assert [model.ref for model in list_models()] == [NAME, f"{NAME}@{COMMIT}"]


def test_an_alias_is_pinned_and_a_name_is_main(hub: FakeHub, naps: Naps) -> None:
    entry = catalogue.find("starter")
    assert entry is not None
    hub.add(entry.repo, tiny_files(seed=1), commit=entry.revision, branch="old")
    hub.add(entry.repo, tiny_files(seed=2), commit="b" * 40)
    assert pull("starter", patience=naps.patience()).revision == entry.revision
    assert pull(entry.repo, patience=naps.patience()).revision == "b" * 40
    assert resolve("starter").revision == entry.revision
    assert resolve(entry.repo).revision == "b" * 40


@pytest.mark.parametrize("revision", ["v1.0", "b" * 40, "refs/pr/1"])
def test_a_revision_is_a_tag_a_commit_or_a_branch(hub: FakeHub, naps: Naps, revision: str) -> None:
    hub.add(NAME, tiny_files(seed=1), commit="b" * 40, branch=revision)
    model = pull(f"{NAME}@{revision}", patience=naps.patience())
    assert model.revision == "b" * 40
    assert resolve(NAME, revision=revision).path == model.path


def test_the_token_goes_to_the_hub_only_and_is_never_said(
    hub: FakeHub, naps: Naps, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_good")
    hub.repos[NAME].gated = True
    pull(NAME, patience=naps.patience())
    hub.repos[NAME].commits[COMMIT]["model.safetensors"] += b"!"
    with pytest.raises(NotFound) as refused:
        pull(NAME, token="hf_bad", patience=naps.patience())
    assert "refuses the token" in refused.value.message
    assert {s.headers.get("authorization") for s in hub.seen if s.server == "cdn"} == {None}
    assert {s.headers.get("authorization") for s in hub.seen if s.server == "hub"} == {
        "Bearer hf_good",
        "Bearer hf_bad",
    }
    said = "".join(capfd.readouterr()) + refused.value.message + str(refused.value.hint)
    assert "hf_good" not in said
    assert "hf_bad" not in said


def test_offline_takes_what_is_here_and_asks_nobody(hub: FakeHub, naps: Naps, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(NotFound, match="offline"):
        pull(NAME, offline=True)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(NotFound, match="offline"):
        pull(NAME)
    assert not hub.seen
    monkeypatch.delenv("HF_HUB_OFFLINE")
    model = pull(NAME, patience=naps.patience())
    hub.seen.clear()
    assert pull(NAME, offline=True) == model
    assert not hub.seen


def test_two_processes_share_one_download(hub: FakeHub, naps: Naps) -> None:
    digest = sha256(tiny_files()["model.safetensors"])
    lock = repo_dir(NAME).parent / ".locks" / repo_dir(NAME).name / f"{digest}.lock"
    said: list[str] = []
    held = locked(lock)
    held.__enter__()

    def waited(line: str) -> None:
        said.append(line)
        held.__exit__(None, None, None)

    pull(NAME, patience=naps.patience(), on_notice=waited)
    assert said == ["another process downloads model.safetensors; waiting for it"]


def test_a_planted_link_is_not_written_through(hub: FakeHub, naps: Naps, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    digest = sha256(tiny_files()["model.safetensors"])
    blobs = repo_dir(NAME) / "blobs"
    blobs.mkdir(parents=True)
    (blobs / f"{digest}.incomplete").symlink_to(victim)
    with pytest.raises(Exception, match="incomplete"):
        pull(NAME, patience=naps.patience())
    assert victim.read_bytes() == b"precious"


def test_blobs_are_readable_and_not_executable(hub: FakeHub, naps: Naps) -> None:
    old = os.umask(0o022)
    try:
        model = pull(NAME, patience=naps.patience())
    finally:
        os.umask(old)
    assert stat.S_IMODE((model.path / "model.safetensors").stat().st_mode) == 0o644


@pytest.mark.parametrize(
    "ref", ["./here", "x.gguf", "org/name:INT4", "../up", "a/b/c", "", "org/na me", "org/..", "a\0b"]
)
def test_references_that_cannot_be_pulled(ref: str) -> None:
    with pytest.raises(UsageError):
        pull(ref)
