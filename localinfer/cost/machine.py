"""What this machine has: processor, memory that is really free, and how fast it reads. Linux first."""

import os
import platform
import resource
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from localinfer.errors import LocalInferError
from localinfer.formats.durable import write_json
from localinfer.formats.json_files import read_object
from localinfer.paths import machine_file

PROBE_BYTES = 1 << 30
"""Size of the buffer whose reading is timed: above every cache."""

STALE = 30 * 24 * 3600.0
"""Seconds after which a new measurement replaces a faster old one."""


@dataclass(frozen=True, slots=True)
class Bandwidth:
    """A measurement of the memory, kept until it is asked for again."""

    bytes_per_s: float
    threads: int
    measured: float
    """When, seconds since 1970."""


def cpu_model(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """The processor's name; the architecture's where it has none."""
    try:
        for line in cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines():
            key, _, value = line.partition(":")
            if key.strip() in ("model name", "Model") and value.strip():
                return " ".join(value.split())
    except OSError:
        pass
    return platform.processor() or platform.machine()


def cpu_generation(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """Family and model of an x86 processor, as `23.1`; empty where the system does not say."""
    found = dict[str, str]()
    with suppress(OSError):
        for line in cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines():
            key, _, value = line.partition(":")
            found.setdefault(key.strip(), value.strip())
    family, model = found.get("cpu family", ""), found.get("model", "")
    return f"{family}.{model}" if family.isdecimal() and model.isdecimal() else ""


def last_level_cache(root: Path = Path("/sys/devices/system/cpu/cpu0/cache")) -> int:
    """Bytes of the largest cache that the first processor reads through; 0 where the system does not say."""
    sizes = [0]
    for path in root.glob("index*/size"):
        words = path.read_text(encoding="ascii", errors="replace").strip()
        if words.endswith("K") and words[:-1].isdigit():
            sizes.append(int(words[:-1]) << 10)
    return max(sizes)


def available_bytes(root: Path = Path("/")) -> int:
    """Bytes a process may still take: the kernel's estimate, or what the tightest cgroup or `ulimit` leaves, whichever
    is less.

    `root` stands for `/` in tests.
    """
    return min([_mem_available(root), *_cgroup_room(root), *_limits_room(root)])


def total_bytes(root: Path = Path("/")) -> int:
    """Bytes of memory of the machine, whatever a cgroup allows."""
    found = _meminfo(root).get("MemTotal")
    return found if found is not None else os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _mem_available(root: Path) -> int:
    found = _meminfo(root)
    if "MemAvailable" in found:
        return found["MemAvailable"]
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")  # no estimate here: all there is


def _meminfo(root: Path) -> dict[str, int]:
    return _in_bytes(root / "proc/meminfo")


def _in_bytes(path: Path) -> dict[str, int]:
    """The lines of a file that count kB."""
    try:
        lines = path.read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return {}
    pairs = (line.split() for line in lines)
    return {pair[0].rstrip(":"): int(pair[1]) * 1024 for pair in pairs if len(pair) >= 2 and pair[1].isdigit()}


def _cgroup_room(root: Path) -> list[int]:
    """What each cgroup above this process leaves; page cache that would be given back counts as free."""
    try:
        lines = (root / "proc/self/cgroup").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
    room = []
    for line in lines:
        _, controllers, path = [*line.split(":", 2), "", ""][:3]
        if controllers == "":
            top, names = root / "sys/fs/cgroup", ("memory.max", "memory.current", "inactive_file")
        elif "memory" in controllers.split(","):
            top = root / "sys/fs/cgroup/memory"
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
        else:
            continue
        folder = top / path.lstrip("/")
        # In a container the path may be the host's and not be there: its top is then this process's own group.
        for group in (g for g in (folder, *folder.parents) if g.is_relative_to(top)):
            limit, used = _number(group / names[0]), _number(group / names[1])
            if limit is not None and used is not None:
                room.append(max(0, limit - used + _cache(group, names[2])))
    return room


def _limits_room(root: Path) -> Iterator[int]:
    """What this process's own limits of its private memory and of its addresses leave."""
    taken = _in_bytes(root / "proc/self/status")
    for limit, key in ((resource.RLIMIT_DATA, "VmData"), (resource.RLIMIT_AS, "VmSize")):
        most, _ = resource.getrlimit(limit)
        if most != resource.RLIM_INFINITY and key in taken:
            yield max(0, most - taken[key])


def _number(path: Path) -> int | None:
    try:
        text = path.read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        return None
    return int(text) if text.isdigit() else None  # "max" is no limit


def _cache(group: Path, key: str) -> int:
    try:
        lines = (group / "memory.stat").read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return 0
    pairs = (line.split() for line in lines)
    return next((int(pair[1]) for pair in pairs if len(pair) == 2 and pair[0] == key and pair[1].isdigit()), 0)


def known_bandwidth(threads: int | None = None) -> Bandwidth | None:
    """The kept measurement for this processor and `threads` (all cores if None), or None. Never measures."""
    for entry in _entries():
        if threads is None or entry.get("threads") == threads:
            try:
                return Bandwidth(float(entry["bytes_per_s"]), int(entry["threads"]), float(entry["measured"]))
            except (KeyError, TypeError, ValueError):
                continue
    return None


def read_bandwidth(threads: int | None = None, *, refresh: bool = False) -> Bandwidth:
    """Bytes a second that `threads` (None: one a physical core) read from memory; measuring takes about a second.

    Measured once and kept in `machine_file()` under the processor's name. `refresh` measures again and takes the faster
    of both, for a busy machine looks slow and none looks faster than it is; a month-old one no longer counts.
    """
    from localinfer import native

    wanted = threads or native.physical_cores()
    cached = known_bandwidth(wanted)
    if cached is not None and not refresh:
        return cached
    size = min(PROBE_BYTES, max(available_bytes() // 4, 1 << 26))
    found = Bandwidth(native.read_bandwidth(size, wanted), wanted, time.time())
    if cached is not None and cached.bytes_per_s >= found.bytes_per_s and found.measured - cached.measured < STALE:
        return cached
    _keep(found)
    return found


def _entries() -> list[dict[str, Any]]:
    """Measurements of this processor, most threads first."""
    cached = kept("bandwidth").get(cpu_model(), [])
    entries = [entry for entry in cached if isinstance(entry, dict)] if isinstance(cached, list) else []
    return sorted(entries, key=lambda entry: -entry["threads"] if isinstance(entry.get("threads"), int) else 0)


def _keep(found: Bandwidth) -> None:
    entry = {"threads": found.threads, "bytes_per_s": round(found.bytes_per_s), "measured": round(found.measured)}
    others = [e for e in _entries() if e.get("threads") != found.threads]
    keep("bandwidth", cpu_model(), [entry, *others])


def kept(section: str) -> dict[str, Any]:
    """What `machine_file()` has in a section, as it stands there; empty where it cannot be read."""
    found = _file().get(section)
    return found if isinstance(found, dict) else {}


def keep(section: str, key: str, value: Any) -> None:
    """Write it down; a home that cannot be written only means to measure again."""
    with suppress(LocalInferError, OSError):
        machine_file().parent.mkdir(parents=True, exist_ok=True)
        write_json(machine_file(), {**_file(), section: {**kept(section), key: value}})


def _file() -> dict[str, Any]:
    try:
        return read_object(machine_file())
    except LocalInferError:
        return {}
