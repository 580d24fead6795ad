"""Each program is compiled once, when the first test asks for it."""

import functools
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from localinfer.engine import cuda, cuda_proof
from localinfer.paths import cuda_dir
from tests.cli.conftest import cli
from tests.cuda import build, finder
from tests.cuda.cards import Move
from tests.cuda.driver import Driver

__all__ = ["cli"]

DRIVER = os.environ.get("LOCALINFER_TEST_CARD")
"""The driver that is tested, for `make gpu-check`; None: the stand-in."""

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
def finder_program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The native code that finds the driver and the compiler, alone."""
    if shutil.which(build.COMPILER) is None:
        pytest.skip(f"not installed: {build.COMPILER}")
    return finder.build(tmp_path_factory.mktemp("finder"))


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


@pytest.fixture(scope="session")
def card_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The stand-in driver with the real kernels; or, for `make gpu-check`, the driver that is here."""
    if DRIVER is not None:
        return Path(DRIVER)
    if shutil.which(build.COMPILER) is None:
        pytest.skip(f"not installed: {build.COMPILER}")
    return build.stand_in(tmp_path_factory.mktemp("card"), build.NATIVE)


@pytest.fixture(scope="session")
def kept_kernels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where what NVIDIA's compiler made is kept: it takes seconds."""
    return tmp_path_factory.mktemp("kernels")


@pytest.fixture
def card(card_library: Path, isolated: Path, monkeypatch: pytest.MonkeyPatch) -> cuda.Card:
    """A card, as this process sees it."""
    for name in [name for name in os.environ if name.startswith("LI_EMU_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("LOCALINFER_LIBCUDA", str(card_library))
    return cuda.find_card()


@pytest.fixture
def card_move(card: cuda.Card, kept_kernels: Path) -> Callable[[bool], Move]:
    """`card_move(graphs)`: takes programs to the card."""
    return functools.partial(Move, kept_kernels)


@pytest.fixture
def move(card_move: Callable[[bool], Move]) -> Move:
    return card_move(True)


@pytest.fixture(scope="session")
def proved_home(card_library: Path, kept_kernels: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What is kept of a card that has passed its test: that takes seconds too."""
    home = tmp_path_factory.mktemp("proved")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LOCALINFER_LIBCUDA", str(card_library))
        patch.setenv("LOCALINFER_HOME", str(home))
        shutil.copytree(kept_kernels, cuda_dir())
        assert cuda_proof.proof_of(cuda.find_card()).passed
        return Path(shutil.copytree(cuda_dir(), tmp_path_factory.mktemp("proof") / "cuda"))


@pytest.fixture
def proved(card: cuda.Card, proved_home: Path) -> cuda.Card:
    """A card that has passed its test, as this home knows."""
    shutil.copytree(proved_home, cuda_dir())
    return card
