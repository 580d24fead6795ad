"""clang has no warning about the native code that `bits` leaves out; `test_arm.py` builds the rest with it."""

import sys
import sysconfig
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.native.bits.building import NATIVE, missing, said

WARNINGS = ("-Wall", "-Wextra", "-Wshadow", "-Wconversion", "-Wno-sign-conversion", "-Werror")
SOURCES = sorted([*NATIVE.glob("bindings/*.cpp"), *NATIVE.glob("cuda/*.cpp")])


@pytest.mark.skipif(bool(missing("clang++")), reason="not installed: clang++")
def test_no_warning() -> None:
    assert SOURCES
    nanobind = said(sys.executable, "-m", "nanobind", "--include_dir").strip()
    headers = ("-isystem", sysconfig.get_path("include"), "-isystem", nanobind, "-I", str(NATIVE))
    with ThreadPoolExecutor(2) as pool:
        command = ("clang++", "-std=c++20", "-fsyntax-only", *WARNINGS, *headers)
        assert [*pool.map(lambda source: said(*command, str(source)), SOURCES)] == [""] * len(SOURCES)
