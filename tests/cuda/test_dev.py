"""dev.cuh compiles for every architecture without an NVIDIA header, where one of the two compilers is installed."""

import ctypes
import importlib.util
import shutil
import subprocess
from ctypes import byref, c_char_p, c_int, c_size_t, c_void_p
from pathlib import Path

import pytest

from tests.cuda.build import NATIVE, SOURCES

pytestmark = pytest.mark.xdist_group("cuda")

ARCHITECTURES = (75, 80, 86, 89, 90, 100, 120)
EXACT = ("-std=c++17", "-fmad=false", "-prec-div=true", "-prec-sqrt=true", "-ftz=false")


def nvrtc_path() -> Path | None:
    """That of the package nvidia-cuda-nvrtc-cu12, if it is installed."""
    for package in ("nvidia", "nvidia.cuda_nvrtc"):
        if importlib.util.find_spec(package) is None:
            return None
    spec = importlib.util.find_spec("nvidia.cuda_nvrtc")
    folders = list(spec.submodule_search_locations or []) if spec is not None else []
    return next((found for folder in folders for found in Path(folder).glob("lib/libnvrtc.so.*")), None)


def nvrtc_log(library: ctypes.CDLL, architecture: int) -> tuple[int, str]:
    """Compiles the smoke kernel; the code and what the compiler said."""
    program, size = c_void_p(), c_size_t()
    source, header = (SOURCES / "smoke.cuh").read_bytes(), (NATIVE / "cuda/dev.cuh").read_bytes()
    named = (c_char_p * 1)(header), (c_char_p * 1)(b"dev.cuh")
    assert library.nvrtcCreateProgram(byref(program), source, b"smoke.cu", c_int(1), *named) == 0
    options = [o.encode() for o in (f"--gpu-architecture=sm_{architecture}", *EXACT)]
    code = library.nvrtcCompileProgram(program, c_int(len(options)), (c_char_p * len(options))(*options))
    library.nvrtcGetProgramLogSize(program, byref(size))
    log = ctypes.create_string_buffer(size.value)
    library.nvrtcGetProgramLog(program, log)
    library.nvrtcDestroyProgram(byref(program))
    return int(code), log.value.decode()


@pytest.mark.skipif(nvrtc_path() is None, reason="not installed: nvidia-cuda-nvrtc-cu12")
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_nvrtc_compiles_all_of_it(architecture: int) -> None:
    assert nvrtc_log(ctypes.CDLL(str(nvrtc_path())), architecture) == (0, "")


@pytest.mark.skipif(shutil.which("nvcc") is None, reason="not installed: nvcc")
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_nvcc_compiles_all_of_it(architecture: int, tmp_path: Path) -> None:
    command = ["nvcc", *EXACT, "-cubin", f"-arch=sm_{architecture}", f"-I{NATIVE / 'cuda'}", "-Werror=all-warnings"]
    done = subprocess.run(
        [*command, "-Xptxas=-v", "-x", "cu", SOURCES / "smoke.cuh", "-o", tmp_path / "smoke.cubin"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "0 bytes spill stores, 0 bytes spill loads" in done.stderr
