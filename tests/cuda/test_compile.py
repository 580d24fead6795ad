"""Kernels are compiled for the card that is there, once; what was kept is checked; what is missing is named."""

import hashlib
import os
import shutil
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cuda import finder
from tests.cuda.finder import Library, Said

pytestmark = pytest.mark.xdist_group("cuda")

REAL = finder.nvrtc_folder()
needs_nvrtc = pytest.mark.skipif(REAL is None, reason="not installed: nvidia-cuda-nvrtc-cu12")
CUDA_12 = 12090
HASH = 64
"""Hexadecimal digits, before what is kept."""
Compile = Callable[..., Said]


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Library:
    """A compiler that is none, each made once."""
    made: dict[str, Path] = {}

    def copy(definitions: str, folder: Path) -> Path:
        if definitions not in made:
            made[definitions] = tmp_path_factory.mktemp("nvrtc") / "libnvrtc.so"
            finder.build_library(definitions, made[definitions])
        version = definitions.split("=")[1][:2] if definitions.startswith("NVRTC") else "12"
        folder.mkdir(exist_ok=True)
        return Path(shutil.copy(made[definitions], folder / f"libnvrtc.so.{version}"))

    return copy


@pytest.fixture
def keep(tmp_path: Path) -> Path:
    return tmp_path / "deep" / "kernels"


@pytest.fixture
def image(tmp_path: Path) -> Path:
    return tmp_path / "image"


@pytest.fixture
def compiled(finder_program: Path, keep: Path, image: Path) -> Compile:
    """`compiled(86, folder, ...)`: what was said, with the image in `image`."""

    def run(
        sm: int, *folders: Path | None, where: object = keep, driver: int = CUDA_12, threads: int = 1, **env: str
    ) -> Said:
        return finder.ask(finder_program, "compile", threads, sm, where, driver, image, *folders, environment=env)

    return run


@pytest.mark.parametrize("size", [0, 3, 55, 56, 63, 64, 65, 119, 120, 1000, 100_000])
def test_sha256(size: int, finder_program: Path) -> None:
    data = bytes(i * 7 % 251 for i in range(size))
    assert finder.ask(finder_program, "hash", stdin=data).text.strip() == hashlib.sha256(data).hexdigest()


@needs_nvrtc
@pytest.mark.parametrize("sm", [75, 80, 86, 89, 90, 100, 120])
def test_a_cubin_for_exactly_this_card_once(sm: int, compiled: Compile, keep: Path, image: Path) -> None:
    first = compiled(sm, REAL)
    assert (first.facts["cached"], first.facts["ptx"], first.facts["note"]) == ("0", "0", "")
    assert first.facts["compiler"].startswith(f"{REAL}/libnvrtc.so.12 12.")
    cubin = image.read_bytes()
    assert sm_of(cubin) == sm
    assert b"twice" in cubin
    again = compiled(sm, REAL)
    assert again.facts == {**first.facts, "cached": "1"}
    assert image.read_bytes() == cubin
    assert [path.suffix for path in keep.iterdir()] == [".cubin"]


def sm_of(cubin: bytes) -> int:
    """Of a 64-bit ELF file for a GPU (machine 190); the flags hold it in another byte since ABI 8."""
    assert cubin[:5] == b"\x7fELF\x02"
    assert struct.unpack_from("<H", cubin, 18) == (190,)
    (flags,) = struct.unpack_from("<I", cubin, 48)
    return int(flags >> 8 & 255 if cubin[8] >= 8 else flags & 255)


@needs_nvrtc
def test_a_card_newer_than_the_compiler(compiled: Compile, image: Path) -> None:
    first = compiled(200, REAL)
    assert first.facts["ptx"] == "1"
    assert "does not know sm_200: the driver compiles the kernels from compute_12" in first.facts["note"]
    ptx = image.read_bytes()
    assert b".target sm_12" in ptx
    assert ptx.endswith(b"\0")  # as cuModuleLoadData wants it
    assert compiled(200, REAL).facts == {**first.facts, "cached": "1"}


@needs_nvrtc
def test_an_error_in_a_source(compiled: Compile, keep: Path) -> None:
    said = compiled(86, REAL, TEST_SOURCE='extern "C" __global__ void f() { y = 1; }\n' * 40)
    assert said.error == "Unusable"
    assert len(said.lines) == 2
    assert said.lines[0].startswith(
        'the kernels do not compile for sm_86: kernels.cuh(1): error: identifier "y" is undef'
    )
    assert len(said.lines[0]) < 500
    assert "12." in said.lines[1]
    assert not keep.exists()


@needs_nvrtc
def test_half_a_compiler(compiled: Compile, tmp_path: Path) -> None:
    """Without the library of builtins beside it, nothing compiles: the sources are not to blame."""
    assert REAL is not None
    shutil.copy(REAL / "libnvrtc.so.12", tmp_path)
    said = compiled(86, tmp_path)
    assert said.error == "Unusable"
    assert "failed to open libnvrtc-builtins.so.12" in said.lines[0]
    assert said.lines[1] == 'install it anew with `pip install --force-reinstall "localinfer[cuda]"`'


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[:-1],
        lambda data: data[:HASH],
        lambda data: b"",
        lambda data: data[:100] + bytes([data[100] ^ 1]) + data[101:],
        lambda data: b"0" * HASH + data[HASH:],
    ],
    ids=["cut", "hash alone", "empty", "one bit", "another hash"],
)
def test_damage_is_noticed(
    damage: Callable[[bytes], bytes], compiled: Compile, library: Library, keep: Path, image: Path, tmp_path: Path
) -> None:
    folder = library("NVRTC=12", tmp_path).parent
    compiled(80, folder)
    (kept,) = keep.iterdir()
    good, made = kept.read_bytes(), image.read_bytes()
    kept.write_bytes(damage(good))
    assert compiled(80, folder).facts["cached"] == "0"
    assert (kept.read_bytes(), image.read_bytes()) == (good, made)
    assert compiled(80, folder).facts["cached"] == "1"
    assert list(keep.iterdir()) == [kept]


def test_a_folder_that_cannot_be_written(compiled: Compile, library: Library, image: Path, tmp_path: Path) -> None:
    """It only means that nothing is kept, and is said."""
    folder = library("NVRTC=12", tmp_path).parent
    (tmp_path / "file").write_text("no folder")
    for where in (tmp_path / "file", tmp_path / "file" / "below", Path("/proc/none")):
        said = compiled(80, folder, where=where)
        assert said.facts["note"] == f"the compiled kernels cannot be kept in {where}"
        assert image.read_bytes().startswith(b"cubin made by 12")
    assert compiled(80, folder, where="").facts["note"] == ""


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_permission(compiled: Compile, library: Library, tmp_path: Path) -> None:
    where = tmp_path / "closed"
    where.mkdir(mode=0o500)
    assert "cannot be kept in" in compiled(80, library("NVRTC=12", tmp_path).parent, where=where).facts["note"]


def test_threads_keep_at_the_same_time(compiled: Compile, library: Library, keep: Path, tmp_path: Path) -> None:
    """None of them says that it could not, and nothing half is left."""
    folder = library("NVRTC=12; MORE=1000000", tmp_path).parent
    for _ in range(20):
        said = compiled(80, folder, threads=8)
        assert "cannot be kept" not in said.text
        (kept,) = keep.iterdir()
        data = kept.read_bytes()
        assert hashlib.sha256(data[HASH:]).hexdigest().encode() == data[:HASH]
        kept.unlink()


def test_what_is_kept_is_of_these_sources_and_flags(
    compiled: Compile, library: Library, keep: Path, tmp_path: Path
) -> None:
    twelve, thirteen = library("NVRTC=12", tmp_path / "a").parent, library("NVRTC=13", tmp_path / "b").parent
    compiled(80, twelve)
    assert compiled(90, twelve).facts["cached"] == "0"
    assert compiled(80, twelve, TEST_SOURCE="another").facts["cached"] == "0"
    assert compiled(80, thirteen, driver=13000).facts["cached"] == "0"
    assert len(list(keep.iterdir())) == 4
    assert compiled(80, twelve).facts["cached"] == "1"


def test_the_flags_are_those_of_the_numerics(compiled: Compile, library: Library, image: Path, tmp_path: Path) -> None:
    compiled(80, library("NVRTC=12", tmp_path).parent)
    flags = image.read_bytes().rstrip(b"\0").decode().splitlines()[1:]
    assert flags[0] == "--gpu-architecture=sm_80"
    exact = {"--std=c++17", "-default-device", "-fmad=false", "-prec-div=true", "-prec-sqrt=true", "-ftz=false"}
    assert set(flags[1:]) == exact


def test_the_nearest_architecture_below(compiled: Compile, library: Library, image: Path, tmp_path: Path) -> None:
    folder = library("NVRTC=12; ARCHS=60, 75, 80, 100", tmp_path).parent
    said = compiled(90, folder)
    assert (said.facts["ptx"], image.read_bytes().splitlines()[1]) == ("1", b"--gpu-architecture=compute_80")
    old = library("NVRTC=12; ARCHS=50, 60, 70", tmp_path / "old").parent
    said = compiled(90, old)
    assert said.error == "Unusable"
    assert said.lines == (f"{old}/libnvrtc.so.12 12.1 does not know sm_90", "install a newer NVRTC")


def test_no_compiler_names_all_that_was_tried(compiled: Compile, tmp_path: Path) -> None:
    said = compiled(86, tmp_path / "wheel", CUDA_PATH=str(tmp_path / "path"), CUDA_HOME=str(tmp_path / "home"))
    assert said.error == "Unusable"
    folders = (tmp_path / "wheel", tmp_path / "path" / "lib64", tmp_path / "home" / "lib64", None)
    tried = [
        str(folder / name) if folder else name for folder in folders for name in ("libnvrtc.so.12", "libnvrtc.so.13")
    ]
    assert said.lines == (
        f"NVIDIA's runtime compiler (NVRTC) is not there; tried {', '.join(tried)}",
        'install it with `pip install "localinfer[cuda]"`',
    )


def test_a_library_that_is_there_and_cannot_be_used(compiled: Compile, library: Library, tmp_path: Path) -> None:
    """Why is said: it is no library, or one of something else."""
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "libnvrtc.so.12").write_text("no library")
    library("PART_DRIVER", tmp_path / "other")
    said = compiled(86, broken, tmp_path / "other")
    assert f"{broken}/libnvrtc.so.12 (" in said.lines[0]
    assert "file too short" in said.lines[0] or "invalid ELF header" in said.lines[0]
    assert f"{tmp_path}/other/libnvrtc.so.12 (no NVRTC)" in said.lines[0]


def test_the_order_of_the_search(compiled: Compile, library: Library, tmp_path: Path) -> None:
    named, wheel, home = (library(f"NVRTC=12; ARCHS=80, {n}", tmp_path / f"{n}") for n in (81, 82, 83))
    (tmp_path / "cuda").mkdir()
    shutil.move(home.parent, tmp_path / "cuda" / "lib64")
    toolkit = {"CUDA_PATH": str(tmp_path / "cuda")}
    said = compiled(80, wheel.parent, LOCALINFER_NVRTC=str(named), **toolkit)
    assert said.facts["compiler"] == f"{named} 12.1"
    assert compiled(80, wheel.parent, **toolkit).facts["compiler"] == f"{wheel} 12.1"
    assert compiled(80, **toolkit).facts["compiler"] == f"{tmp_path}/cuda/lib64/libnvrtc.so.12 12.1"
    said = compiled(80, LD_LIBRARY_PATH=str(wheel.parent))
    assert said.facts["compiler"] == "libnvrtc.so.12 12.1"
    said = compiled(80, wheel.parent, LOCALINFER_NVRTC="/nowhere/libnvrtc.so")
    assert said.error == "Unusable"  # who names one wants that one
    assert "tried /nowhere/libnvrtc.so" in said.lines[0]


def test_cuda_13_needs_a_driver_of_13(compiled: Compile, library: Library, tmp_path: Path) -> None:
    newer, older = library("NVRTC=13", tmp_path / "a"), library("NVRTC=12", tmp_path / "b")
    assert compiled(80, newer.parent, driver=13000).facts["compiler"] == f"{newer} 13.1"
    said = compiled(80, newer.parent, driver=12090)
    assert f"{newer} (13.1: newer than the driver)" in said.lines[0]
    assert compiled(80, newer.parent, older.parent, driver=12090).facts["compiler"] == f"{older} 12.1"
