"""The process that runs a function which a model wrote. Started by `code_box.py`; imports nothing but Python's own.

The code is hostile until shown otherwise. Before it is read, this process gives up files, network and other processes
for good; without a filter of system calls it runs nothing. What the calls should give is not here: the parent compares.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

READY = (
    *("_strptime", "abc", "array", "bisect", "calendar", "cmath", "collections.abc", "contextlib", "copy"),
    *("dataclasses", "datetime", "decimal", "enum", "fractions", "functools", "heapq", "itertools", "json", "math"),
    *("numbers", "operator", "queue", "random", "re", "statistics", "string", "textwrap", "time", "types", "typing"),
    "unicodedata",
)
"""What the code may import: there are no files any more from which it could load others."""


class _Nowhere:
    """Where the code's own output goes."""

    def write(self, text: str) -> int:
        return len(text)

    def flush(self) -> None:
        pass


def main() -> None:
    """Read one request, give everything up, run it, say what the calls gave, and end."""
    request = json.loads(sys.stdin.buffer.read())
    for name in READY:
        __import__(name)
    sys.path.insert(0, str(Path(__file__).parents[2]))
    from localinfer.chats.lockdown import lock

    sys.path.clear()
    os.close(0)
    held = lock(cpu_seconds=request["seconds"])
    said: dict[str, Any] = {"held": held}
    if "seccomp" in held:
        sys.stdout = sys.stderr = _Nowhere()
        said |= _ran(request["code"], request["name"], request["calls"])
    os.write(1, json.dumps(said).encode())
    os._exit(0)


def _ran(code: str, name: str, calls: list[list[Any]]) -> dict[str, Any]:
    """`results`, as JSON has them, or `error`: what was raised."""
    try:
        space: dict[str, Any] = {"__name__": "answer"}
        exec(compile(code, "<answer>", "exec"), space)  # what this process is there for
        return {"results": json.loads(json.dumps([space[name](*arguments) for arguments in calls]))}
    except BaseException as error:
        return {"error": type(error).__name__}


if __name__ == "__main__":
    main()
