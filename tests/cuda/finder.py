"""The native code that finds the driver and the compiler, without Python around it, and libraries that are wrong."""

import importlib.util
import os
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.cuda.build import COMPILER, FLAGS, NATIVE, SOURCES

PARTS = ("cuda/driver.cpp", "cuda/compile.cpp", "cuda/sha256.cpp", "core/error.cpp")
Library = Callable[[str, Path], Path]
"""`library("NVRTC=13", folder)`: the path of `sources/libraries.cpp`, built that way, in a folder."""
OURS = ("LOCALINFER_LIBCUDA", "LOCALINFER_NVRTC", "CUDA_PATH", "CUDA_HOME", "LD_LIBRARY_PATH", "TEST_SOURCE")

NOTHING: Mapping[str, str] = {}


@dataclass(frozen=True)
class Said:
    """What the program printed: facts by key (the last, if many), or an error's kind and its lines."""

    facts: Mapping[str, str]
    error: str
    lines: tuple[str, ...]
    text: str


def build(folder: Path) -> Path:
    program = folder / "finder"
    parts = (SOURCES / "finder.cpp", *(NATIVE / part for part in PARTS))
    subprocess.run([COMPILER, *FLAGS, "-O1", "-pthread", *parts, "-ldl", "-o", program], check=True)
    return program


def build_library(definitions: str, path: Path) -> None:
    options = (*FLAGS, "-O1", "-shared", "-fPIC", *(f"-D{one}" for one in definitions.split("; ")))
    subprocess.run([COMPILER, *options, SOURCES / "libraries.cpp", "-o", path], check=True)


def ask(program: Path, *arguments: object, environment: Mapping[str, str] = NOTHING, stdin: bytes = b"") -> Said:
    """Runs it with nothing of CUDA in its environment but what is given."""
    clean = {name: value for name, value in os.environ.items() if name not in OURS and not name.startswith("LI_EMU_")}
    command = [str(program), *(str(argument) for argument in arguments)]
    ran = subprocess.run(
        command, input=stdin, capture_output=True, env={**clean, **environment}, timeout=120, check=False
    )
    text = ran.stdout.decode()
    assert ran.returncode in (0, 1), (ran.returncode, text, ran.stderr)
    assert not ran.stderr
    facts, _, error = text.partition("error ") if ran.returncode == 1 else (text, "", "")
    pairs = [line.partition(" ") for line in facts.splitlines()]
    kind, *lines = error.splitlines() or [""]
    return Said({key: value for key, _, value in pairs}, kind, tuple(lines), text)


def nvrtc_folder() -> Path | None:
    """That of the package nvidia-cuda-nvrtc-cu12, if it is installed."""
    if importlib.util.find_spec("nvidia") is None:
        return None
    spec = importlib.util.find_spec("nvidia.cuda_nvrtc")
    places = list(spec.submodule_search_locations or []) if spec is not None else []
    return next((Path(place) / "lib" for place in places if (Path(place) / "lib/libnvrtc.so.12").is_file()), None)
