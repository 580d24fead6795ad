"""A process gives up what it does not need: files, network, other processes. Nothing can be taken back.

Linux has two ways that need no rights. Landlock forbids every file and every TCP port; a seccomp filter then lets the
few system calls through that reading, writing and memory take, and answers all others with EPERM. Limits of the
process (`setrlimit`) hold on every Unix: no file can be opened, no process started, no byte written to a file.
"""

import ctypes
import os
import platform
import struct
import sys
from collections.abc import Iterator

try:
    import resource  # before the files are gone
except ImportError:  # not on Windows; the time of a rendering still bounds it
    resource = None  # type: ignore[assignment]

MEMORY_BYTES = 384 << 20
"""Address space of the process, about 40 MB of which it uses itself."""

CPU_SECONDS = 600
"""Processor time that the process may use in its life."""

_PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS, _MODE_FILTER = 22, 38, 2
_CREATE_RULESET, _RESTRICT_SELF = 444, 446  # the same numbers on every machine
_FILE_RIGHTS = {1: 13, 2: 14, 3: 15, 4: 15}
"""How many bits of rights over files each version of Landlock knows; 16 from version 5 on."""

_LOAD, _EQUAL, _ANY_BIT, _RETURN = 0x20, 0x15, 0x45, 0x06  # BPF: ld abs, jeq, jset, ret
_KILL, _REFUSE, _ALLOW = 0x80000000, 0x00050001, 0x7FFF0000  # the process; EPERM; go on
_CALL, _ARCH, _THIRD = 0, 4, 32  # offsets in `struct seccomp_data`; the low word of an argument on little-endian
_PROT_EXEC = 4

_NAMES = (
    *("read", "write", "munmap", "brk", "mremap", "madvise", "futex", "exit", "exit_group", "fstat", "lseek"),
    *("rt_sigaction", "rt_sigprocmask", "rt_sigreturn", "sigaltstack", "restart_syscall", "sched_yield"),
    *("clock_gettime", "gettimeofday", "getrandom", "getpid", "setitimer"),
)
_NUMBERS = {
    "x86_64": (0, 1, 11, 12, 25, 28, 202, 60, 231, 5, 8, 13, 14, 15, 131, 219, 24, 228, 96, 318, 39, 38),
    "aarch64": (63, 64, 215, 214, 216, 233, 98, 93, 94, 80, 62, 134, 135, 139, 132, 128, 124, 113, 169, 278, 172, 103),
}
"""The calls of `_NAMES`, in that order."""
_MAPPING = {"x86_64": (9, 10), "aarch64": (222, 226)}
"""`mmap` and `mprotect`, which may not make memory executable."""
_AUDIT = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}


def lock(*, cpu_seconds: int = CPU_SECONDS) -> list[str]:
    """Give everything up; the measures that are in force, such as `Landlock 7`. Never raises: an old kernel has fewer.

    Modules must be loaded before. Memory is limited to `MEMORY_BYTES`, processor time to `cpu_seconds`.
    """
    held: list[str] = []
    linux = sys.platform == "linux" and sys.byteorder == "little"
    if linux and _libc().prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0:
        if version := _landlock():
            held.append(f"Landlock {version}")
        held += _limits(cpu_seconds)
        if _seccomp():
            held.append("seccomp")
        return held
    return held + _limits(cpu_seconds)


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _landlock() -> int:
    """Forbid all files, and with newer kernels TCP and signals; the version in force, 0 without it."""
    call = _libc().syscall
    version = call(_CREATE_RULESET, None, ctypes.c_size_t(0), 1)
    if version < 1:
        return 0
    files = (1 << _FILE_RIGHTS.get(version, 16)) - 1
    words = [files, *([0b11] if version >= 4 else []), *([0b11] if version >= 6 else [])]
    rules = (ctypes.c_uint64 * len(words))(*words)
    ruleset = call(_CREATE_RULESET, rules, ctypes.c_size_t(ctypes.sizeof(rules)), 0)
    if ruleset < 0:
        return 0
    restricted = call(_RESTRICT_SELF, ruleset, 0) == 0
    os.close(ruleset)
    return version if restricted else 0


def _limits(cpu_seconds: int = CPU_SECONDS) -> list[str]:
    if resource is None:
        return []
    wanted = {"CORE": 0, "AS": MEMORY_BYTES, "CPU": cpu_seconds, "FSIZE": 0, "NPROC": 0, "NOFILE": 0}
    held = []
    for name, most in wanted.items():
        try:
            resource.setrlimit(getattr(resource, f"RLIMIT_{name}"), (most, most))
            held.append(name.lower())
        except (AttributeError, ValueError, OSError):  # macOS refuses some
            continue
    return [f"limits ({', '.join(held)})"] if held else []


def _seccomp() -> bool:
    machine = platform.machine()
    if machine not in _AUDIT:
        return False
    program = b"".join(_filter(machine))
    code = ctypes.create_string_buffer(program, len(program))

    class Program(ctypes.Structure):
        _fields_ = (("length", ctypes.c_ushort), ("code", ctypes.c_void_p))

    filtered = Program(len(program) // 8, ctypes.addressof(code))
    return bool(_libc().prctl(_PR_SET_SECCOMP, _MODE_FILTER, ctypes.byref(filtered), 0, 0) == 0)


def _filter(machine: str) -> Iterator[bytes]:
    """BPF instructions: another architecture's calls kill, those of `_NAMES` pass, the rest are refused."""
    yield _step(_LOAD, _ARCH)
    yield _step(_EQUAL, _AUDIT[machine], yes=1)
    yield _step(_RETURN, _KILL)
    yield _step(_LOAD, _CALL)
    for number in _NUMBERS[machine]:
        yield _step(_EQUAL, number, no=1)
        yield _step(_RETURN, _ALLOW)
    for number in _MAPPING[machine]:
        yield _step(_EQUAL, number, no=4)
        yield _step(_LOAD, _THIRD)
        yield _step(_ANY_BIT, _PROT_EXEC, yes=1)
        yield _step(_RETURN, _ALLOW)
        yield _step(_RETURN, _REFUSE)
    yield _step(_RETURN, _REFUSE)


def _step(code: int, value: int, *, yes: int = 0, no: int = 0) -> bytes:
    """One `struct sock_filter`: `yes` and `no` are how many instructions a comparison skips."""
    return struct.pack("=HBBI", code, yes, no, value)
