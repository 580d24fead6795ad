"""The program through its real entry point: `cli(...)` in this process, `shell(...)` as a process of its own."""

import io
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import pytest

from localinfer.cli.main import main
from tests.tiny import make_checkpoint

ENTRY = [sys.executable, "-c", "from localinfer.cli.main import main; main()"]
"""What the console script does."""


@dataclass(frozen=True)
class Ran:
    code: int
    out: str
    err: str


class Cli(Protocol):
    def __call__(self, *argv: str, stdin: bytes = b"") -> Ran: ...


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, isolated: Path) -> None:
    """No setting of the developer's, and pages of one width."""
    for name in os.environ:
        if name.startswith("LOCALINFER_") and name != "LOCALINFER_HOME":
            monkeypatch.delenv(name)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:1")  # nobody answers there


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Cli:
    def run(*argv: str, stdin: bytes = b"") -> Ran:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin), encoding="utf-8"))
        capsys.readouterr()
        with pytest.raises(SystemExit) as stop:
            main(list(argv))
        out, err = capsys.readouterr()
        return Ran(int(stop.value.code or 0), out, err)

    return run


@pytest.fixture
def shell() -> Callable[..., subprocess.CompletedProcess[bytes]]:
    """`shell("localinfer run … | head -1")`: bash, with `localinfer` as the program under test."""

    def run(script: str, *, timeout: float = 60, **environment: str) -> subprocess.CompletedProcess[bytes]:
        define = f'localinfer() {{ "{sys.executable}" -c "from localinfer.cli.main import main; main()" "$@"; }}\n'
        return subprocess.run(
            ["bash", "-c", define + script],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), **environment},
            timeout=timeout,
            check=False,
        )

    return run


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that answers a thousand tokens a second. Its answers mean nothing."""
    return make_checkpoint(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture
def mine(tiny: Path, isolated: Path) -> str:
    """The same model as one made here, under the name it returns."""
    folder = isolated / "localinfer" / "models" / "me--tiny" / "BF16"
    folder.mkdir(parents=True)
    for file in tiny.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    return "me/tiny"
