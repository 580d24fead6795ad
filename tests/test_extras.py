"""The command that a hint names adds to the environment that this program runs in, whoever made it."""

import sys
from pathlib import Path

import pytest

from localinfer.extras import install_command, package_command


@pytest.fixture
def prefix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    monkeypatch.setattr(sys, "executable", f"{tmp_path}/bin/python")
    return tmp_path


def test_a_virtual_environment(prefix: Path) -> None:
    assert install_command("serve") == f"{prefix}/bin/python -m pip install 'localinfer[serve]'"
    assert package_command("some", "--no-deps") == f"{prefix}/bin/python -m pip install --no-deps some"


def test_pipx(prefix: Path) -> None:
    (prefix / "pipx_metadata.json").touch()
    assert install_command("serve").startswith("pipx inject localinfer 'starlette")
    assert package_command("some", "--no-deps") == "pipx inject localinfer some"


@pytest.mark.parametrize("file", ["uv-receipt.toml", "pyvenv.cfg"])
def test_uv(prefix: Path, file: str) -> None:
    (prefix / file).write_text("home = /usr/bin\nuv = 0.13.8\n", encoding="utf-8")
    assert install_command("serve").startswith(f"uv pip install --python {prefix} 'starlette")
    assert package_command("some", "--no-deps") == f"uv pip install --python {prefix} some"
