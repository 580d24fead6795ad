"""Every kernel gives the bits of the CPU's scalar kernels, in its place, without a race; a planted bug is seen."""

import functools
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cuda import build
from tests.cuda.mutations import Mutation, bundles, planted

pytestmark = pytest.mark.xdist_group("cuda")

PROGRAMS = ("rows", "heads", "linear", "attend")

Made = Callable[[str, str], Path]


@pytest.fixture(scope="session")
def reference(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ...]:
    if shutil.which(build.COMPILER) is None:
        pytest.skip(f"not installed: {build.COMPILER}")
    return build.reference(tmp_path_factory.mktemp("reference"))


@pytest.fixture(scope="session")
def made(reference: tuple[Path, ...], tmp_path_factory: pytest.TempPathFactory) -> Made:
    """`made("linear", "asan")`: the path of `sources/kernels/linear.cpp`, built that way."""
    folder = tmp_path_factory.mktemp("kernels")

    @functools.cache
    def program(source: str, kind: str) -> Path:
        return build.kernel_program(source, kind, folder / f"{source}-{kind}", reference)

    return program


def test_every_kernel_is_run() -> None:
    names = re.findall(r"X\((\w+)\)", (build.NATIVE / "cuda/kernels.def").read_text())
    text = "".join((build.SOURCES / f"kernels/{program}.cpp").read_text() for program in PROGRAMS)
    families = re.findall(r"KERNELS\((\w+), kInt", text)
    listed = {f"linear_{family}_{rows}" for family in families for rows in (1, 2, 4, 8, 16, 32)}
    assert len(families) == 4
    assert [name for name in names if name not in listed and not re.search(rf"\b{name}\b", text)] == []


@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize("kind", ["plain", "asan", "tsan"])
def test_kernels_give_the_bits_of_the_scalar_kernels(program: str, kind: str, made: Made) -> None:
    done = build.run(made(program, kind), *build.SCHEDULES)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    assert re.fullmatch(r"\d{3,} compared, 0 wrong\n", done.stdout)


def name_of(bundle: tuple[Mutation, ...]) -> str:
    return f"{bundle[0].program}: {', '.join(mutation.name for mutation in bundle)}"


@pytest.mark.parametrize("bundle", bundles(), ids=name_of)
def test_planted_bugs_are_seen(bundle: tuple[Mutation, ...], reference: tuple[Path, ...], tmp_path: Path) -> None:
    ((source, kind),) = {(mutation.program, mutation.kind) for mutation in bundle}
    kernels = planted(bundle, tmp_path / "native")
    program = build.kernel_program(source, kind, tmp_path / "mutant", reference, kernels, build.IN_A_HURRY)
    said = ""
    for schedule in build.SCHEDULES:
        done = build.run(program, schedule)
        assert done.returncode in (0, {"plain": 1, "asan": 1, "tsan": 66}[kind]), done.stderr
        said += done.stdout + done.stderr
        if all(mutation.seen in said for mutation in bundle):
            return
    pytest.fail(f"not seen: {[mutation.name for mutation in bundle if mutation.seen not in said]}\n{said}")
