"""The kernel sets that this machine has, the program and its threads, under sanitizers; faults are planted for them."""

import pytest

from localinfer import native
from tests.native.bits.building import built, missing, said

MISSING = missing("g++", "cmake", "ninja")
pytestmark = [
    pytest.mark.xdist_group("sanitizers"),
    pytest.mark.skipif(bool(MISSING), reason=f"not installed: {', '.join(MISSING)}"),
]


def left_out() -> str:
    """The kernel sets that cannot run here, which would only take time to compile."""
    isas, features = native.supported_isas(), native.cpu()["features"]
    runs = {
        "AVX2": "avx2" in isas,
        "AVXVNNI": "avxvnni" in isas and "avx_vnni" in features,
        "AVXVNNI_EVEX": "avxvnni" in isas and "avx_vnni" not in features,
        "AVX512": "avx512" in isas,
    }
    return ";".join(name for name, there in runs.items() if not there)


def watched(sanitizers: str) -> str:
    options = ("-DCMAKE_CXX_COMPILER=g++", f"-DBITS_SANITIZE={sanitizers}", f"-DBITS_WITHOUT={left_out()}")
    return built(f"bits-{sanitizers.replace(',', '-')}", *options)


def in_vectors(report: str) -> bool:
    """Whether a kernel is named, and one with vectors where there are some."""
    return "native/kernels/" in report and ("kernels/scalar" in report) == (native.supported_isas() == ["scalar"])


def test_memory_and_arithmetic() -> None:
    bits = watched("address,undefined")
    assert said(bits).splitlines()[-1] == "0 differences"
    for fault in ("read outside", "write outside"):
        report = said(bits, "fault", fault, fails=True)
        assert "ERROR: AddressSanitizer: heap-buffer-overflow" in report
        assert in_vectors(report)
    assert "runtime error: signed integer overflow" in said(bits, "fault", "overflow", fails=True)
    if native.supported_isas() != ["scalar"]:
        assert "runtime error: load of misaligned address" in said(bits, "fault", "misaligned", fails=True)


def test_races() -> None:
    bits = watched("thread")
    assert said(bits, "threads").splitlines()[-1] == "0 differences"
    report = said(bits, "fault", "race", fails=True)
    assert "WARNING: ThreadSanitizer: data race" in report
    assert in_vectors(report)
