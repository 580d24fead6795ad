"""What is said on standard error while a model is found, made and opened."""

from contextlib import AbstractContextManager

from localinfer.cli.output import note
from localinfer.cli.progress import Progress
from localinfer.events import OnProgress, Speed
from localinfer.loading.tell import Tell


class Terminal(Tell):
    """Notes and progress on standard error; with `quiet` warnings alone. `json`: progress as lines of JSON."""

    def __init__(self, quiet: bool, *, json: bool = False) -> None:
        super().__init__()
        self._quiet, self._json = quiet, json
        self._line = Progress(quiet=True)

    def note(self, text: str) -> None:
        if not self._quiet:
            self.warn(text)

    def warn(self, text: str) -> None:
        self._line.clear()
        note(text)

    def speed(self, speed: Speed) -> None:
        self._line.speed = speed

    def progress(self, *, long: bool = False, in_bytes: bool = False) -> AbstractContextManager[OnProgress]:
        self._line = Progress(quiet=self._quiet, long=long, in_bytes=in_bytes, json=self._json)
        return self._line
