"""Write `localinfer/_native.pyi` from the built extension. Run it after a change in `native/bindings/`.

python tests/native/make_stub.py
"""

import re
import subprocess
import sys
import tempfile
from pathlib import Path

STUB = Path(__file__).resolve().parents[2] / "localinfer" / "_native.pyi"
HEADER = "# Written by tests/native/make_stub.py; do not edit.\n# ruff: noqa: A002\n"
SHAPED = re.compile(r"Annotated\[(NDArray\[[\w.]+\]), dict\((?:[^()]|\([^()]*\))*\)\]")
"""An array with its shape and layout, which mypy does not look at and people read in the docstring."""


def run(*command: str, text: str = "") -> str:
    return subprocess.run(command, cwd=STUB.parents[1], input=text, capture_output=True, text=True, check=True).stdout


def generate() -> str:
    """The stub as it should be: nanobind's, in the repository's format."""
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / "_native.pyi"
        run(sys.executable, "-m", "nanobind.stubgen", "-q", "-m", "localinfer._native", "-o", str(made))
        text = HEADER + SHAPED.sub(r"\1", made.read_text(encoding="utf-8"))
    ruff = str(Path(sys.executable).parent / "ruff")
    text = run(ruff, "check", "--quiet", "--fix-only", "--stdin-filename", str(STUB), "-", text=text)
    return run(ruff, "format", "--quiet", "--stdin-filename", str(STUB), "-", text=text)


if __name__ == "__main__":
    STUB.write_text(generate(), encoding="utf-8")
