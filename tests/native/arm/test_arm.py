"""The ARM kernels, cross-compiled and run under an emulator: every one of them, and a small model, gives the bits of
the scalar kernels, and those of this machine."""

import fcntl
import shutil
import subprocess
from pathlib import Path

import pytest

HERE = Path(__file__).parent
BUILD = Path(__file__).parents[3] / "build"
COMPILER = "aarch64-linux-gnu-g++"
NEEDED = (COMPILER, "qemu-aarch64", "cmake", "ninja")
MISSING = [tool for tool in NEEDED if shutil.which(tool) is None]
ARM = ("-DCMAKE_SYSTEM_NAME=Linux", "-DCMAKE_SYSTEM_PROCESSOR=aarch64", f"-DCMAKE_CXX_COMPILER={COMPILER}")

pytestmark = [
    pytest.mark.xdist_group("arm"),
    pytest.mark.skipif(bool(MISSING), reason=f"not installed: {', '.join(MISSING)}"),
]


def run(*command: str) -> list[str]:
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    assert done.returncode == 0, done.stdout
    return done.stdout.splitlines()


def built(name: str, *options: str) -> str:
    folder = str(BUILD / name)
    BUILD.mkdir(exist_ok=True)
    with (BUILD / f"{name}.lock").open("w") as lock:  # another process may be at the same folder
        fcntl.flock(lock, fcntl.LOCK_EX)
        run("cmake", "-G", "Ninja", "-S", str(HERE), "-B", folder, "-DCMAKE_BUILD_TYPE=Release", *options)
        run("cmake", "--build", folder)
    return f"{folder}/bits"


@pytest.fixture(scope="module")
def arm_bits() -> str:
    return built("bits-aarch64", *ARM)


def models(lines: list[str]) -> dict[tuple[str, str], str]:
    """Hash of the logits by kernel set and width of the cache."""
    words = [line.split() for line in lines if line.startswith("model ")]
    return {(isa, kv): seen for _, isa, kv, seen in words}


def test_every_kernel_gives_the_bits_of_the_scalar_ones(arm_bits: str) -> None:
    arm = run("qemu-aarch64", arm_bits)
    assert arm[0] == "isas scalar neon neon_i8mm"
    assert arm[-1] == "0 differences"
    hashes = models(arm)
    assert {isa for isa, _ in hashes} == {"scalar", "neon", "neon_i8mm"}
    for (_, kv), seen in hashes.items():
        assert seen == hashes["scalar", kv]
    here = run(built("bits-host"))
    assert here[-1] == "0 differences"
    for (_, kv), seen in models(here).items():
        assert seen == hashes["scalar", kv], "this machine and the emulated one differ"


@pytest.mark.parametrize(
    ("cpu", "isas"), [("cortex-a57", "scalar"), ("neoverse-n1", "scalar neon"), ("max", "scalar neon neon_i8mm")]
)
def test_detection(cpu: str, isas: str, arm_bits: str) -> None:
    """Kernels that the processor lacks are not offered; those that it has, run on it."""
    assert run("qemu-aarch64", "-cpu", cpu, arm_bits, "isas")[0] == f"isas {isas}"
