"""Servers as processes of their own, over tiny models, and over the starter."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic

import httpx2
import pytest
from safetensors.numpy import load_file, save_file

from tests.tiny import SPECIALS, make_checkpoint

ROOT = Path(__file__).resolve().parents[2]
PATIENCE_S = 60
"""Longest wait for anything on a loaded machine."""


@dataclass
class Server:
    """A server that runs. `log` is what it has said on standard error."""

    process: subprocess.Popen[str]
    url: str
    log: list[str] = field(default_factory=list)

    def get(self, path: str, **headers: str) -> httpx2.Response:
        return httpx2.get(self.url + path, headers=headers, timeout=PATIENCE_S)

    def post(self, path: str, body: object, **headers: str) -> httpx2.Response:
        return httpx2.post(self.url + path, json=body, headers=headers, timeout=PATIENCE_S)

    def post_bytes(self, path: str, body: bytes, **headers: str) -> httpx2.Response:
        return httpx2.post(self.url + path, content=body, headers=headers, timeout=PATIENCE_S)

    def metric(self, name: str) -> float:
        """The sum of a metric's samples; 0 where there is none."""
        rows = [line.rpartition(" ") for line in self.get("/metrics").text.splitlines()]
        return sum(float(value) for head, _, value in rows if head.partition("{")[0] == f"vllm:{name}")

    def is_idle(self) -> bool:
        """Whether nothing runs or waits, and no block of the cache is held."""
        gauges = ("num_requests_running", "num_requests_waiting", "kv_cache_usage_perc")
        return not any(self.metric(name) for name in gauges)

    def end(self, number: int = signal.SIGTERM) -> int:
        """Send a signal; the exit code."""
        self.process.send_signal(number)
        return self.process.wait(PATIENCE_S)


def until(condition: Callable[[], bool]) -> None:
    """Ask again and again, until it is so; fails after a minute."""
    end = monotonic() + PATIENCE_S
    pause = threading.Event()
    while not condition():
        assert monotonic() < end, "it has not come to be so"
        pause.wait(0.02)


@contextmanager
def serving(home: Path, *argv: str, **environment: str) -> Iterator[Server]:
    """`localinfer serve` on a free port, ended at the end if it still runs."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("LOCALINFER_", "HF_"))}
    own = {"HOME": str(home), "LOCALINFER_HOME": str(home / "localinfer"), "HF_HOME": str(home / "hf")}
    own |= {"HF_ENDPOINT": "http://127.0.0.1:1", "PYTHONPATH": str(ROOT), **environment}
    process = subprocess.Popen(
        [sys.executable, "-m", "localinfer", "serve", "--port", "0", "--no-remember", *argv],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=inherited | own,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    server = Server(process, "")
    listening = threading.Thread(target=lambda: server.log.extend(process.stderr or ()), daemon=True)
    listening.start()
    try:
        server.url = process.stdout.readline().strip()
        assert server.url.startswith("http://127.0.0.1:"), server.log
        yield server
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        listening.join()
        process.stdout.close()
        process.stderr.close()


@pytest.fixture(scope="package")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("serve")


@pytest.fixture(scope="package")
def tiny(folder: Path) -> Path:
    """A tiny model, fast, whose text means nothing."""
    return make_checkpoint(folder / "tiny")


@pytest.fixture(scope="package")
def endless(folder: Path) -> Path:
    """One that never ends its turn, with a context of more than it can write in a minute."""
    path = make_checkpoint(folder / "endless", dtype="float32", max_position_embeddings=1 << 18)
    weights = load_file(path / "model.safetensors")
    weights["lm_head.weight"][list(SPECIALS.values())] = 0
    save_file(weights, path / "model.safetensors")
    return path


@pytest.fixture(scope="package")
def server(folder: Path, tiny: Path) -> Iterator[Server]:
    """Serves the tiny model."""
    with serving(folder, str(tiny), "--draft", "off") as running:
        yield running


@pytest.fixture(scope="package")
def endless_server(folder: Path, endless: Path) -> Iterator[Server]:
    """Serves the endless model: two texts together, and two more may wait."""
    flags = ("-np", "2", "--queue", "2", "-c", "200000", "--kv-tokens", "400000", "--draft", "off")
    with serving(folder, str(endless), *flags) as running:
        yield running
