"""Quantizing that is killed, interrupted, out of disk, or done twice at once: nothing half-made, nothing lost."""

import fcntl
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from localinfer.errors import Changed, DoesNotFit, NotFound, UsageError
from localinfer.formats.safetensors import SafetensorsFile
from localinfer.quantize import quantize_checkpoint
from localinfer.quantize.journal import JOURNAL, locked
from tests.quantize.trees import read_tensor, replace_tensor, tree
from tests.tiny import make_checkpoint

CHILD = """
import sys
from pathlib import Path
from localinfer.errors import LocalInferError
from localinfer.quantize import quantize_checkpoint
print("ready", flush=True)
sys.stdin.readline()
try:
    quantize_checkpoint(Path(sys.argv[1]), Path(sys.argv[2]), bits=4, threads=1)
except LocalInferError as error:
    print(error.message, flush=True)
    sys.exit(error.exit_code)
"""
LAYERS = 24


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("source") / "m", "llama", num_hidden_layers=LAYERS)


@pytest.fixture(scope="module")
def whole(source: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What an undisturbed run writes."""
    dest = tmp_path_factory.mktemp("whole") / "q"
    quantize_checkpoint(source, dest, bits=4)
    return tree(dest)


def start(source: Path, dest: Path) -> subprocess.Popen[str]:
    """A process that is about to quantize; a line on its stdin lets it go."""
    root = Path(__file__).parents[2]
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, source, dest], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=root
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "ready\n"
    return child


def go(child: subprocess.Popen[str]) -> None:
    assert child.stdin is not None
    child.stdin.write("\n")
    child.stdin.flush()


def end(child: subprocess.Popen[str]) -> tuple[int, str]:
    out, _ = child.communicate(timeout=120)
    return child.returncode, out


def shards(partial: Path) -> list[Path]:
    return sorted(partial.glob("model-*.safetensors"))


def test_killed_again_and_again(source: Path, whole: dict[str, bytes], tmp_path: Path) -> None:
    """kill -9 at random times; each run goes on, and in the end every byte is as if nothing had happened."""
    dest, partial = tmp_path / "q", tmp_path / "q.partial"
    rng = random.Random(4)
    counts = [0]
    for _ in range(5):
        child = start(source, dest)
        go(child)
        wanted = min(LAYERS, counts[-1] + rng.randrange(1, 6))
        until = time.monotonic() + 60
        while len(shards(partial)) < wanted and child.poll() is None and time.monotonic() < until:
            time.sleep(rng.random() * 0.004)
        child.kill()
        end(child)
        assert not dest.exists()
        assert not (partial / "config.json").exists()
        counts.append(len(shards(partial)))
        for shard in shards(partial):
            SafetensorsFile(shard)  # whole, each of them
    assert counts == sorted(counts)
    assert counts[-1] > 0
    report = quantize_checkpoint(source, dest, bits=4)
    assert report.resumed_files > 0
    assert tree(dest) == whole
    assert not partial.exists()


def test_a_torn_journal_and_damaged_parts_are_made_again(source: Path, whole: dict[str, bytes], tmp_path: Path) -> None:
    dest, partial = tmp_path / "q", tmp_path / "q.partial"
    stop_after(source, dest, files=6)
    done = shards(partial)
    data = bytearray(done[1].read_bytes())
    data[-1] ^= 1
    done[1].write_bytes(data)  # same size, one bit
    done[2].unlink()
    (partial / "model-00009-of-00099.safetensors.tmp").write_bytes(b"half")
    with (partial / JOURNAL).open("ab") as journal:
        journal.write(b'{"file": "model-000')  # a kill tore the last line
    report = quantize_checkpoint(source, dest, bits=4)
    assert report.resumed_files == len(done) - 2
    assert tree(dest) == whole


class StopError(Exception):
    pass


def stop_after(source: Path, dest: Path, files: int, error: type[BaseException] = StopError) -> None:
    partial = dest.with_name(dest.name + ".partial")

    def watch(done: int, total: int) -> None:
        if len(shards(partial)) >= files:
            raise error

    with pytest.raises(error):
        quantize_checkpoint(source, dest, bits=4, on_progress=watch)


def test_interrupted(source: Path, whole: dict[str, bytes], tmp_path: Path) -> None:
    stop_after(source, tmp_path / "q", 5, KeyboardInterrupt)
    assert not (tmp_path / "q").exists()
    assert quantize_checkpoint(source, tmp_path / "q", bits=4).resumed_files >= 5
    assert tree(tmp_path / "q") == whole


def test_ctrl_c_in_a_real_process(source: Path, tmp_path: Path) -> None:
    child = start(source, tmp_path / "q")
    go(child)
    until = time.monotonic() + 60
    while len(shards(tmp_path / "q.partial")) < 2 and time.monotonic() < until:
        time.sleep(0.002)
    child.send_signal(signal.SIGINT)
    code, _ = end(child)
    assert code in (-signal.SIGINT, 130, 1, 0)
    assert (tmp_path / "q").exists() == (code == 0)


def test_other_settings_start_afresh(source: Path, tmp_path: Path) -> None:
    dest, said = tmp_path / "q", list[str]()
    stop_after(source, dest, files=4)
    assert quantize_checkpoint(source, dest, bits=3, say=said.append).resumed_files == 0
    assert len(said) == 1
    assert said[0].startswith("the stopped run had other settings (bits was 4, is 3")
    stop_after(source, tmp_path / "r", files=4)
    assert quantize_checkpoint(source, tmp_path / "r", bits=4, group=64, say=said.append).resumed_files == 0
    assert "group was 32, is 64" in said[1]


def test_other_settings_are_refused_if_asked(source: Path, whole: dict[str, bytes], tmp_path: Path) -> None:
    dest = tmp_path / "q"
    stop_after(source, dest, files=4)
    kept = tree(tmp_path / "q.partial")
    with pytest.raises(UsageError, match=r"had other settings .*bits was 4, is 3"):
        quantize_checkpoint(source, dest, bits=3, earlier="resume")
    assert tree(tmp_path / "q.partial") == kept
    assert quantize_checkpoint(source, dest, bits=4, earlier="resume").resumed_files >= 4
    assert tree(dest) == whole


def test_begun_anew(source: Path, whole: dict[str, bytes], tmp_path: Path) -> None:
    stop_after(source, tmp_path / "q", files=4)
    assert quantize_checkpoint(source, tmp_path / "q", bits=4, earlier="fresh").resumed_files == 0
    assert tree(tmp_path / "q") == whole


@pytest.mark.parametrize("file", ["model.safetensors", "config.json", "tokenizer.json"])
def test_a_source_that_has_changed_is_refused(source: Path, whole: dict[str, bytes], tmp_path: Path, file: str) -> None:
    """By name, with nothing lost: once the old file is back, the run goes on."""
    mine = tmp_path / "m"
    shutil.copytree(source, mine)
    stop_after(mine, tmp_path / "q", files=4)
    kept = tree(tmp_path / "q.partial")
    data = bytearray((mine / file).read_bytes())
    if file == "model.safetensors":
        data[-1] ^= 1
    else:
        data += b"\n"
    (mine / file).write_bytes(data)
    with pytest.raises(Changed, match=f"changed since the stopped run in .*q.partial was begun: {file}$") as caught:
        quantize_checkpoint(mine, tmp_path / "q", bits=4)
    assert "--fresh" in str(caught.value.hint)
    assert tree(tmp_path / "q.partial") == kept
    shutil.copy(source / file, mine / file)
    assert quantize_checkpoint(mine, tmp_path / "q", bits=4).resumed_files >= 4
    assert tree(tmp_path / "q") == whole


def test_begun_anew_with_the_changed_source(source: Path, tmp_path: Path) -> None:
    mine = tmp_path / "m"
    shutil.copytree(source, mine)
    stop_after(mine, tmp_path / "q", files=4)
    replace_tensor(mine, "model.norm.weight", read_tensor(mine, "model.norm.weight") + 1)
    quantize_checkpoint(mine, tmp_path / "q", bits=4, earlier="fresh")
    quantize_checkpoint(mine, tmp_path / "r", bits=4)
    assert tree(tmp_path / "q") == tree(tmp_path / "r")


def test_a_source_that_changes_meanwhile(source: Path, tmp_path: Path) -> None:
    """What was read after the change is not kept."""
    mine = tmp_path / "m"
    shutil.copytree(source, mine)
    norm, seen = read_tensor(mine, "model.norm.weight"), list[int]()

    def change(done: int, total: int) -> None:
        if not seen and len(shards(tmp_path / "q.partial")) == 3:
            seen.append(done)
            replace_tensor(mine, "model.norm.weight", norm + 1)

    with pytest.raises(Changed, match=r"model\.safetensors changed while it was being quantized"):
        quantize_checkpoint(mine, tmp_path / "q", bits=4, on_progress=change)
    with (tmp_path / "q.partial" / JOURNAL).open() as journal:
        assert len(list(journal)) == 1 + 3
    assert not (tmp_path / "q").exists()


def test_two_processes(source: Path, whole: dict[str, bytes], tmp_path: Path) -> None:
    """Both start together: one makes the model, the other says that it is being made, or that it is there."""
    children = [start(source, tmp_path / "q") for _ in range(2)]
    for child in children:
        go(child)
    ends = sorted(end(child) for child in children)
    assert [code for code, _ in ends] == [0, UsageError.exit_code]
    assert "is being quantized by another process" in ends[1][1] or "is there already" in ends[1][1]
    assert tree(tmp_path / "q") == whole
    assert [path.name for path in tmp_path.iterdir()] == ["q"]


def test_the_second_is_told_at_once(source: Path, tmp_path: Path) -> None:
    held, leave = threading.Event(), threading.Event()

    def hold() -> None:
        with locked(tmp_path / "q.partial"):
            held.set()
            leave.wait(60)

    other = threading.Thread(target=hold)
    other.start()
    assert held.wait(60)
    try:
        with pytest.raises(UsageError, match=r"^q is being quantized by another process") as caught:
            quantize_checkpoint(source, tmp_path / "q", bits=4)
    finally:
        leave.set()
        other.join()
    assert caught.value.hint


def test_the_lock_is_on_what_is_there(tmp_path: Path) -> None:
    """A folder that is renamed while we wait for it does not count: what we then hold is a finished model."""
    with locked(tmp_path / "a.partial"):
        (tmp_path / "a.partial").rename(tmp_path / "a")
        with locked(tmp_path / "a.partial"):
            assert (tmp_path / "a.partial").is_dir()
    handle = os.open(tmp_path / "a.partial", os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)  # given back
    os.close(handle)


def test_a_planted_link_is_not_followed(source: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "q.partial").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(NotFound, match="cannot be written"):
        quantize_checkpoint(source, tmp_path / "q", bits=4)
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_disk_full_keeps_what_is_done(source: Path, whole: dict[str, bytes], tmp_path: Path) -> None:
    """A limit on the size of files stands for the full disk: small shards pass, the embedding (first) does not fit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    stop_after(source, tmp_path / "q", files=3)
    before = len(shards(tmp_path / "q.partial"))
    resource.setrlimit(resource.RLIMIT_FSIZE, (15_000, hard))
    try:
        with pytest.raises(DoesNotFit, match="cannot be written") as caught:
            quantize_checkpoint(source, tmp_path / "q", bits=4)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "run the same command again" in str(caught.value.hint)
    assert len(shards(tmp_path / "q.partial")) >= before
    assert quantize_checkpoint(source, tmp_path / "q", bits=4).resumed_files >= before
    assert tree(tmp_path / "q") == whole


def test_too_little_disk_is_seen_before_the_work(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Usage:
        total, used, free = 10, 9, 1000

    monkeypatch.setattr("localinfer.quantize.checkpoint.shutil.disk_usage", lambda path: Usage)
    with pytest.raises(DoesNotFit, match=r"needs .* kB more, but 1\.0 kB is free"):
        quantize_checkpoint(source, tmp_path / "q", bits=4)
    assert not shards(tmp_path / "q.partial")


def test_a_source_that_shrinks_meanwhile(tmp_path: Path) -> None:
    mine = make_checkpoint(tmp_path / "m", "llama", num_hidden_layers=LAYERS)
    file = mine / "model.safetensors"

    def cut(done: int, total: int) -> None:
        if len(shards(tmp_path / "q.partial")) == 3:
            with file.open("r+b") as handle:
                handle.truncate(1000)

    with pytest.raises(Changed, match="changed while it was"):
        quantize_checkpoint(mine, tmp_path / "q", bits=4, on_progress=cut)
    assert len(shards(tmp_path / "q.partial")) >= 3


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_not_allowed_to_write(source: Path, tmp_path: Path) -> None:
    (tmp_path / "closed").mkdir(mode=0o500)
    with pytest.raises(NotFound, match="cannot be written"):
        quantize_checkpoint(source, tmp_path / "closed" / "q", bits=4)
