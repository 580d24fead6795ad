"""The engines of all panes: one a model, opened in a thread when the first pane wants it, closed with the last."""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from textual.message import Message

from localinfer.errors import LocalInferError
from localinfer.tui.workers import LoadProgress, load

if TYPE_CHECKING:
    from localinfer.engine.protocol import Engine

OpenModel = Callable[[str, LoadProgress], "Engine"]
"""`open_model(ref, progress)`: an engine for the model of this name."""


@dataclass
class Slot:
    """One model: on its way, here, or impossible."""

    stage: str = ""
    percent: int | None = None
    engine: "Engine | None" = None
    error: LocalInferError | None = None
    wanted_by: set[int] = field(default_factory=set)
    """The panes, by number."""


class Engines:
    """Slots by the model's name. Only the app's own thread may call it, except `load` and `dispose`.

    An engine that nobody wants any more is given to `to_thread`, which calls `dispose` with it in another thread: to
    close one may take a step, and as long as the disk takes for what it has to keep.
    """

    def __init__(
        self, open_model: OpenModel, post: Callable[[Message], bool], to_thread: Callable[["Engine"], object]
    ) -> None:
        self._open_model = open_model
        self._post = post
        self._to_thread = to_thread
        self._closing = 0
        self._closed = threading.Condition()
        self._slots: dict[str, Slot] = {}
        self._leaving = False

    def want(self, model: str, pane: int, *, beside: bool = False) -> tuple[Slot, bool]:
        """The slot of `model` for this pane, and whether `load` must be called for it. One that failed is new.
        `beside`: the pane goes on to want what it wanted until now."""
        if not beside:
            self.leave(pane)
        slot = self._slots.get(model)
        fresh = slot is None or slot.error is not None
        if slot is None or fresh:
            slot = self._slots[model] = Slot()
        slot.wanted_by.add(pane)
        return slot, fresh

    def leave(self, pane: int, *, but: str | None = None) -> None:
        """This pane wants no model any more, or none but this one; an engine that nobody wants is closed."""
        for model, slot in list(self._slots.items()):
            if model == but:
                continue
            slot.wanted_by.discard(pane)
            if not slot.wanted_by and (slot.engine is not None or slot.error is not None):
                del self._slots[model]
                if slot.engine is not None:
                    self._drop(slot.engine)

    def load(self, model: str) -> None:
        """Open the engine; for a thread. It tells by messages, see `workers.load`. What is being closed is waited for,
        since there may not be memory for both."""
        with self._closed:
            self._closed.wait_for(lambda: not self._closing)
        load(model, lambda progress: self._open_model(model, progress), self._post, lambda: self._leaving)

    def _drop(self, engine: "Engine") -> None:
        with self._closed:
            self._closing += 1
        self._to_thread(engine)

    def dispose(self, engine: "Engine") -> None:
        """Close an engine; for a thread."""
        try:
            engine.close()
        finally:
            with self._closed:
                self._closing -= 1
                self._closed.notify_all()

    def moved(self, model: str, stage: str, percent: int | None) -> None:
        """Opening moved on."""
        if slot := self._slots.get(model):
            slot.stage, slot.percent = stage, percent

    def opened(self, model: str, engine: "Engine") -> Slot | None:
        """The engine is here. If all who wanted it have left meanwhile, it is closed, and None given."""
        slot = self._slots.get(model)
        if slot is None or not slot.wanted_by:
            self._slots.pop(model, None)
            self._drop(engine)
            return None
        slot.engine = engine
        return slot

    def slot(self, model: str) -> Slot | None:
        """Its slot, if somebody wants it."""
        return self._slots.get(model)

    def is_shared(self, model: str) -> bool:
        """Do several panes want it?"""
        slot = self._slots.get(model)
        return slot is not None and len(slot.wanted_by) > 1

    def failed(self, model: str, error: LocalInferError) -> None:
        """It could not be opened."""
        if slot := self._slots.get(model):
            slot.error = error

    @property
    def open(self) -> "tuple[tuple[str, Engine], ...]":
        """The engines that are here, with their models' names."""
        return tuple((model, slot.engine) for model, slot in self._slots.items() if slot.engine is not None)

    def quit(self) -> None:
        """No loading goes on."""
        self._leaving = True

    def close(self) -> None:
        """Close all of them."""
        self.quit()
        for _, engine in self.open:
            engine.close()
        self._slots.clear()
