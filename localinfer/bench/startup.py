"""How long a new process takes: until a help page stands, and until a model has said its first token."""

import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

from localinfer.errors import LocalInferError
from localinfer.hub.details import details
from localinfer.hub.model import LocalModel


@dataclass(frozen=True, slots=True)
class Startup:
    """Seconds of one command line, process by process."""

    command: str
    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        return median(self.seconds)

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {"median": self.median}


def time_startup(
    model: LocalModel, processes: int, on_progress: Callable[[str, int, int], None] = lambda *_: None
) -> list[Startup]:
    """Start each command line `processes` times, in turn with the others, after once that is not counted (files come
    into memory, and step times are measured). A model without a chat template gets plain text. Raises
    `LocalInferError` where one fails.
    """
    raw = [] if details(model)["template"] else ["--raw"]
    lines = [["--help"], ["run", model.ref, "hi", *raw, "-n", "1", "--quiet", "--no-remember", "--no-server"]]
    taken: list[list[float]] = [[] for _ in lines]
    for number in range(processes + 1):
        for line, seconds in zip(lines, taken, strict=True):
            found = _timed(line)
            if number:
                seconds.append(found)
        on_progress("processes", number, processes)
    return [Startup(f"localinfer {' '.join(line)}", tuple(s)) for line, s in zip(lines, taken, strict=True)]


def _timed(line: list[str]) -> float:
    started = time.perf_counter()
    ran = subprocess.run(
        [sys.executable, "-m", "localinfer", *line], stdin=subprocess.DEVNULL, capture_output=True, check=False
    )
    taken = time.perf_counter() - started
    if ran.returncode:
        said = ran.stderr.decode("utf-8", "replace").strip().splitlines()
        raise LocalInferError(
            f"`localinfer {' '.join(line)}` ended with {ran.returncode}: {said[0][:200] if said else 'no words'}",
            hint="run it by hand to see more",
        )
    return taken
