"""Compiles what the tests of this room run: kernels for the host, under the emulator, plain or under a sanitizer."""

import subprocess
from collections.abc import Mapping
from pathlib import Path

NATIVE = Path(__file__).parents[2] / "native"
SOURCES = Path(__file__).parent / "sources"
COMPILER = "g++"
FLAGS = (
    "-std=c++20",
    "-Wall",
    "-Wextra",
    "-Werror",
    "-Wno-unknown-pragmas",
    "-ffp-contract=off",
    "-fno-strict-aliasing",
    f"-I{NATIVE}",
)
HOST = (*FLAGS, "-DLI_EMULATE", "-O1", "-g")
KINDS: Mapping[str, tuple[str, ...]] = {
    "plain": (),
    "asan": ("-fsanitize=address,undefined", "-fno-sanitize-recover=all"),
    "tsan": ("-fsanitize=thread",),
    "ucontext": ("-DLI_EMU_UCONTEXT",),
}
IN_A_HURRY = ("-O0", "-g0", "-w", "-DLI_FEW_SHAPES")
SCHEDULES = (0, 1, 2, 7)
"""Forward, reverse, and two seeds."""


def compiled(source: str, kind: str, folder: Path) -> Path:
    """The program made of `sources/<source>.cpp`."""
    program = folder / f"{source}-{kind}"
    subprocess.run([COMPILER, *HOST, *KINDS[kind], f"{SOURCES / source}.cpp", "-o", program], check=True)
    return program


def reference(folder: Path) -> tuple[Path, ...]:
    """The objects of what kernels are compared with: the CPU's scalar kernels, and how weights are packed for both."""
    scalar = sorted((NATIVE / "kernels/scalar").glob("*.cpp"))
    core = [NATIVE / f"core/{name}.cpp" for name in ("pack", "weight", "memory", "pool", "error")]
    sources = [*scalar, *core, NATIVE / "cuda/repack.cpp"]
    subprocess.run([COMPILER, *FLAGS, "-O2", "-c", *sources], cwd=folder, check=True)
    return tuple(folder / f"{source.stem}.o" for source in sources)


def kernel_program(
    source: str,
    kind: str,
    program: Path,
    objects: tuple[Path, ...],
    kernels: Path = NATIVE,
    options: tuple[str, ...] = (),
) -> Path:
    """The program made of `sources/kernels/<source>.cpp`, with the kernels of `kernels`/cuda."""
    flags = (f"-I{kernels}", *FLAGS, "-DLI_EMULATE", "-O1", "-g1", *KINDS[kind], *options)
    subprocess.run([COMPILER, *flags, SOURCES / f"kernels/{source}.cpp", *objects, "-o", program], check=True)
    return program


def stand_in(folder: Path, kernels: Path = SOURCES) -> Path:
    """The stand-in libcuda with the kernels of `kernels`/cuda."""
    library = folder / "libcuda.so.1"
    options = ("-O2", "-shared", "-fPIC", "-fvisibility=hidden", f"-I{kernels}")
    subprocess.run([COMPILER, *options, *FLAGS, NATIVE / "emu/stand_in.cpp", "-o", library], check=True)
    return library


def run(program: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    """A hang is a failure too: no program here needs more than seconds."""
    command = [str(program), *(str(a) for a in arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
