"""The typed door, its stub, and the machine probes."""

import subprocess
import sys

import pytest

from localinfer import native
from localinfer.errors import NotSupported, UsageError
from tests.native.make_stub import STUB, generate


def test_stub_is_current() -> None:
    assert STUB.read_text(encoding="utf-8") == generate(), "run `python tests/native/make_stub.py`"


def test_choosing_an_isa(monkeypatch: pytest.MonkeyPatch) -> None:
    assert native.choose_isa() == native.supported_isas()[-1]
    assert native.choose_isa("scalar") == "scalar"
    monkeypatch.setenv("LOCALINFER_ISA", "scalar")
    assert native.choose_isa() == "scalar"
    assert native.Program(64).isa == "scalar"
    best = native.supported_isas()[-1]
    assert native.choose_isa(best) == best  # the flag wins


def test_an_isa_that_cannot_be(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="--isa is 'mmx', but must be one of scalar, avx2, avxvnni, avx512, neon"):
        native.choose_isa("mmx")
    monkeypatch.setenv("LOCALINFER_ISA", "sse")
    with pytest.raises(UsageError, match="LOCALINFER_ISA is 'sse'"):
        native.Program(64)
    monkeypatch.setattr(native, "supported_isas", lambda: ["scalar"])
    with pytest.raises(NotSupported, match="cannot run the kernel set avx512"):
        native.choose_isa("avx512")


def test_without_the_extension() -> None:
    code = (
        "import sys; sys.modules['localinfer._native'] = None\n"
        "from localinfer.errors import LocalInferError\n"
        "try:\n    import localinfer.native\n"
        "except LocalInferError as error:\n    print(error.message, '|', error.hint)\n"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.startswith("the native engine cannot be loaded: ")
    assert "pip install" in ran.stdout


def test_with_the_extension_of_an_older_build() -> None:
    """As after new sources were fetched and nothing was built."""
    code = (
        "import sys, types\n"
        "sys.modules['localinfer._native'] = types.ModuleType('localinfer._native')\n"
        "from localinfer.errors import LocalInferError\n"
        "try:\n    import localinfer.native\n"
        "except LocalInferError as error:\n    print(error.message, error.hint)\n"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.startswith("the native engine cannot be loaded: ")
    assert "pip install -e ." in ran.stdout


def test_the_door_is_light() -> None:
    code = "import sys, localinfer.native; print([m for m in ('numpy', 'torch') if m in sys.modules])"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"


def test_machine() -> None:
    cpu = native.cpu()
    assert set(cpu) == {"vendor", "model", "features", "isas"}
    assert cpu["isas"] == native.supported_isas()
    assert native.supported_isas()[0] == "scalar"
    assert native.physical_cores() >= 1


def test_bandwidth() -> None:
    assert native.read_bandwidth(1 << 22, 1) > 1e6
    assert native.read_bandwidth(1 << 22) > 1e6
    with pytest.raises(ValueError, match="63 bytes are too few"):
        native.read_bandwidth(63, 1)
    with pytest.raises(MemoryError, match="no memory for the bandwidth probe"):
        native.read_bandwidth(1 << 60, 1)
