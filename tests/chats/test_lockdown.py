"""Python let loose in the process that renders templates, as if it had got out of Jinja's sandbox: it finds nothing."""

import os
import platform
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from jinja2.filters import FILTERS

from localinfer.chats import lockdown, sandbox_child
from localinfer.chats.sandbox import Sandbox
from localinfer.errors import Corrupt

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="Landlock and seccomp are Linux's")

PYTHON = """
import ctypes, json, mmap, os, resource, shutil, signal, socket, subprocess, threading
from localinfer.chats import lockdown, sandbox_child
libc = ctypes.CDLL(None, use_errno=True)
def call(*numbers):
    if (answer := libc.syscall(*numbers)) < 0:
        raise OSError(ctypes.get_errno(), "")
    return answer
def run(line):
    request = json.loads(line)
    scope = dict(request["data"], **globals())
    try:
        exec(request["template"], scope)
    except BaseException as error:
        return {"error": type(error).__name__}
    return {"text": str(scope.get("result", "done"))}
"""
"""What a test sends runs as Python, once the process is locked in by the code that locks in every other."""


class Loose(Sandbox):
    command = PYTHON + "sandbox_child.serve(run)"


class Unlocked(Sandbox):
    command = PYTHON + "sandbox_child.lock = lambda: []\nsandbox_child.serve(run)"


ATTEMPTS = {
    "read a file": "result = open('/etc/hostname').read()",
    "read a file by system call": "call(257, -100, b'/etc/hostname', 0)",
    "write a file": "open(f'{folder}/new', 'w').write('x')",
    "write to a file that is there": "open(f'{folder}/kept', 'a').write('x')",
    "list a folder": "os.listdir('/')",
    "see whether a file is there": "os.stat('/etc/hostname')",
    "read a link": "os.readlink('/proc/self/exe')",
    "make a folder": "os.mkdir(f'{folder}/sub')",
    "delete a file": "os.unlink(f'{folder}/kept')",
    "rename a file": "os.rename(f'{folder}/kept', f'{folder}/other')",
    "cut a file": "os.truncate(f'{folder}/kept', 0)",
    "change rights": "os.chmod(f'{folder}/kept', 0o777)",
    "make a link": "os.symlink('/', f'{folder}/link')",
    "make a pipe in a folder": "os.mkfifo(f'{folder}/fifo')",
    "change the folder": "os.chdir('/')",
    "a socket": "socket.socket()",
    "a datagram socket": "socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)",
    "a local socket": "socket.socket(socket.AF_UNIX)",
    "a pair of sockets": "socket.socketpair()",
    "a netlink socket": "socket.socket(socket.AF_NETLINK, socket.SOCK_RAW)",
    "fork": "pid = os.fork()\nif pid == 0: os._exit(0)\nos.waitpid(pid, 0)",
    "a thread": "thread = threading.Thread(target=bool); thread.start(); thread.join()",
    "run a program": "subprocess.run(['/bin/true'], check=True)",
    "spawn a program": "os.waitpid(os.posix_spawn('/bin/true', ['true'], {}), 0)",
    "a pipe": "os.pipe()",
    "a file in memory": "os.memfd_create('x')",
    "memory that can be executed": "mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)",
    "be traced": "if libc.ptrace(0, 0, 0, 0) < 0: raise OSError",
    "signal another process": "os.kill(parent, 0)",
    "limits of another process": "resource.prlimit(parent, resource.RLIMIT_CORE)",
    "memory of another process": "call(310, parent, 0, 0, 0, 0, 0)",
    "a ring of system calls": "call(425, 1, ctypes.create_string_buffer(120))",
    "who else is there": "os.getpgid(parent)",
    "names of the machine": "os.uname()",
    "more rights for itself": "resource.setrlimit(resource.RLIMIT_CORE, (0, 0))",
    "a say in how it is held": "if libc.prctl(4, 0, 0, 0, 0) < 0: raise OSError",
}
MACHINE_SPECIFIC = {"read a file by system call", "memory of another process", "a ring of system calls"}


@pytest.fixture(scope="module")
def loose() -> Iterator[Sandbox]:
    with Loose(seconds=10) as box:
        yield box


def attempt(box: Sandbox, name: str, folder: Path) -> bool:
    """Whether it works."""
    if name in MACHINE_SPECIFIC and platform.machine() != "x86_64":
        pytest.skip("numbers of x86-64's system calls")
    kept = folder / "kept"
    kept.write_text("kept")
    try:
        box.render(ATTEMPTS[name], {"folder": str(folder), "parent": os.getppid()})
    except Corrupt:
        assert [path.name for path in folder.iterdir()] == ["kept"]
        assert kept.read_text() == "kept"
        return False
    return True


@pytest.mark.parametrize("name", ATTEMPTS)
def test_an_escape_finds_nothing(name: str, loose: Sandbox, tmp_path: Path) -> None:
    if "seccomp" not in loose.start():
        pytest.skip("this kernel has no seccomp filters")
    assert not attempt(loose, name, tmp_path)
    assert loose.render("result = 6 * 7", {}) == "42"  # it lives on


@pytest.mark.parametrize("name", ATTEMPTS)
def test_without_the_lock_each_works(name: str, tmp_path: Path) -> None:
    """So that the attempts above fail for the right reason. One process each, for some leave their mark on it."""
    with Unlocked(seconds=10) as box:
        assert attempt(box, name, tmp_path) or name == "a ring of system calls"  # which may be off for everybody


@pytest.mark.parametrize(
    ("measure", "stopped"),
    [
        ("lockdown._landlock()", {"read a file", "write a file", "list a folder", "delete a file", "make a folder"}),
        ("lockdown._limits()", {"read a file", "write a file", "a socket", "a pipe", "a file in memory"}),
        ("lockdown._seccomp()", set(ATTEMPTS)),
    ],
)
def test_each_measure_holds_by_itself(measure: str, stopped: set[str], tmp_path: Path) -> None:
    """On a kernel that has only one of them."""

    class Alone(Sandbox):
        command = (
            f"{PYTHON}libc.prctl(38, 1, 0, 0, 0)\n"
            f"sandbox_child.lock = lambda: [str({measure})]\nsandbox_child.serve(run)"
        )

    with Alone(seconds=10) as box:
        (held,) = box.start()
        if held in ("0", "False"):
            pytest.skip("not in this kernel")
        for name in sorted(stopped):
            assert not attempt(box, name, tmp_path), name


def test_memory_has_a_limit(loose: Sandbox) -> None:
    with pytest.raises(Corrupt, match="MemoryError"):
        loose.render(f"x = bytearray({lockdown.MEMORY_BYTES})", {})


def test_the_child_holds_three_pipes_only() -> None:
    """Nothing that we have open is handed on."""
    with Sandbox() as box:
        box.start()
        assert box._child is not None
        assert sorted(path.name for path in Path(f"/proc/{box._child.pid}/fd").iterdir()) == ["0", "1", "2"]


def test_two_templates_have_two_processes() -> None:
    """What gets out of one model's template sees no conversation with another."""
    from localinfer.chats import sandbox

    sandbox.close()
    assert sandbox.render("a", {}) + sandbox.render("b", {}) + sandbox.render("a", {}) == "aba"
    children = [box._child for box in sandbox._shared.values()]
    assert len({child.pid for child in children if child is not None}) == 2
    for number in range(10):
        sandbox.render(f"t{number}", {})
    assert len(sandbox._shared) == sandbox.MOST_IDLE
    assert all(child is not None and child.poll() is not None for child in children)


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_system_calls_have_their_numbers(machine: str) -> None:
    places = {
        "x86_64": "/usr/include/x86_64-linux-gnu/asm/unistd_64.h",
        "aarch64": "/usr/include/asm-generic/unistd.h",  # ARM64's are the common ones
    }
    header = Path(places[machine])
    if not header.exists():
        pytest.skip("the kernel's headers are not installed")
    numbers = dict(re.findall(r"#define __NR(?:3264)?_(\w+)\s+(\d+)", header.read_text()))
    wanted = zip(lockdown._NAMES, lockdown._NUMBERS[machine], strict=True)
    mapping = zip(("mmap", "mprotect"), lockdown._MAPPING[machine], strict=True)
    for name, number in (*wanted, *mapping):
        assert numbers[name] == str(number), name


FILTER_CALLS = {
    "attr": "m | attr('x') is undefined",
    "batch": "l | batch(2) | list",
    "center": "s | center(9)",
    "format": "'%s' | format(1)",
    "groupby": "d | groupby('a') | list",
    "indent": "s | indent(2)",
    "map": "l | map('string') | list",
    "random": "[1] | random",
    "reject": "l | reject('odd') | list",
    "rejectattr": "d | rejectattr('a') | list",
    "replace": "s | replace('a', 'b')",
    "round": "1.5 | round",
    "select": "l | select('odd') | list",
    "selectattr": "d | selectattr('a') | list",
    "slice": "l | slice(2) | list",
    "sum": "l | sum",
    "truncate": "s | truncate(3)",
    "urlize": "'see http://example.org' | urlize",
    "xmlattr": "{'a': 1} | xmlattr",
    "dictsort": "{'a': 1} | dictsort",
    "items": "{'a': 1} | items | list",
    "abs": "-1 | abs",
    "filesizeformat": "1000000 | filesizeformat",
    "float": "'1.5' | float",
    "int": "'15' | int",
    "tojson": "d | tojson(indent=2, sort_keys=true, separators=(',', ':'))",
}


def test_every_filter_works_without_files() -> None:
    """Jinja loads some parts late, when there is nothing to load from any more."""
    data = {"l": [1, 2, 3], "s": "abc abc", "d": [{"a": 1}, {"a": 2}], "m": {}}
    with Sandbox() as box:
        for name in sorted(FILTERS):
            expression = FILTER_CALLS.get(name, f"s | {name}")
            template = "{% set x = " + expression + " %}{{ x if x is string or x is number else x | list }}"
            expected = sandbox_child.compiled(template).render(data)
            if name != "random":
                assert box.render(template, data) == expected, name
