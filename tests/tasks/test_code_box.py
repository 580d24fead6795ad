"""What hostile code can reach in its box: nothing. Each attack runs in a real one."""

import json
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from localinfer.errors import NotSupported
from localinfer.tasks import code_box
from localinfer.tasks.code import passes
from localinfer.tasks.code_box import require_box, run
from localinfer.tasks.problems import problems

GOOD = "def double_all(numbers):\n    return [2 * n for n in numbers]"


def gives(body: str) -> object:
    """What a function with this body gives."""
    return run(f"def f():\n    {body}", "f", [[]]).get("results", "nothing")


def test_right_and_wrong_answers() -> None:
    problem = problems()[0]
    assert passes(problem, f"```python\n{GOOD}\n```")
    assert passes(problem, GOOD)
    assert not passes(problem, GOOD.replace("2 *", "3 *"))
    assert not passes(problem, "I cannot do that.")
    assert not passes(problem, "")


@pytest.mark.parametrize(
    "body",
    [
        "return open('/etc/passwd').read()",
        "import os; return os.listdir('/')",
        "import os; return os.fork()",
        "import os; os.execv('/bin/true', ['true'])",
        "import os; return os.kill(os.getppid(), 0)",
        "import _socket; return _socket.socket().fileno()",
        "import socket; return 1",
        "import subprocess; return subprocess.run(['true']).returncode",
        "import ctypes; return ctypes.CDLL(None).socket(2, 1, 0) + 1 or [][0]",
        "import os; return os.unlink('x')",
        "import os; os.mkdir('x'); return 1",
        "import threading; return threading.Thread(target=print).start()",
        "import os; return os.read(0, 1)",
        "return input()",
        "return bytearray(1 << 30) and 1",
        "return 'x' * (1 << 22)",
        "return {1, 2}",
        "raise SystemExit(0)",
        "raise KeyboardInterrupt",
        "import os; os.abort()",
        "f = lambda: f(); return f()",
        "return eval('(' * 100000)",
    ],
)
def test_an_attack_gives_nothing(body: str) -> None:
    assert gives(body) == "nothing"


def test_the_box_is_empty_and_tells_nothing() -> None:
    assert gives("import sys; return [len(sys.path), sys.flags.isolated]") == [[0, 1]]
    assert gives("import os; return sorted(os.environ)") in ([[]], [["LC_CTYPE"]], [["LD_LIBRARY_PATH"]])
    assert gives("import sys; sys.stdout.write('[1]'); print(2); return 3") == [3]


def test_who_writes_by_himself_must_still_know_the_answer() -> None:
    """What calls should give is not in the process, and a second answer makes both worthless."""
    forged = "import os\nos.write(1, b'{\"results\": [[0]]}')\n"
    assert not passes(problems()[0], f"```python\n{forged}{GOOD}\n```")
    assert not passes(problems()[0], f"```python\n{forged}os._exit(0)\n```")


def test_what_does_not_end_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(code_box, "CPU_SECONDS", 1)
    begun = time.monotonic()
    assert gives("import signal\n    signal.setitimer(signal.ITIMER_PROF, 0)\n    while True: pass") == "nothing"
    assert time.monotonic() - begun < 20
    monkeypatch.setattr(code_box, "SECONDS", 1.0)
    endless = "import os\nwhile True:\n    os.write(1, b'x' * 65536)"
    assert run(endless, "f", [[]]) == {}
    asleep = "import queue\nqueue.SimpleQueue().get()"
    assert run(asleep, "f", [[]]) == {}


def test_no_process_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither a child nor its folder."""
    started = list[subprocess.Popen[bytes]]()
    real = subprocess.Popen

    def noted(*words: Any, **how: Any) -> "subprocess.Popen[bytes]":
        started.append(real(*words, **how))
        folders.append(Path(how["cwd"]))
        return started[-1]

    folders = list[Path]()
    monkeypatch.setattr(subprocess, "Popen", noted)
    assert gives("return 1") == [1]
    assert [child.returncode is not None for child in started] == [True]
    assert not folders[0].exists()


def test_without_a_filter_nothing_is_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The child looks at what it has given up, and the parent names the task."""
    child = tmp_path / "localinfer" / "tasks" / "code_child.py"
    child.parent.mkdir(parents=True)
    child.write_text(code_box.CHILD.read_text())
    (tmp_path / "localinfer" / "chats").mkdir()
    (tmp_path / "localinfer" / "chats" / "lockdown.py").write_text(
        "def lock(*, cpu_seconds):\n    return ['limits (as, cpu)']\n"
    )
    monkeypatch.setattr(code_box, "CHILD", child)
    assert run(GOOD, "double_all", [[[1]]]) == {"held": ["limits (as, cpu)"]}
    with pytest.raises(NotSupported, match=r"`code` is not run here.*this system gives limits \(as, cpu\)"):
        require_box()


def test_the_request_may_be_long() -> None:
    assert run(f"# {'x' * 200_000}\n{GOOD}", "double_all", [[[1]]])["results"] == json.loads("[[2]]")
