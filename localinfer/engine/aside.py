"""One call in a thread of its own, while the caller does something that leaves Python free, such as packing weights."""

from collections.abc import Callable
from threading import Thread
from typing import Generic, TypeVar

T = TypeVar("T")


class Aside(Generic[T]):
    """`with Aside(call) as one: …; one.result()`. The block ends when the call has."""

    def __init__(self, call: Callable[[], T]) -> None:
        self._call = call
        self._found: list[T] = []
        self._error: BaseException | None = None
        self._thread = Thread(target=self._run, name="aside", daemon=True)

    def __enter__(self) -> "Aside[T]":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.join()

    def check(self) -> None:
        """Raise what the call has raised, if it has by now."""
        if self._error is not None:
            raise self._error

    def result(self) -> T:
        """What the call gives, once it does. Raises what it raises."""
        self._thread.join()
        self.check()
        return self._found[0]

    def _run(self) -> None:
        try:
            self._found.append(self._call())
        except BaseException as error:  # told to who asks
            self._error = error
