"""Ctrl-C at any time: exit code 130, what was written stays, nothing half-made, no traceback."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from safetensors.numpy import load_file, save_file

from localinfer.cli import progress
from tests.cli.conftest import Cli
from tests.tiny import SPECIALS, make_checkpoint

READY = "import sys; sys.stderr.write('ready\\n'); sys.stderr.flush(); from localinfer.cli.main import main; main()"
FOREVER = ["--temp", "0", "-n", "1000000", "--on-overflow", "shift"]


@pytest.fixture(scope="module")
def endless(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model that never ends its turn: the tokens that would are worth nothing."""
    path = make_checkpoint(tmp_path_factory.mktemp("models") / "endless", dtype="float32", tie_word_embeddings=False)
    weights = load_file(path / "model.safetensors")
    weights["lm_head.weight"][list(SPECIALS.values())] = 0
    save_file(weights, path / "model.safetensors")
    return path


@contextmanager
def started(*argv: str) -> Iterator[subprocess.Popen[bytes]]:
    """The program as a process of its own, killed at the end if it is still there."""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    process = subprocess.Popen(
        [sys.executable, "-c", READY, *argv],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment,
    )
    try:
        assert process.stderr is not None
        assert process.stderr.readline() == b"ready\n"
        yield process
    finally:
        process.kill()
        process.wait()
        for stream in (process.stdout, process.stderr):
            if stream is not None:
                stream.close()


def ended(process: subprocess.Popen[bytes]) -> tuple[int, bytes, str]:
    out, err = process.communicate(timeout=20)
    return process.returncode, out, err.decode()


@pytest.mark.parametrize("delay", [0.1, 0.2, 0.3, 0.45, 0.6, 0.8, 1.2])
def test_at_any_time(endless: Path, delay: float) -> None:
    with started("run", str(endless), "the sky", *FOREVER, "-q") as process:
        time.sleep(delay)
        process.send_signal(signal.SIGINT)
        code, _, err = ended(process)
    assert (code, "Traceback" in err) == (130, False), err


def test_while_it_writes_keeps_what_was_written(endless: Path) -> None:
    with started("run", str(endless), "the sky", *FOREVER, "--stats") as process:
        assert process.stdout is not None
        first = process.stdout.read(20)
        process.send_signal(signal.SIGINT)
        at = time.monotonic()
        code, rest, err = ended(process)
    assert code == 130, err
    assert time.monotonic() - at < 5
    assert (first + rest).endswith(b"\n")
    assert "Traceback" not in err
    assert "answer " in err  # the figures of --stats


def test_while_it_writes_json_stays_whole(endless: Path) -> None:
    with started("run", str(endless), "the sky", *FOREVER, "--json") as process:
        assert process.stderr is not None
        assert b" kernels" in process.stderr.readline()
        assert b"the context is full" in process.stderr.readline()  # it has written a context full by now
        process.send_signal(signal.SIGINT)
        code, out, _ = ended(process)
    said = json.loads(out)
    assert (code, said["finish_reason"]) == (130, "cancelled")
    assert said["completion_tokens"] == len(said["token_ids"]) > 100
    assert said["timings"]["decode_tok_s"] > 0


def test_twice_in_a_row(endless: Path) -> None:
    with started("run", str(endless), "the sky", *FOREVER, "-q") as process:
        assert process.stdout is not None
        process.stdout.read(1)
        process.send_signal(signal.SIGINT)
        process.send_signal(signal.SIGINT)
        code, _, err = ended(process)
    assert (code, "Traceback" in err) == (130, False), err


def test_while_it_waits_for_a_prompt(tiny: Path) -> None:
    read, write = os.pipe()
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    process = subprocess.Popen(
        [sys.executable, "-c", READY, "run", str(tiny)], stdin=read, stderr=subprocess.PIPE, env=environment
    )
    with process:
        assert process.stderr is not None
        process.stderr.readline()
        time.sleep(0.6)
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=20) == 130
        assert process.stderr.read() == b""
    os.close(read)
    os.close(write)


@dataclass
class Interrupting:
    """Ctrl-C comes at the `after`-th word about progress."""

    after: int = 1
    heard: int = 0


@pytest.fixture
def interrupting(monkeypatch: pytest.MonkeyPatch) -> Interrupting:
    """Of every progress, under whatever name a module has imported it."""
    found, call = Interrupting(), progress.Progress.__call__

    def hear(self: progress.Progress, phase: str, done: int, total: int) -> None:
        found.heard += 1
        if found.heard == found.after:
            raise KeyboardInterrupt
        call(self, phase, done, total)

    monkeypatch.setattr(progress.Progress, "__call__", hear)
    return found


def test_while_it_loads(cli: Cli, tiny: Path, interrupting: Interrupting) -> None:
    ran = cli("run", str(tiny), "hi", "--json")
    assert (ran.code, ran.out) == (130, "")
    assert interrupting.heard == 1


def test_while_it_quantizes_loses_nothing(cli: Cli, mine: str, interrupting: Interrupting) -> None:
    interrupting.after = 3
    ran = cli("quantize", mine, "--bits", "4", "--method", "rtn")
    assert (ran.code, ran.out) == (130, "")
    assert ran.err.endswith("interrupted; the same command goes on where it stopped\n")
    listed = {row["ref"]: row for row in json.loads(cli("list", "--json").out)}
    assert listed["me/tiny:INT4"]["unfinished"] == "stopped"
    assert cli("run", "me/tiny:INT4", "hi").code == 4

    again = cli("quantize", mine, "--bits", "4", "--method", "rtn", "--json")
    assert again.code == 0
    assert json.loads(again.out)["resumed_files"] > 0
    assert "unfinished" not in cli("list").out
