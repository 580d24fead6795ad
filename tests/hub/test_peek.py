"""Headers from the Hub: the same judgement as of the whole model, and hardly a byte of its weights."""

from pathlib import Path

import pytest

from localinfer.cost.fit import estimate
from localinfer.errors import Corrupt, NetworkError, NotFound, NotSupported, UsageError
from localinfer.graph.weights import Checkpoint
from localinfer.hub import peek as module
from localinfer.hub.peek import peek
from tests.hub.conftest import NAME, Naps
from tests.hub.fake_hub import Answer, FakeHub, sha256
from tests.tiny import make_checkpoint

WEIGHTS = "model.safetensors"


def put(hub: FakeHub, path: Path) -> str:
    """The files of a checkpoint as the repository; the digest under which its weights are asked for."""
    files = {file.name: file.read_bytes() for file in path.iterdir()}
    hub.add(NAME, files)
    return sha256(files[WEIGHTS]) if WEIGHTS in files else ""


def needs(path: Path) -> tuple[int, int]:
    """Bytes of weights and cache; the tokenizer, which is not fetched, is guessed at."""
    fit = estimate(path, free_bytes=1)
    return fit.weights_bytes, fit.kv_bytes


@pytest.mark.parametrize("shards", [1, 3])
def test_headers_are_judged_as_the_whole_model_is(hub: FakeHub, naps: Naps, tmp_path: Path, shards: int) -> None:
    whole = make_checkpoint(tmp_path / "m", shards=shards)
    put(hub, whole)
    folder = tmp_path / "peeked"
    folder.mkdir()
    found = peek(NAME, folder, patience=naps.patience())
    assert found.repo == NAME
    assert found.download_bytes >= sum(file.stat().st_size for file in whole.glob("*.safetensors"))
    assert needs(folder) == needs(whole)
    assert Checkpoint(folder).graph == Checkpoint(whole).graph
    # Holes take no room on the disk.
    assert all(file.stat().st_blocks * 512 <= 1 << 17 for file in folder.iterdir())


def test_a_long_header_takes_a_second_question(
    hub: FakeHub, naps: Naps, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "FIRST_READ", 64)
    whole = make_checkpoint(tmp_path / "m")
    put(hub, whole)
    (tmp_path / "p").mkdir()
    peek(NAME, tmp_path / "p", patience=naps.patience())
    assert needs(tmp_path / "p") == needs(whole)
    asked = [seen.headers["range"] for seen in hub.seen if seen.server == "cdn"]
    assert asked[0] == "bytes=0-63"
    assert len(asked) == 2


def test_a_server_that_ignores_ranges_is_left_after_the_header(hub: FakeHub, naps: Naps, tmp_path: Path) -> None:
    whole = make_checkpoint(tmp_path / "m")
    digest = put(hub, whole)
    hub.script(digest, Answer(ignore_range=True))
    (tmp_path / "p").mkdir()
    peek(NAME, tmp_path / "p", patience=naps.patience())
    assert needs(tmp_path / "p") == needs(whole)


@pytest.mark.parametrize("length", [0, 1, 1 << 40, (1 << 64) - 1])
def test_a_header_that_cannot_be(hub: FakeHub, naps: Naps, tmp_path: Path, length: int) -> None:
    whole = make_checkpoint(tmp_path / "m")
    (whole / WEIGHTS).write_bytes(length.to_bytes(8, "little") + b"x" * 1000)
    put(hub, whole)
    (tmp_path / "p").mkdir()
    with pytest.raises(Corrupt, match="its header says"):
        peek(NAME, tmp_path / "p", patience=naps.patience())


def test_what_cannot_be_judged(hub: FakeHub, naps: Naps, tmp_path: Path) -> None:
    (tmp_path / "p").mkdir()
    with pytest.raises(NotFound):
        peek("org/nobody", tmp_path / "p", patience=naps.patience())
    hub.add("org/pickled", {"config.json": b"{}", "pytorch_model.bin": b"\x80"})
    with pytest.raises(NotSupported, match="pickled"):
        peek("org/pickled", tmp_path / "p", patience=naps.patience())
    with pytest.raises(UsageError, match="is a path"):
        peek("./somewhere", tmp_path / "p", patience=naps.patience())


def test_a_cut_is_tried_again_and_then_told(hub: FakeHub, naps: Naps, tmp_path: Path) -> None:
    digest = put(hub, make_checkpoint(tmp_path / "m"))
    (tmp_path / "p").mkdir()
    hub.script(digest, *[Answer(cut_after=10)] * 5)
    with pytest.raises(NetworkError, match="cut"):
        peek(NAME, tmp_path / "p", patience=naps.patience())
    assert len(naps) == 2
