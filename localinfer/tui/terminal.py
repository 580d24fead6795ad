"""The terminal of the app, which may go away while the app draws. Not for Windows."""

import os
import signal
import termios
import tty
from collections.abc import Callable
from typing import IO, Any

from textual._xterm_parser import XTermParser
from textual.app import App
from textual.drivers.linux_driver import LinuxDriver

GONE = 129
"""The exit code of a program that ends because its terminal hung up."""


class Lasting:
    """A text file whose writes never fail. The first that cannot be done calls `lost`, and the rest are dropped.

    Textual writes in a thread, from a queue of a few pieces. Were that thread to end with an error, the app would wait
    for room in the queue for ever, and could not end either.
    """

    def __init__(self, file: IO[str], lost: Callable[[], object]) -> None:
        self._file, self._lost, self._is_lost = file, lost, False

    def write(self, text: str) -> int:
        """As of any text file."""
        self._try(lambda: self._file.write(text))
        return len(text)

    def flush(self) -> None:
        """As of any text file."""
        self._try(self._file.flush)

    def fileno(self) -> int:
        """As of any text file."""
        return self._file.fileno()

    def isatty(self) -> bool:
        """As of any text file."""
        return self._file.isatty()

    def _try(self, write: Callable[[], object]) -> None:
        if self._is_lost:
            return
        try:
            write()
        except (OSError, ValueError):  # hung up, or closed
            self._is_lost = True
            self._lost()


class LastingDriver(LinuxDriver):
    """Textual's own, on a file that lasts. The app ends when its terminal is gone.

    A terminal that hangs up sends SIGCONT too. By itself Textual takes this for the end of a pause, and begins to read
    keys once more: in a second thread, or after the app has ended, and then the process never would.
    """

    def __init__(self, app: App[Any], **settings: Any) -> None:
        super().__init__(app, **settings)
        self._file: Any = Lasting(self._file, self._lose)
        self._begun = False

    def start_application_mode(self) -> None:
        """Textual's own; the first time, after the keys that were pressed while the program started."""
        before = None if self._begun else self._take_early()
        self._begun = True
        super().start_application_mode()  # type: ignore[no-untyped-call]
        self.attrs_before = before or self.attrs_before

    def _take_early(self) -> list[Any] | None:
        """Pass on what was typed so far; the terminal gave it out line by line, and Enter as the end of a line.

        Returns the settings of the terminal before; None where it has none.
        """
        try:
            before, now = termios.tcgetattr(self.fileno), termios.tcgetattr(self.fileno)
            now[tty.LFLAG], now[tty.IFLAG] = self._patch_lflag(now[tty.LFLAG]), self._patch_iflag(now[tty.IFLAG])
            now[tty.CC][termios.VMIN] = now[tty.CC][termios.VTIME] = 0  # a read waits for nothing
            termios.tcsetattr(self.fileno, termios.TCSANOW, now)
            typed = b""
            while piece := os.read(self.fileno, 4096):
                typed += piece
        except (termios.error, OSError):
            return None
        for message in XTermParser().feed(typed.decode(errors="replace").replace("\n", "\r")):
            self.process_message(message)
        return before

    def _sigtstp_application(self, *_: object) -> None:
        if self._key_thread is not None and self._key_thread.is_alive():
            super()._sigtstp_application()
        else:
            os.kill(os.getpid(), signal.SIGSTOP)  # the screen was left already

    def _sigcont_application(self, *_: object) -> None:
        if self._must_signal_resume:  # set where the screen was left for a pause
            super()._sigcont_application()

    def _lose(self) -> None:
        """Called from the thread that writes."""
        self._loop.call_soon_threadsafe(self._app.exit, None, GONE)
