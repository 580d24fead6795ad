"""Downloads that go wrong: the error, its exit code, how long it was tried, and what is on disk afterwards."""

import json
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections import namedtuple
from pathlib import Path

import pytest

from localinfer.errors import Corrupt, DoesNotFit, LocalInferError, NetworkError, NotFound, NotSupported
from localinfer.hub.cache import list_models, repo_dir
from localinfer.hub.client import pull
from localinfer.hub.connection import Connection
from localinfer.hub.patience import HASTY
from localinfer.paths import hub_cache_dir
from tests.hub.conftest import NAME, Naps, sharded_files, tiny_files
from tests.hub.fake_hub import COMMIT, Answer, FakeHub, git_sha1, sha256

ROOT = Path(__file__).resolve().parents[2]
WEIGHTS = tiny_files()["model.safetensors"]
DIGEST = sha256(WEIGHTS)


def pulled(hub: FakeHub, naps: Naps) -> bytes:
    return (pull(NAME, patience=naps.patience()).path / "model.safetensors").read_bytes()


def failure(kind: type[LocalInferError], naps: Naps, name: str = NAME, **changes: float) -> LocalInferError:
    """The error of a pull, after checking that nothing incomplete can be seen or used."""
    with pytest.raises(kind) as error:
        pull(name, patience=naps.patience(**changes))
    assert type(error.value) is kind
    assert error.value.hint
    assert "\x1b" not in error.value.message
    assert not list_models()
    return error.value


@pytest.mark.parametrize(
    "faults",
    [
        [Answer(cut_after=0)],
        [Answer(cut_after=1), Answer(cut_after=1), Answer(cut_after=1), Answer(cut_after=100_000)],
        [Answer(cut_after=250_000), Answer(ignore_range=True)],
        [Answer(status=500), Answer(status=503)],
        [Answer(status=429, headers={"Retry-After": "7"})],
        [Answer(status=429, headers={"Retry-After": "Wed, 21 Oct 2026 07:28:00 GMT"})],
        [Answer(no_length=True)],
        [Answer(no_length=True, cut_after=70_000)],
        [Answer(hang=True)],
        [Answer(flip=299_999)],
        [Answer(flip=0)],
        [Answer(cut_after=100_000), Answer(flip=200_000)],
        [Answer(cut_after=100_000), Answer(wrong_range=True)],
        [Answer(extra=b"more")],
        [Answer(extra=b"more", no_length=True)],
        [Answer(headers={"Content-Encoding": "gzip"})],
    ],
    ids=lambda faults: "+".join(
        ",".join(f"{key}={value}" for key, value in vars(fault).items() if value) for fault in faults
    )[:60],
)
def test_one_bad_moment_is_got_over(hub: FakeHub, naps: Naps, faults: list[Answer]) -> None:
    hub.script(DIGEST, *faults)
    assert pulled(hub, naps) == WEIGHTS
    assert not list(repo_dir(NAME).rglob("*.incomplete"))
    if faults[0].headers.get("Retry-After") == "7":
        assert naps == [7.0]


@pytest.mark.parametrize("part", ["/api/models/", DIGEST, "/config.json"])
@pytest.mark.parametrize(("status", "word"), [(429, "too many requests"), (500, "answered 500"), (504, "answered 504")])
def test_a_hub_that_stays_broken_ends_in_exit_6(hub: FakeHub, naps: Naps, part: str, status: int, word: str) -> None:
    hub.script(part, *[Answer(status=status)] * 9)
    error = failure(NetworkError, naps)
    assert error.exit_code == 6
    assert word in error.message
    assert "3 tries" in error.message
    assert naps == [1.0, 2.0]


def test_a_long_retry_after_is_said_and_not_waited_for(hub: FakeHub, naps: Naps) -> None:
    hub.script("/api/", Answer(status=429, headers={"Retry-After": "3600"}))
    assert "asks to wait 3600 s" in failure(NetworkError, naps).message
    assert naps == []


def test_a_connection_that_is_always_cut_ends_in_exit_6_and_keeps_what_came(hub: FakeHub, naps: Naps) -> None:
    hub.script(DIGEST, Answer(cut_after=1000), *[Answer(cut_after=0)] * 9)
    error = failure(NetworkError, naps)
    assert "cut" in error.message
    assert "kept" in str(error.hint)
    assert (repo_dir(NAME) / "blobs" / f"{DIGEST}.incomplete").stat().st_size == 1000


def test_a_silent_hub_is_not_waited_for_long(hub: FakeHub, naps: Naps) -> None:
    hub.script("/api/", *[Answer(hang=True)] * 9)
    assert "stopped sending" in failure(NetworkError, naps, stall=0.05).message


def test_a_question_has_a_deadline_of_its_own(hub: FakeHub, naps: Naps) -> None:
    hub.script("/api/", *[Answer(hang=True)] * 9)
    assert "no answer within 0.1 s" in failure(NetworkError, naps, attempts=1, stall=30, deadline=0.1).message
    assert HASTY.deadline is not None
    assert HASTY.deadline <= 5


def test_no_hub_at_all(hub: FakeHub, naps: Naps, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.close()
    assert "cannot be reached" in failure(NetworkError, naps).message
    monkeypatch.setenv("HF_ENDPOINT", "ftp://elsewhere")
    with pytest.raises(LocalInferError, match="not a web address"):
        pull(NAME)


def test_gated_says_how_to_get_in(hub: FakeHub, naps: Naps) -> None:
    hub.repos[NAME].gated = True
    error = failure(NotFound, naps)
    assert error.exit_code == 4
    assert error.message == f"`{NAME}` is gated: its owner lets only some accounts have it"
    assert f"{hub.endpoint}/{NAME}" in str(error.hint)
    assert "HF_TOKEN" in str(error.hint)


def test_what_is_not_there_is_told_apart(hub: FakeHub, naps: Naps) -> None:
    assert "no repository `org/none`, or it is private" in failure(NotFound, naps, "org/none").message
    assert "no revision `v9`" in failure(NotFound, naps, f"{NAME}@v9").message
    hub.repos[NAME].listed["extra.json"] = {"size": 2, "blobId": "c" * 40}
    assert "listed but not there" in failure(NotFound, naps).message
    hub.script("/api/", Answer(status=403))
    assert "does not allow" in failure(NotFound, naps).message
    hub.script("/api/", Answer(status=418))
    assert "answered 418" in failure(NetworkError, naps).message


@pytest.mark.parametrize(
    ("name", "digest", "fault", "word"),
    [
        ("model.safetensors", DIGEST, Answer(flip=1234), "sha256 mismatch (expected " + DIGEST),
        ("config.json", "/config.json", Answer(flip=3), "git sha1 mismatch"),
        ("model.safetensors", DIGEST, Answer(extra=b"x"), "300001 bytes instead of 300000"),
        ("model.safetensors", DIGEST, Answer(extra=b"x", no_length=True), "more than the 300000 bytes"),
        ("config.json", "/config.json", Answer(status=200, body=b"{}"), "2 bytes instead of"),
        ("config.json", "/config.json", Answer(headers={"X-Repo-Commit": "b" * 40}), "another commit"),
    ],
)
def test_wrong_bytes_twice_are_corrupt_and_not_kept(
    hub: FakeHub, naps: Naps, name: str, digest: str, fault: Answer, word: str
) -> None:
    hub.script(digest, fault, fault)
    error = failure(Corrupt, naps)
    assert error.exit_code == 7
    assert word in error.message
    assert name in error.message
    expected = git_sha1(tiny_files()[name]) if name == "config.json" else DIGEST
    assert not list((repo_dir(NAME) / "blobs").glob(f"{expected}*"))
    assert pulled(hub, naps) == WEIGHTS  # and the next try is clean


def test_a_partial_file_of_wrong_bytes_is_found_out(hub: FakeHub, naps: Naps) -> None:
    blobs = repo_dir(NAME) / "blobs"
    blobs.mkdir(parents=True)
    for junk in (b"junk" * 1000, b"junk" * 75_000, b"junk" * 100_000):
        (blobs / f"{DIGEST}.incomplete").write_bytes(junk)
        (blobs / DIGEST).unlink(missing_ok=True)
        assert pulled(hub, naps) == WEIGHTS


UNSAFE = [
    "../evil.json",
    "a/../../evil.json",
    "/etc/evil.json",
    "C:\\evil.json",
    "C:evil.json",
    "\\\\host\\share\\evil.json",
    "..\\evil.json",
    "a//evil.json",
    "./evil.json",
    "nul\0.json",
    "\x1b]0;title\x07.json",
    "con.json",
    "a./evil.json",
    "x" * 251 + ".json",
    "right\u202enosj.json",
    "~/evil.json",
    "Config.JSON/../config.json",
    "CONFIG.json",
    "../tokenizer.model",
]


@pytest.mark.parametrize("name", UNSAFE)
def test_unsafe_file_names_stop_it_before_a_byte(hub: FakeHub, naps: Naps, name: str, isolated: Path) -> None:
    hub.repos[NAME].listed[name] = {"size": 2, "blobId": "c" * 40}
    before = sorted(isolated.rglob("*"))
    error = failure(Corrupt, naps)
    assert "a file named" in error.message
    assert sorted(isolated.rglob("*")) == before
    assert len(hub.seen) == 1


@pytest.mark.parametrize(
    "changes",
    [
        {"blobId": "../../x"},
        {"blobId": None},
        {"blobId": "A" * 40},
        {"size": -1},
        {"size": "12"},
        {"size": True},
        {"size": 1 << 60},
        {"lfs": {"sha256": "c" * 40, "size": 1}},
        {"lfs": {"sha256": DIGEST}},
    ],
)
def test_lying_listings(hub: FakeHub, naps: Naps, changes: dict[str, object]) -> None:
    hub.repos[NAME].listed["config.json"] = changes
    assert "no usable" in failure(Corrupt, naps).message


@pytest.mark.parametrize(
    "body",
    [
        b"<html>captive portal</html>",
        b"[]",
        b'{"sha": "..", "siblings": []}',
        b'{"sha": "%b", "siblings": 3}' % COMMIT.encode(),
        b'{"sha": "%b", "siblings": [3]}' % COMMIT.encode(),
        b'{"sha": "%b", "siblings": [{}]}' % COMMIT.encode(),
        b"[" * 100_000,
        b'{"sha": NaN}',
        b"\xff",
    ],
)
def test_answers_that_are_no_listing(hub: FakeHub, naps: Naps, body: bytes) -> None:
    hub.script("/api/", Answer(status=200, body=body))
    failure(Corrupt, naps)


def test_an_endless_listing_is_cut_off(hub: FakeHub, naps: Naps) -> None:
    hub.script("/api/", Answer(status=200, body=b" " * (33 << 20)))
    assert "endless" in failure(NetworkError, naps).message


@pytest.mark.parametrize("ending", [".bin", ".gguf", ".py"])
def test_a_repository_without_safetensors(hub: FakeHub, naps: Naps, ending: str) -> None:
    hub.add("org/old", {"config.json": b"{}", f"weights{ending}": b"x" * 50_000})
    error = failure(NotSupported, naps, "org/old")
    assert error.exit_code == 5
    assert ("pickled weights only" in error.message) == (ending == ".bin")
    assert ("localinfer import" in str(error.hint)) == (ending == ".gguf")
    assert len(hub.seen) == 1


def test_a_repository_without_config(hub: FakeHub, naps: Naps) -> None:
    hub.add("org/bare", {"model.safetensors": WEIGHTS})
    assert "has no `config.json`" in failure(NotSupported, naps, "org/bare").message


@pytest.mark.parametrize(
    "shard", ["model-00009-of-00002.safetensors", "../x.safetensors", "weights.bin", "config.json"]
)
def test_an_index_that_names_what_is_not_there(hub: FakeHub, naps: Naps, shard: str) -> None:
    files = sharded_files()
    files["model.safetensors.index.json"] = json.dumps({"weight_map": {"a": shard}}).encode()
    hub.add("org/lies", files)
    error = failure(Corrupt, naps, "org/lies")
    assert "which the repository does not hold" in error.message
    assert not any(s.server == "cdn" for s in hub.seen)


@pytest.mark.parametrize(
    ("location", "word"),
    [
        ("file:///etc/passwd", "redirects to a file address"),
        ("http://[broken", "redirects"),
        ("//", "redirects"),
        ("http://host:99999999/x", "redirects"),
    ],
)
def test_redirects_that_are_not_followed(hub: FakeHub, naps: Naps, location: str, word: str) -> None:
    hub.script("/resolve/", *[Answer(headers={"Location": location})] * 20)
    assert word in failure(NetworkError, naps).message


@pytest.mark.parametrize(
    "location", ["https://169.254.169.254/", "https://127.0.0.1/x", "https://localhost/", "https://[::1]/"]
)
def test_a_public_hub_cannot_send_us_inside(monkeypatch: pytest.MonkeyPatch, location: str) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "https://hub.example")
    connection = Connection(NAME, "main", None)
    with pytest.raises(NetworkError, match="own network"):
        connection._redirected("https://hub.example/x", location)
    with pytest.raises(NetworkError, match="http address"):
        connection._redirected("https://hub.example/x", "http://hub.example/x")
    assert connection._redirected("https://hub.example/x", "https://cdn.example/y") == "https://cdn.example/y"


def test_a_redirect_in_a_circle(hub: FakeHub, naps: Naps) -> None:
    hub.script("/api/", *[Answer(status=302, headers={"Location": "/api/models/org/tiny"})] * 30)
    assert "more than 5 times" in failure(NetworkError, naps).message


def test_a_full_disk_is_seen_before_the_download(hub: FakeHub, naps: Naps, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**9, 10**9, 1000))
    error = failure(DoesNotFit, naps)
    assert error.exit_code == 3
    assert "needs 300.1 kB more on disk, but 1.0 kB is free" in error.message
    assert not any("/resolve/" in s.path for s in hub.seen)


def test_a_disk_that_fills_keeps_the_partial_file(hub: FakeHub, naps: Naps) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (150_000, limits[1]))  # a write beyond it fails, as on a full disk
    try:
        assert failure(DoesNotFit, naps).exit_code == 3
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    hub.seen.clear()
    assert pulled(hub, naps) == WEIGHTS
    assert [s.headers["range"] for s in hub.bodies("model.safetensors")] == ["bytes=150000-"]


def test_a_cache_that_cannot_be_written(hub: FakeHub, naps: Naps) -> None:
    hub_cache_dir().parent.mkdir(parents=True)
    hub_cache_dir().write_text("a file where the folder should be")
    assert "cannot be written" in failure(NotFound, naps).message


def test_an_interrupt_keeps_what_came(hub: FakeHub, naps: Naps) -> None:
    def interrupt(done: int, total: int) -> None:
        if done > 100_000:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pull(NAME, patience=naps.patience(), on_progress=interrupt)
    kept = (repo_dir(NAME) / "blobs" / f"{DIGEST}.incomplete").stat().st_size
    assert 0 < kept < len(WEIGHTS)
    assert not list_models()
    hub.seen.clear()
    assert pulled(hub, naps) == WEIGHTS
    assert [s.headers["range"] for s in hub.bodies("model.safetensors")] == [f"bytes={kept}-"]


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_killed_process_leaves_a_beginning_and_no_lock(hub: FakeHub, naps: Naps, how: signal.Signals) -> None:
    hub.script(DIGEST, Answer(pause_after=200_000))
    code = f"from localinfer.hub.client import pull; pull({NAME!r})"
    child = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stderr=subprocess.DEVNULL)
    try:
        assert hub.paused.wait(30)
        partial = repo_dir(NAME) / "blobs" / f"{DIGEST}.incomplete"
        while not (partial.exists() and partial.stat().st_size > 0):
            time.sleep(0.01)
    finally:
        child.send_signal(how)
        child.wait(30)
    assert not list_models()
    hub.seen.clear()
    kept = partial.stat().st_size
    assert pulled(hub, naps) == WEIGHTS
    assert [s.headers["range"] for s in hub.bodies("model.safetensors")] == [f"bytes={kept}-"]


def test_two_processes_download_once(hub: FakeHub, naps: Naps) -> None:
    code = f"from localinfer.hub.client import pull; pull({NAME!r})"
    children = [subprocess.Popen([sys.executable, "-c", code], cwd=ROOT) for _ in range(2)]
    assert [child.wait(60) for child in children] == [0, 0]
    assert len(hub.bodies("model.safetensors")) == 1
    assert pulled(hub, naps) == WEIGHTS
