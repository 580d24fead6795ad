"""Builds the program `bits`, once for all who ask, and runs it."""

import fcntl
import os
import shutil
import subprocess
from pathlib import Path

HERE = Path(__file__).parent
NATIVE = Path(__file__).parents[3] / "native"
BUILD = Path(__file__).parents[3] / "build"


def missing(*tools: str) -> list[str]:
    """Those of `tools` that are not installed."""
    return [tool for tool in tools if shutil.which(tool) is None]


def said(*command: str, fails: bool = False, **more: str) -> str:
    """What `command` says, with `more` in its environment; it must succeed, or fail."""
    done = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, env=os.environ | more
    )
    assert (done.returncode != 0) == fails, done.stdout
    return done.stdout


def built(name: str, *options: str) -> str:
    """The program's path, after a build in the folder `name` with these options of CMake."""
    folder = str(BUILD / name)
    BUILD.mkdir(exist_ok=True)
    with (BUILD / f"{name}.lock").open("w") as lock:  # another process may be at the same folder
        fcntl.flock(lock, fcntl.LOCK_EX)
        said("cmake", "-G", "Ninja", "-S", str(HERE), "-B", folder, "-DCMAKE_BUILD_TYPE=Release", *options)
        said("cmake", "--build", folder)
    return f"{folder}/bits"


def models(lines: list[str]) -> dict[tuple[str, str], str]:
    """Hash of the logits by kernel set and width of the cache."""
    words = [line.split() for line in lines if line.startswith("model ")]
    return {(isa, kv): seen for _, isa, kv, seen in words}
