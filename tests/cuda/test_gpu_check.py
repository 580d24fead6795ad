"""`make gpu-check` names what it needs, and keeps what each part said, also of one that failed."""

import json
import subprocess
import sys
from pathlib import Path

TOOL = Path(__file__).parents[2] / "tools/gpu_check.py"


def asked(*words: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(TOOL), *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)


def test_it_names_the_wheels() -> None:
    named = asked("--list").stdout.split()
    assert any(name.startswith("numpy==") for name in named)
    assert any(name.startswith("nanobind==") for name in named)
    assert any(name.startswith("nvidia-cuda-nvrtc") for name in named)


def test_a_part_that_fails_is_in_the_report(tmp_path: Path) -> None:
    """A Python that refuses everything: the report says so, part by part."""
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho no card today >&2\nexit 5\n")
    python.chmod(0o755)
    ran = asked("--python", python, "-o", tmp_path / "report.json")
    assert ran.returncode == 1
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["passed"] is False
    assert {part["code"] for part in report["parts"]} == {5}
    assert all("no card today" in part["tail"] for part in report["parts"])
    names = [part["name"] for part in report["parts"]]
    assert names[:2] == ["proof", "tests"]
    assert sum(name.startswith("bench") for name in names) == 5
