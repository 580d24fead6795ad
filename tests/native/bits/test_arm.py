"""The ARM kernels, cross-compiled and run under an emulator: every one of them, and a small model, gives the bits of
the scalar kernels, and those of this machine. There clang compiles them, where it is installed."""

import pytest

from tests.native.bits.building import built, missing, models, said

COMPILER = "aarch64-linux-gnu-g++"
MISSING = missing(COMPILER, "qemu-aarch64", "cmake", "ninja")
ARM = ("-DCMAKE_SYSTEM_NAME=Linux", "-DCMAKE_SYSTEM_PROCESSOR=aarch64", f"-DCMAKE_CXX_COMPILER={COMPILER}")
HERE = "g++" if missing("clang++") else "clang++"

pytestmark = [
    pytest.mark.xdist_group("arm"),
    pytest.mark.skipif(bool(MISSING), reason=f"not installed: {', '.join(MISSING)}"),
]


@pytest.fixture(scope="module")
def arm_bits() -> str:
    return built("bits-aarch64", *ARM)


def test_every_kernel_gives_the_bits_of_the_scalar_ones(arm_bits: str) -> None:
    arm = said("qemu-aarch64", arm_bits).splitlines()
    assert arm[0] == "isas scalar neon neon_i8mm"
    assert arm[-1] == "0 differences"
    hashes = models(arm)
    assert {isa for isa, _ in hashes} == {"scalar", "neon", "neon_i8mm"}
    for (_, kv), seen in hashes.items():
        assert seen == hashes["scalar", kv]
    here = said(built(f"bits-{HERE}", f"-DCMAKE_CXX_COMPILER={HERE}")).splitlines()
    assert here[-1] == "0 differences"
    for (_, kv), seen in models(here).items():
        assert seen == hashes["scalar", kv], "this machine and the emulated one differ"


@pytest.mark.parametrize(
    ("cpu", "isas"), [("cortex-a57", "scalar"), ("neoverse-n1", "scalar neon"), ("max", "scalar neon neon_i8mm")]
)
def test_detection(cpu: str, isas: str, arm_bits: str) -> None:
    """Kernels that the processor lacks are not offered; those that it has, run on it."""
    assert said("qemu-aarch64", "-cpu", cpu, arm_bits, "isas").splitlines()[0] == f"isas {isas}"
