"""Each program is compiled once, when the first test asks for it."""

import functools
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cuda import build

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
