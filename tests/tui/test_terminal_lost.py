"""A terminal that goes away while the app draws takes the app with it."""

import fcntl
import os
import pty
import signal
import struct
import sys
import termios
import time
from pathlib import Path

import pytest

from localinfer.tui.terminal import Lasting

F8 = b"\x1b[19~"


class Gone:
    """A file whose terminal was hung up."""

    def __init__(self) -> None:
        self.tried = 0

    def write(self, text: str) -> int:
        self.tried += 1
        raise OSError(5, "Input/output error")

    def flush(self) -> None:
        self.tried += 1
        raise ValueError("I/O operation on closed file")

    def fileno(self) -> int:
        return 2

    def isatty(self) -> bool:
        return True


def test_the_first_write_that_fails_is_told_and_no_other_is_tried() -> None:
    gone, told = Gone(), []
    file = Lasting(gone, lambda: told.append(1))  # type: ignore[arg-type]
    assert [file.write("abc"), file.write("")] == [3, 0]
    file.flush()
    assert (gone.tried, told, file.fileno(), file.isatty()) == (1, [1], 2, True)


UNTOLD = """
import asyncio, signal
asyncio.unix_events._UnixSelectorEventLoop.add_signal_handler = lambda *_: None
signal.signal(signal.SIGHUP, signal.SIG_IGN)
"""


@pytest.mark.parametrize("before", ["", UNTOLD], ids=["told", "untold"])
def test_the_app_ends_with_its_terminal(before: str, tmp_path: Path) -> None:
    """While four answers are written; also where no signal tells it, as below `nohup`."""
    program = f"{before}\nimport tests.tui.writing_app as app\napp.main()"
    child, terminal = pty.fork()
    if not child:
        os.environ["TERM"] = "xterm-256color"
        os.execv(sys.executable, [sys.executable, "-c", program, str(tmp_path / "chats.db")])
    try:
        fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 140, 0, 0))
        _read_until(terminal, b"all keys")
        os.write(terminal, F8 + b"go on\r")
        _read_until(terminal, b"decode", more=40_000)
    finally:
        os.close(terminal)
    assert _ends(child)


@pytest.mark.skipif(sys.platform != "linux", reason="threads are counted in /proc")
def test_a_pause_and_what_continues_without_one(tmp_path: Path) -> None:
    """SIGCONT alone changes nothing; after SIGTSTP it brings the screen back."""
    child, terminal = pty.fork()
    if not child:
        os.environ["TERM"] = "xterm-256color"
        os.execv(sys.executable, [sys.executable, "-m", "tests.tui.writing_app", str(tmp_path / "chats.db")])
    try:
        fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 140, 0, 0))
        _read_until(terminal, b"ready")
        threads = _threads(child)
        for _ in range(5):
            os.kill(child, signal.SIGCONT)
            time.sleep(0.1)
        assert _threads(child) < threads + 5
        os.kill(child, signal.SIGTSTP)
        _read_until(terminal, b"\x1b[?1049l")
        assert os.WIFSTOPPED(os.waitpid(child, os.WUNTRACED)[1])
        os.kill(child, signal.SIGCONT)
        _read_until(terminal, b"all keys")
        os.write(terminal, b"\x11")
        _read_until(terminal, b"\x1b[?1049l")
    finally:
        os.close(terminal)
    assert _ends(child)


def _threads(process: int) -> int:
    return len(list(Path(f"/proc/{process}/task").iterdir()))


def _read_until(terminal: int, words: bytes, more: int = 0) -> None:
    """Read until these words were drawn, and so many bytes more."""
    read, until = b"", time.monotonic() + 60
    while words not in read and time.monotonic() < until:
        read += os.read(terminal, 65536)
    assert words in read
    while more > 0 and time.monotonic() < until:
        more -= len(os.read(terminal, 65536))
    assert more <= 0


def _ends(child: int) -> bool:
    until = time.monotonic() + 60
    while time.monotonic() < until:
        if os.waitpid(child, os.WNOHANG)[0]:
            return True
        time.sleep(0.05)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return False
