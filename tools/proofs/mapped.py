"""Whether a mixture that is larger than the memory allowed answers, how fast, and with the same tokens.

    python -m tools.proofs.mapped --shape qwen3-30b-a3b-8l --limit 1.5

A model of random weights answers once with all weights in memory, and then in a process that may have so many GB: in a
memory cgroup of its own where one can be made (version 2 or 1; page cache counts), else with a limit of its private
memory (RLIMIT_DATA; maps of files do not count). What the disk cache has of the experts is dropped in between.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

from localinfer.bench.random_model import make_random, parse_form
from localinfer.hub.model import LocalModel
from localinfer.paths import experts_dir

GROUPS = (
    (Path("/sys/fs/cgroup"), "memory.max", "memory.peak"),
    (Path("/sys/fs/cgroup/memory"), "memory.limit_in_bytes", "memory.max_usage_in_bytes"),
)
"""Where groups are made, the file of their limit, and that of the most they took: versions 2 and 1."""


@contextmanager
def limited(nbytes: int, *, plain: bool) -> Iterator[tuple[Callable[[], None], Callable[[], str]]]:
    """What a child calls before it becomes another program, and what its limit was and what it took of it."""
    found = None if plain else _group(nbytes)
    if found is None:
        yield partial(resource.setrlimit, resource.RLIMIT_DATA, (nbytes, nbytes)), lambda: f"RLIMIT_DATA {nbytes}"
        return
    group, peak = found
    try:
        yield partial(_join, group), lambda: f"memory cgroup of {nbytes} bytes, most taken {peak.read_text().strip()}"
    finally:
        for _ in range(50):  # its last process may be on its way out
            with suppress(OSError):
                group.rmdir()
                break
            time.sleep(0.1)


def _group(nbytes: int) -> tuple[Path, Path] | None:
    """A group with this limit, and the file of the most it took; None where none can be made."""
    for top, limit, peak in GROUPS:
        group = top / f"localinfer-proof-{os.getpid()}"
        try:
            group.mkdir()
        except OSError:
            continue
        if (group / limit).exists():
            (group / limit).write_text(f"{nbytes}")
            return group, group / peak
        group.rmdir()  # no memory controller here
    return None


def _join(group: Path) -> None:
    (group / "cgroup.procs").write_text(f"{os.getpid()}")


def answered(model: LocalModel, tokens: int, how: list[str], join: Callable[[], None] | None = None) -> dict[str, Any]:
    """One answer by the command line, and what it said beside."""
    command = [sys.executable, "-m", "localinfer", "run", model.ref, "Once upon a time", "--raw", "--json"]
    # Words of all kinds, which go to many experts: the likeliest ones of random weights are soon the same ones again.
    command += ["--temp", "1.5", "--top-k", "0", "--top-p", "1", "--seed", "1"]
    command += ["--max-tokens", f"{tokens}", "--no-remember", "--no-server", "--draft", "off", "-c", "1024", *how]
    done = subprocess.run(command, capture_output=True, text=True, check=False, preexec_fn=join)
    print(done.stderr.strip(), flush=True)
    if done.returncode:
        raise SystemExit(f"it ended with {done.returncode}")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def forget_cached() -> None:
    """Drop what the system's cache has of the packed experts."""
    for path in experts_dir().glob("*.experts"):
        handle = os.open(path, os.O_RDONLY)
        os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(handle)


def main() -> int:
    """Answer both ways and tell."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--shape", default="qwen3-30b-a3b-8l")
    parser.add_argument("--limit", type=float, default=1.5, help="GB")
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--rlimit", action="store_true", help="no cgroup, also where one can be made")
    asked = parser.parse_args()
    model = make_random(parse_form(asked.shape))
    print(f"{model.ref}: {model.size_bytes / 1e9:.2f} GB of files", flush=True)
    whole = answered(model, asked.tokens, ["--experts", "resident"])
    answered(model, 1, ["--experts", "mapped"])  # packs them, which is not what is timed
    forget_cached()
    with limited(int(asked.limit * 1e9), plain=asked.rlimit) as (join, said):
        few = answered(model, asked.tokens, [], join)
        print(said())
    for name, one in (("resident", whole), ("limited", few)):
        timings = {key: round(value, 2) for key, value in one["timings"].items() if value is not None}
        print(f"{name}: {timings}, {one['output_hash']}, experts {one['experts']}")
    if few["experts"] is None:
        raise SystemExit("nothing was on disk: lower --limit")
    if few["token_ids"] != whole["token_ids"]:
        raise SystemExit("the tokens differ")
    print(f"the same {len(few['token_ids'])} tokens")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
