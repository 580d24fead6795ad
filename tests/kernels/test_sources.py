"""Rules of the kernel folders that no compiler checks: what they include, what they are built with."""

import re
from pathlib import Path

import pytest

KERNELS = Path(__file__).parents[2] / "native" / "kernels"
STANDARD = {"<immintrin.h>", "<arm_neon.h>", "<math.h>", "<stddef.h>", "<stdint.h>"}
ALLOWED = STANDARD | {'"../table.h"', '"kernels.h"', '"math.h"', '"unpack.h"'}
BASE = {
    "avxvnni": {'"../avx2/kernels.h"', '"../avx2/math.h"', '"dot.h"'},
    "avxvnni_evex": {f'"../avxvnni/{name}.cpp"' for name in ("attention", "fill", "linear_int")},
    "neon_i8mm": {'"../neon/kernels.h"', '"../neon/unpack.h"'},
}
"""Headers of the folder whose table this one builds on: declarations, and functions that each file has for itself."""
ISA_FILES = sorted(
    p for folder in KERNELS.iterdir() if folder.is_dir() and folder.name != "scalar" for p in folder.iterdir()
)


@pytest.mark.parametrize("path", ISA_FILES, ids=lambda p: f"{p.parent.name}/{p.name}")
def test_isa_folders_share_no_inline_code(path: Path) -> None:
    """A shared inline function would be compiled once per folder and kept once for all: an illegal instruction on an
    older processor. So a folder includes nothing but its own headers or its base's; these hold static functions."""
    text = path.read_text(encoding="utf-8")
    included = set(re.findall(r"#include (\S+)", text))
    assert included <= ALLOWED | BASE.get(path.parent.name, set())
    if path.suffix == ".h":
        assert "template" not in text
        assert not re.findall(r"^(?!static )\w.*\) \{", text, re.MULTILINE)


@pytest.mark.parametrize("path", ISA_FILES, ids=lambda p: f"{p.parent.name}/{p.name}")
def test_kernels_own_nothing(path: Path) -> None:
    """No allocation, no exceptions, no threads, no state that outlives a call."""
    code = re.sub(r"//.*", "", path.read_text(encoding="utf-8"))
    assert not re.findall(r"\b(?:new|delete|malloc|calloc|free|throw|try|thread_local|mutex)\b|std::", code)
    for line in re.findall(r"^\s*static [^(){}]*[;=]", code, re.MULTILINE):
        assert re.search(r"\bconst(?:expr)?\b", line), line.strip()


def test_flags_keep_the_arithmetic() -> None:
    flags = re.sub(r"#.*", "", (KERNELS / "sources.cmake").read_text(encoding="utf-8"))
    assert "-ffp-contract=off" in flags
    assert not re.search(r"-ffast-math|-Ofast|-march=native|-funsafe|-fassociative|-freciprocal|-ffinite", flags)


def test_every_source_is_listed() -> None:
    listed = (KERNELS / "sources.cmake").read_text(encoding="utf-8")
    for path in KERNELS.rglob("*.cpp"):
        assert f"/{path.relative_to(KERNELS)}" in listed
