"""What is said while a model is found, made and opened. Whoever asks for it says it in their own way."""

from contextlib import AbstractContextManager, nullcontext

from localinfer.events import OnProgress, Speed


def _nothing(_phase: str, _done: int, _total: int) -> None:
    pass


class Tell:
    """Says nothing but how far a job is, to `on_progress`."""

    def __init__(self, on_progress: OnProgress | None = None) -> None:
        self._on_progress = on_progress or _nothing

    def note(self, text: str) -> None:
        """One line that a person may like to read."""

    def warn(self, text: str) -> None:
        """One line that a person must read."""

    def speed(self, speed: Speed) -> None:
        """How fast the job goes whose progress is told next."""

    def progress(self, *, long: bool = False, in_bytes: bool = False) -> AbstractContextManager[OnProgress]:
        """What tells how far a job is while it is entered; a `long` job says more than a short one."""
        return nullcontext(self._on_progress)
