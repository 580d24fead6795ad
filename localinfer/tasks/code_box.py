"""Runs what a model wrote in a process of its own that has given up everything but computing, and is ended in time."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from localinfer.errors import NotSupported

CPU_SECONDS = 4
"""Processor time that one answer may take, all its calls together."""

SECONDS = 30.0
"""The same by the clock, for a machine that is busy."""

MOST_OUTPUT = 1 << 20
"""Bytes that are read of what it says."""

CHILD = Path(__file__).with_name("code_child.py")


def require_box() -> None:
    """Raise `NotSupported` where no process can be locked in well enough to run what a model wrote."""
    said = run("def one():\n    return 1", "one", [[]])
    if said.get("results") != [1]:
        held = ", ".join(map(str, said.get("held", []))) or "nothing"
        raise NotSupported(
            f"the task `code` is not run here: code of a model needs a seccomp filter, and this system gives {held}",
            hint="choose other tasks: `--tasks arithmetic,needle,json`",
        )


def run(code: str, name: str, calls: Sequence[Sequence[Any]]) -> dict[str, Any]:
    """What the function `name` of `code` gives for each of `calls`, as `results`; nothing of that where it did not
    end in time, failed, or said what is no JSON. `held` is what the process had given up."""
    request = {"code": code, "name": name, "calls": calls, "seconds": CPU_SECONDS}
    with tempfile.TemporaryDirectory(prefix="localinfer-code-") as empty:
        child = subprocess.Popen(
            [sys.executable, "-I", "-S", "-B", "-X", "utf8", "-W", "ignore", str(CHILD)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd=empty,
            env={name: os.environ[name] for name in ("LD_LIBRARY_PATH",) if name in os.environ},
            start_new_session=True,
        )
        alarm = threading.Timer(SECONDS, _end, (child,))
        alarm.daemon = True
        alarm.start()
        try:
            return _said(_exchange(child, json.dumps(request).encode()))
        finally:
            alarm.cancel()
            _end(child)
            child.wait()


def _exchange(child: "subprocess.Popen[bytes]", request: bytes) -> bytes:
    """Send the request, and read what comes until the end, or until it is too much."""
    assert child.stdin is not None
    assert child.stdout is not None
    with child.stdout, contextlib.suppress(OSError):
        with contextlib.suppress(OSError), child.stdin:  # it may be dead already
            child.stdin.write(request)
        return child.stdout.read(MOST_OUTPUT + 1)
    return b""


def _said(line: bytes) -> dict[str, Any]:
    try:
        said = json.loads(line) if len(line) <= MOST_OUTPUT else {}
    except (ValueError, RecursionError):
        return {}
    return said if isinstance(said, dict) else {}


def _end(child: "subprocess.Popen[bytes]") -> None:
    """Kill the process and all of its group. It has not been waited for, so its number is still its own."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, signal.SIGKILL)
