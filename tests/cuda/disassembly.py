"""What NVIDIA's compilers make of the kernels, read back with NVIDIA's own tools; no card is needed."""

import ctypes
import importlib.util
import os
import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterator, Mapping
from ctypes import byref, c_char_p, c_int, c_size_t, c_void_p
from dataclasses import dataclass
from pathlib import Path

from tests.cuda.build import NATIVE

CUDA = NATIVE / "cuda"


def _found(pattern: str, path: Path) -> str:
    match = re.search(pattern, path.read_text(), re.DOTALL)
    assert match, f"{pattern} is not in {path.name}"
    return match[1]


KERNELS = tuple(re.findall(r"X\((\w+)\)", (CUDA / "kernels.def").read_text()))
FLAGS = tuple(re.findall(r'"([^"]+)"', _found(r"kFlags = \{(.*?)\};", CUDA / "compile.cpp")))
FILES = tuple(_found(r"set\(CUDA_KERNEL_FILES (.*?)\)", CUDA / "sources.cmake").split())
"""What `compile` gives to NVRTC, the first one to be compiled."""


@dataclass(frozen=True)
class Kernel:
    """One kernel as it is in a cubin."""

    registers: int
    stack: int
    local: int
    shared: int
    """Bytes, static."""
    opcodes: Mapping[str, int]
    """How often each is there, with its modifiers: `LDG.E.128.CONSTANT`."""

    def count(self, *starts: str) -> int:
        """Instructions whose name is one of `starts`, or goes on after it with a dot."""
        return sum(n for name, n in self.opcodes.items() for start in starts if f"{name}.".startswith(f"{start}."))

    @property
    def wide_loads(self) -> int:
        """Of 16 bytes, from global memory."""
        return sum(n for name, n in self.opcodes.items() if name.startswith("LDG.") and ".128" in name)


@dataclass(frozen=True)
class Built:
    """What came out of one compilation."""

    ptx: str
    kernels: Mapping[str, Kernel]


def tool(name: str) -> Path | None:
    """`cuobjdump` or `nvdisasm`: of the package, or on the path."""
    spec = importlib.util.find_spec("nvidia")
    folders = list(spec.submodule_search_locations or []) if spec is not None else []
    packaged = (found for folder in folders for found in Path(folder).glob(f"cu*/bin/{name}"))
    on_path = shutil.which(name)
    return next(packaged, Path(on_path) if on_path else None)


def nvcc() -> Path | None:
    """On the path, or below `CUDA_HOME`."""
    found = shutil.which("nvcc") or shutil.which("nvcc", path=str(Path(os.environ.get("CUDA_HOME") or ".") / "bin"))
    return Path(found) if found else None


class Nvrtc:
    """The runtime compiler, used as native/cuda/compile.cpp uses it."""

    def __init__(self, path: Path) -> None:
        self._library = ctypes.CDLL(str(path))

    def compiled(self, target: str, flags: tuple[str, ...] = FLAGS) -> tuple[bytes, str]:
        """The cubin (empty for a virtual target) and the PTX; what the compiler says is an error, even a warning."""
        texts, names = [(CUDA / file).read_bytes() for file in FILES], [file.encode() for file in FILES]
        program, headers = c_void_p(), len(FILES) - 1
        array, options = c_char_p * headers, [f"--gpu-architecture={target}".encode(), *(f.encode() for f in flags)]
        done = self._library.nvrtcCreateProgram(
            byref(program), texts[0], names[0], c_int(headers), array(*texts[1:]), array(*names[1:])
        )
        assert done == 0
        try:
            code = self._library.nvrtcCompileProgram(program, c_int(len(options)), (c_char_p * len(options))(*options))
            log = self._text(program, "nvrtcGetProgramLog").rstrip(b"\0").decode()
            assert (code, log) == (0, ""), f"for {target}: {log[:2000]}"
            cubin = self._text(program, "nvrtcGetCUBIN") if target.startswith("sm_") else b""
            return cubin, self._text(program, "nvrtcGetPTX").rstrip(b"\0").decode()
        finally:
            self._library.nvrtcDestroyProgram(byref(program))

    def _text(self, program: c_void_p, getter: str) -> bytes:
        size = c_size_t()
        assert self._library[f"{getter}Size"](program, byref(size)) == 0
        text = ctypes.create_string_buffer(size.value)
        assert self._library[getter](program, text) == 0
        return text.raw


def built_by_nvcc(path: Path, target: str, cubin: Path) -> str:
    """What the compiler says of its work. Host flags that NVRTC alone has are left out."""
    flags = [flag.replace("--std", "-std") for flag in FLAGS if flag != "-default-device"]
    command = [path, *flags, "-Werror=all-warnings", "-Xptxas=-v", "-cubin", f"-arch={target}", "-x", "cu"]
    done = subprocess.run(
        [*command, CUDA / "kernels.cuh", "-o", cubin], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stderr


def read(cubin: Path) -> dict[str, Kernel]:
    """The kernels of a cubin."""
    opcodes = dict(_opcodes(_run("nvdisasm", "-c", cubin)))
    usage = _run("cuobjdump", "--dump-resource-usage", cubin)
    kernels = {}
    for name, line in re.findall(r"^ *Function (\w+):\n(.*)$", usage, re.MULTILINE):
        fact = {key: int(value) for key, value in re.findall(r"(\w+):(\d+)", line)}
        kernels[name] = Kernel(fact["REG"], fact["STACK"], fact["LOCAL"], fact["SHARED"], opcodes[name])
    return kernels


def _run(name: str, *arguments: str | Path) -> str:
    path = tool(name)
    assert path is not None
    return subprocess.run([path, *arguments], capture_output=True, text=True, timeout=60, check=True).stdout


def _opcodes(listing: str) -> Iterator[tuple[str, Counter[str]]]:
    """Of each kernel; an instruction is `/*0370*/ @!P3 LDG.E.128.CONSTANT R12, [R10.64] ;`."""
    parts = re.split(r"^\s*\.text\.(\w+):\s*$", listing, flags=re.MULTILINE)
    for name, body in zip(parts[1::2], parts[2::2], strict=True):
        yield name, Counter(re.findall(r"^\s*/\*[0-9a-f]{4,}\*/\s+(?:@\S+\s+)?([A-Z][\w.]*)", body, re.MULTILINE))
