"""What is read from the kernel's files, and the measurement that is kept."""

import json
import resource
import time
from pathlib import Path

import pytest

from localinfer.cost import machine
from localinfer.cost.machine import (
    available_bytes,
    cpu_model,
    known_bandwidth,
    last_level_cache,
    read_bandwidth,
    total_bytes,
)
from localinfer.paths import machine_file

GB = 1 << 30


def lay(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


MEMINFO = {"proc/meminfo": f"MemTotal: {16 * GB // 1024} kB\nMemFree: 10 kB\nMemAvailable: {12 * GB // 1024} kB\n"}


def test_the_kernels_estimate(tmp_path: Path) -> None:
    root = lay(tmp_path, MEMINFO)
    assert available_bytes(root) == 12 * GB
    assert total_bytes(root) == 16 * GB


@pytest.mark.parametrize(
    ("limit", "used", "cache", "free"),
    [(4 * GB, 3 * GB, 2 * GB, 3 * GB), (4 * GB, 5 * GB, 0, 0), ("max", 5 * GB, 0, 12 * GB), (64 * GB, 1, 0, 12 * GB)],
)
def test_a_container_may_have_less(tmp_path: Path, limit: int | str, used: int, cache: int, free: int) -> None:
    group = "sys/fs/cgroup/box/inner"
    root = lay(
        tmp_path,
        {
            **MEMINFO,
            "proc/self/cgroup": "0::/box/inner\n",
            "sys/fs/cgroup/box/memory.max": str(limit),
            "sys/fs/cgroup/box/memory.current": str(used),
            "sys/fs/cgroup/box/memory.stat": f"anon 1\ninactive_file {cache}\n",
            f"{group}/memory.max": "max\n",
            f"{group}/memory.current": "1\n",
        },
    )
    assert available_bytes(root) == free


def test_older_cgroups(tmp_path: Path) -> None:
    root = lay(
        tmp_path,
        {
            **MEMINFO,
            "proc/self/cgroup": "9:name=systemd:/\n4:cpu,memory:/box\n0::/\nbroken\n",
            "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712",
            "sys/fs/cgroup/memory/memory.usage_in_bytes": "5",
            "sys/fs/cgroup/memory/box/memory.limit_in_bytes": str(2 * GB),
            "sys/fs/cgroup/memory/box/memory.usage_in_bytes": str(GB),
            "sys/fs/cgroup/memory/box/memory.stat": f"cache 7\ntotal_inactive_file {GB // 2}\n",
        },
    )
    assert available_bytes(root) == GB + GB // 2


def test_without_the_kernels_files_it_is_what_the_system_says(tmp_path: Path) -> None:
    assert available_bytes(tmp_path) > 0
    assert total_bytes(tmp_path) >= available_bytes(tmp_path)


def test_the_processors_name(tmp_path: Path) -> None:
    lay(tmp_path, {"cpuinfo": "processor\t: 0\nmodel name\t: Some  CPU @ 2GHz\n"})
    assert cpu_model(tmp_path / "cpuinfo") == "Some CPU @ 2GHz"
    assert cpu_model(tmp_path / "none")


def test_the_bandwidth_is_measured_once(monkeypatch: pytest.MonkeyPatch, isolated: Path) -> None:
    from localinfer import native

    asked: list[tuple[int, int]] = []

    def measure(size: int, threads: int = 0) -> float:
        asked.append((size, threads))
        return 1e9 * len(asked) * threads

    monkeypatch.setattr(native, "read_bandwidth", measure)
    assert known_bandwidth() is None
    assert read_bandwidth(1).bytes_per_s == 1e9
    assert read_bandwidth(1).bytes_per_s == 1e9
    assert read_bandwidth(2).bytes_per_s == 4e9
    assert len(asked) == 2
    assert known_bandwidth() == read_bandwidth(2)
    assert known_bandwidth(1) == read_bandwidth(1)
    assert read_bandwidth(1, refresh=True).bytes_per_s == 3e9
    monkeypatch.setattr(native, "read_bandwidth", lambda size, threads: 1.0)
    assert read_bandwidth(1, refresh=True).bytes_per_s == 3e9  # the machine was busy now, not slow
    month = time.time() + machine.STALE + 10
    monkeypatch.setattr("time.time", lambda: month)
    assert read_bandwidth(1, refresh=True).bytes_per_s == 1.0
    monkeypatch.setattr(native, "read_bandwidth", measure)
    assert known_bandwidth(2) == read_bandwidth(2)
    monkeypatch.setattr(machine, "cpu_model", lambda: "another processor")
    assert known_bandwidth() is None
    read_bandwidth(1)
    assert len(json.loads(machine_file().read_text())["bandwidth"]) == 2


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", '{"bandwidth": 3}', '{"bandwidth": {"x": 1}}', '{"bandwidth": {"%s": [3, {"threads": "x"}]}}'],
)
def test_a_broken_file_means_to_measure_again(isolated: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    from localinfer import native

    monkeypatch.setattr(native, "read_bandwidth", lambda size, threads: 5e9)
    machine_file().parent.mkdir(parents=True)
    machine_file().write_text(text.replace("%s", cpu_model()))
    assert known_bandwidth() is None
    assert read_bandwidth(1).bytes_per_s == 5e9
    assert known_bandwidth(1) is not None


def test_a_home_that_cannot_be_written_is_no_error(isolated: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from localinfer import native

    monkeypatch.setattr(native, "read_bandwidth", lambda size, threads: 5e9)
    machine_file().parent.parent.mkdir(parents=True, exist_ok=True)
    machine_file().parent.write_text("a file where the folder should be")
    assert read_bandwidth(1).bytes_per_s == 5e9


def test_the_real_probe_gives_a_speed(isolated: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "PROBE_BYTES", 1 << 24)
    assert 1e8 < read_bandwidth(1).bytes_per_s < 1e13


def test_the_last_level_cache(tmp_path: Path) -> None:
    for index, size in (("index0", "32K"), ("index3", "32768K"), ("index4", "unknown")):
        (tmp_path / index).mkdir()
        (tmp_path / index / "size").write_text(f"{size}\n")
    assert last_level_cache(tmp_path) == 32 << 20
    assert last_level_cache(tmp_path / "nowhere") == 0


@pytest.mark.parametrize(("limit", "key"), [("RLIMIT_DATA", "VmData"), ("RLIMIT_AS", "VmSize")])
def test_a_shell_may_have_less(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str, key: str) -> None:
    most = {getattr(resource, limit): 3 * GB}
    monkeypatch.setattr(resource, "getrlimit", lambda which: (most.get(which, resource.RLIM_INFINITY), -1))
    root = lay(tmp_path, {**MEMINFO, "proc/self/status": f"Name:\tx y\n{key}:\t{GB // 1024} kB\nThreads:\t3\n"})
    assert available_bytes(root) == 2 * GB
    most.clear()
    assert available_bytes(root) == 12 * GB
    most[getattr(resource, limit)] = GB // 2  # lowered since
    assert available_bytes(root) == 0
