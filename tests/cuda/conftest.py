"""Each program is compiled once, when the first test asks for it."""

import functools
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cuda import build
from tests.cuda.driver import Driver

Program = Callable[[str, str], Path]


@pytest.fixture(scope="session")
def program(tmp_path_factory: pytest.TempPathFactory) -> Program:
    """`program("bugs", "asan")`: the path of `sources/bugs.cpp`, built that way."""
    if shutil.which(build.COMPILER) is None:
        pytest.skip(f"not installed: {build.COMPILER}")
    folder = tmp_path_factory.mktemp("emulator")

    @functools.cache
    def made(source: str, kind: str) -> Path:
        return build.compiled(source, kind, folder)

    return made


@pytest.fixture(scope="session")
def stand_in(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if shutil.which(build.COMPILER) is None:
        pytest.skip(f"not installed: {build.COMPILER}")
    return build.stand_in(tmp_path_factory.mktemp("stand-in"))


@pytest.fixture
def driver(stand_in: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Driver:
    """A driver as it is when a process begins: a copy of the library has memory of its own."""
    for name in ("SM", "MEMORY", "SCHEDULE", "LATE", "FAIL"):
        monkeypatch.delenv(f"LI_EMU_{name}", raising=False)
    return Driver(Path(shutil.copy(stand_in, tmp_path)))
