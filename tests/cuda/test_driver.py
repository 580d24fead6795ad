"""The driver is found, or one line says why not and another what to do; what it refuses has a name and a number."""

from pathlib import Path

import pytest

from tests.cuda import finder
from tests.cuda.finder import Library, Said

pytestmark = pytest.mark.xdist_group("cuda")

USE_CPU = "run on the processor with `--backend cpu`"


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Library:
    def made(definitions: str, folder: Path) -> Path:
        path = folder / "libcuda.so.1"
        finder.build_library(definitions, path)
        return path

    return made


def test_no_library(finder_program: Path) -> None:
    said = finder.ask(finder_program, "cards", environment={"LOCALINFER_LIBCUDA": "/nowhere/libcuda.so.1"})
    assert said.error == "Unusable"
    assert said.lines == (
        "there is no NVIDIA driver (/nowhere/libcuda.so.1: cannot open shared object file: No such file or directory)",
        f"install the driver of the card, or {USE_CPU}",
    )


def test_too_old(finder_program: Path, library: Library, tmp_path: Path) -> None:
    """Both versions are said."""
    said = finder.ask(finder_program, "cards", environment={"LOCALINFER_LIBCUDA": str(library("OLD_DRIVER", tmp_path))})
    assert said.lines == (
        "the NVIDIA driver is for CUDA 11.8, but 12.0 is needed",
        "install driver 525 or newer",
    )


def test_functions_that_are_not_there(finder_program: Path, library: Library, tmp_path: Path) -> None:
    path = library("PART_DRIVER", tmp_path)
    said = finder.ask(finder_program, "cards", environment={"LOCALINFER_LIBCUDA": str(path)})
    assert said.error == "Unusable"
    assert said.lines[0] == f"{path} has no function cuDeviceGetCount: the NVIDIA driver is too old"
    assert said.lines[1] == "install a newer driver"


@pytest.mark.parametrize(
    ("code", "text"), [(100, "no CUDA-capable device is detected"), (999, "unknown error"), (802, "")]
)
def test_it_does_not_start(code: int, text: str, finder_program: Path, stand_in: Path) -> None:
    said = on(stand_in, finder_program, "cards", LI_EMU_FAIL=f"cuInit:{code}")
    assert said.error == "Unusable"
    assert said.lines[0].startswith(f"the NVIDIA driver does not start: CUDA error {code} ({text}")
    assert said.lines[1] == f"see whether `nvidia-smi` finds the card, or {USE_CPU}"


def on(stand_in: Path, finder_program: Path, *arguments: object, **environment: str) -> Said:
    return finder.ask(finder_program, *arguments, environment={"LOCALINFER_LIBCUDA": str(stand_in), **environment})


def test_a_card_is_described(finder_program: Path, stand_in: Path) -> None:
    said = on(stand_in, finder_program, "cards", LI_EMU_SM="120", LI_EMU_MEMORY="25757220864")
    assert said.facts["version"] == "12090"
    words = said.facts["card"].split()
    facts = dict(zip(words[words.index("sm") :: 2], words[words.index("sm") + 1 :: 2], strict=True))
    assert facts["sm"] == "120"
    assert len(facts["uuid"]) == 32
    assert facts["bytes"] == "25757220864"
    assert facts["shared"] == str(99 << 10)
    assert facts["multiprocessors"] == "2"
    assert float(facts["gb_s"]) == pytest.approx(2 * 7.001 * 128 / 8, rel=1e-4)


def test_a_card_that_is_too_old_or_not_there(finder_program: Path, stand_in: Path) -> None:
    said = on(stand_in, finder_program, "card", 0, LI_EMU_SM="72")
    assert said.error == "Unusable"
    assert said.lines[0].endswith(" has compute capability 7.2, but 7.5 is needed")
    assert said.lines[1] == USE_CPU
    assert on(stand_in, finder_program, "card", 0, LI_EMU_SM="75").error == ""
    for number in (1, -1):
        said = on(stand_in, finder_program, "card", number)
        assert said.lines == (f"there is no card {number}: the driver knows 1", "choose one of 0 to 0")


def test_what_it_refuses_has_a_name_and_a_number(finder_program: Path, stand_in: Path) -> None:
    assert on(stand_in, finder_program, "check", 0).error == ""
    said = on(stand_in, finder_program, "check", 700)
    assert (said.error, said.lines) == ("other", ("trying: CUDA error 700 (an illegal memory access was encountered)",))
    said = on(stand_in, finder_program, "check", 12345)
    assert (said.error, said.lines) == ("other", ("trying: CUDA error 12345 (unknown)",))
    said = on(stand_in, finder_program, "check", 2)
    assert said.error == "Full"
    assert said.lines == ("no memory for trying: 1.0 MB (1000000 bytes) were asked for",)


def test_memory(finder_program: Path, stand_in: Path) -> None:
    room = {"LI_EMU_MEMORY": "50000000"}
    said = on(stand_in, finder_program, "allocate", 10_000_000, **room)
    assert said.facts["held"] == "10000000"
    assert int(said.facts["free"]) <= 40_000_000
    assert on(stand_in, finder_program, "allocate", 0, **room).facts["held"] == "0"
    said = on(stand_in, finder_program, "allocate", 60_000_000, **room)
    assert said.error == "Full"
    assert said.lines == ("no memory for the cache: 60.0 MB (60000000 bytes) were asked for",)


@pytest.mark.parametrize("fault", ["", "cuStreamCreate:2", "cuCtxSetCurrent:999"])
def test_the_context_is_given_back(fault: str, finder_program: Path, stand_in: Path) -> None:
    """Also when the card cannot be opened: a context holds hundreds of megabytes of it. 201: none is left."""
    said = on(stand_in, finder_program, "retained", **({"LI_EMU_FAIL": fault} if fault else {}))
    assert said.facts["released"] == "201"
    assert ("failed" in said.facts) == bool(fault)
