"""How fast the disk is read that a folder lies on, measured as experts are read: in pieces, from all over a file."""

import os
import random
import secrets
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

from localinfer.cost.machine import STALE
from localinfer.errors import LocalInferError
from localinfer.formats.durable import write_json
from localinfer.formats.json_files import read_object
from localinfer.paths import machine_file

PROBE_BYTES, PIECE, READERS = 256 << 20, 1 << 20, 4


def disk_bandwidth(folder: Path) -> float:
    """Bytes a second; 0 where it cannot be measured. Kept in `machine_file()` for a month; measuring writes a file of
    `PROBE_BYTES` and takes a second or two."""
    folder = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    disk = str(folder.stat().st_dev)
    kept = _kept().get(disk)
    if isinstance(kept, dict) and isinstance(kept.get("bytes_per_s"), (int, float)):
        age = time.time() - kept["measured"] if isinstance(kept.get("measured"), (int, float)) else STALE
        if kept["bytes_per_s"] > 0 and age < STALE:
            return float(kept["bytes_per_s"])
    found = 0.0
    with suppress(OSError):
        found = _measure(folder)
    if found:
        _keep(disk, found)
    return found


def _measure(folder: Path) -> float:
    path = folder / f".{secrets.token_hex(8)}.tmp"
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        path.unlink()
        block = os.urandom(PIECE)
        for at in range(0, PROBE_BYTES, PIECE):
            os.pwrite(handle, block, at)
        os.fsync(handle)
        if not hasattr(os, "posix_fadvise"):
            return 0.0  # what was written is still in memory
        os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
        os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_RANDOM)
        places = list(range(0, PROBE_BYTES, PIECE))
        random.shuffle(places)
        with ThreadPoolExecutor(READERS) as readers:
            started = time.perf_counter()
            read = sum(readers.map(lambda at: len(os.pread(handle, PIECE, at)), places))
            return read / max(time.perf_counter() - started, 1e-9)
    finally:
        os.close(handle)


def _kept() -> dict[str, Any]:
    try:
        found = read_object(machine_file()).get("disk")
    except LocalInferError:
        return {}
    return found if isinstance(found, dict) else {}


def _keep(disk: str, bytes_per_s: float) -> None:
    """Write it down; a home that cannot be written only means to measure again."""
    try:
        cached = read_object(machine_file())
    except LocalInferError:
        cached = {}
    entry = {"bytes_per_s": round(bytes_per_s), "measured": round(time.time())}
    with suppress(LocalInferError, OSError):
        machine_file().parent.mkdir(parents=True, exist_ok=True)
        write_json(machine_file(), {**cached, "disk": {**_kept(), disk: entry}})
