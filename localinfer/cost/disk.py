"""How fast the disk is read that a folder lies on, measured as experts are read: in pieces, from all over a file."""

import os
import random
import secrets
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from localinfer.cost.machine import STALE, keep, kept

PROBE_BYTES, PIECE, READERS = 256 << 20, 1 << 20, 4


def disk_bandwidth(folder: Path) -> float:
    """Bytes a second; 0 where it cannot be measured. Kept in `machine_file()` for a month; measuring writes a file of
    `PROBE_BYTES` and takes a second or two."""
    folder = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    disk = str(folder.stat().st_dev)
    before = kept("disk").get(disk)
    if isinstance(before, dict) and isinstance(before.get("bytes_per_s"), (int, float)):
        age = time.time() - before["measured"] if isinstance(before.get("measured"), (int, float)) else STALE
        if before["bytes_per_s"] > 0 and age < STALE:
            return float(before["bytes_per_s"])
    found = 0.0
    with suppress(OSError):
        found = _measure(folder)
    if found:
        keep("disk", disk, {"bytes_per_s": round(found), "measured": round(time.time())})
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
