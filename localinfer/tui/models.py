"""Which model answers in which pane: opened first, and taken only when it is there."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from localinfer.errors import DoesNotFit, LocalInferError
from localinfer.tui.engines import Engines, Slot
from localinfer.tui.widgets.pane import ChatPane

if TYPE_CHECKING:
    from localinfer.engine.protocol import Engine


class Models:
    """Gives panes the engines of their chats' models. `load(model)` opens one in a thread, and says what came of it;
    `installed()` names the models that are on this machine."""

    def __init__(
        self,
        engines: Engines,
        panes: Callable[[], Sequence[ChatPane]],
        load: Callable[[str], object],
        installed: Callable[[], list[str]],
    ) -> None:
        self._engines = engines
        self._panes = panes
        self._load = load
        self._installed = installed
        self._coming: dict[int, str] = {}
        self._alone: set[int] = set()  # panes that gave up their model so that the new one has its memory

    def want(self, pane: ChatPane) -> None:
        """Give `pane` the engine of its chat's model, which is opened if it is not there."""
        self.forget(pane)
        model = pane.session.model
        slot, fresh = self._engines.want(model, pane.number)
        pane.show_slot(slot)
        if fresh:
            self._load(model)

    def swap(self, pane: ChatPane, model: str) -> None:
        """Let `model` answer in `pane` as soon as it is there; if it cannot be opened, all stays as it was."""
        now = pane.slot
        if model == pane.session.model and now is not None and now.error is None:
            pane.say(f"{model} answers here already")
            self._await_no_other(pane, now)
            return
        if pane.number in self._coming:
            self._engines.leave(pane.number, but=pane.session.model)
        slot, fresh = self._engines.want(model, pane.number, beside=True)
        self._coming[pane.number] = model
        _expect(pane, model, slot)
        if fresh:
            self._load(model)
        elif slot.engine is not None:
            self._take(pane, slot)

    def _await_no_other(self, pane: ChatPane, now: Slot) -> None:
        """The pane keeps its model, whatever was on its way."""
        if pane.number not in self._coming:
            return
        pane.say(f"{pane.session.model} stays, instead of {self._coming[pane.number]}")
        self.forget(pane)
        self._engines.leave(pane.number, but=pane.session.model)
        pane.coming = ""
        pane.set_status(phase="ready", stage="", percent=None)
        pane.show_slot(now)

    def forget(self, pane: ChatPane) -> None:
        """No other model is to come to `pane`."""
        self._coming.pop(pane.number, None)
        self._alone.discard(pane.number)

    def moved(self, model: str, stage: str, percent: int | None) -> None:
        """Opening moved on."""
        self._engines.moved(model, stage, percent)
        for pane, slot in self._waiting(model):
            _expect(pane, model, slot)
        self._show(model)

    def opened(self, model: str, engine: "Engine") -> None:
        """The engine is here."""
        slot = self._engines.opened(model, engine)
        if slot is not None:
            for pane, _ in self._waiting(model):
                self._take(pane, slot)
        self._show(model)

    def failed(self, model: str, error: LocalInferError) -> None:
        """It could not be opened."""
        waiting = self._waiting(model)
        self._engines.failed(model, error)
        for pane, _ in waiting:
            if isinstance(error, DoesNotFit) and self._make_room(pane, model):
                continue
            self._refuse(pane, model, error)
        self._show(model)

    def _take(self, pane: ChatPane, slot: Slot) -> None:
        model = self._coming[pane.number]
        self.forget(pane)
        self._engines.leave(pane.number, but=model)
        assert slot.engine is not None
        pane.coming, pane.slot = "", slot
        pane.session.use_model(model, slot.engine)
        pane.message.clear()
        pane.show_engine(slot.engine)

    def _refuse(self, pane: ChatPane, model: str, error: LocalInferError) -> None:
        """The pane stays with what it had, which is opened again if it was closed to make room."""
        alone = pane.number in self._alone
        self.forget(pane)
        self._engines.leave(pane.number, but=pane.session.model)
        pane.coming = ""
        pane.give_back_waiting()
        pane.message.tell(error, f"{pane.session.model} stays · {self._offer()}")
        failed = pane.slot is not None and pane.slot.error is not None
        pane.set_status(phase="failed" if failed else "ready", stage="", percent=None)
        if alone:
            self.want(pane)
        elif pane.slot is not None and pane.slot.error is None:
            pane.show_slot(pane.slot)

    def _make_room(self, pane: ChatPane, model: str) -> bool:
        """Close the engine that answers in `pane`, if it is the only one to use it, and try once more. False if that
        was done already, or there is nothing to close."""
        old = pane.session.model
        if pane.number in self._alone or pane.session.chat is None or self._engines.is_shared(old):
            return False
        self._alone.add(pane.number)
        pane.slot = None
        pane.session.detach()
        slot, fresh = self._engines.want(model, pane.number)
        _expect(pane, model, slot)
        if fresh:
            self._load(model)
        return True

    def _offer(self) -> str:
        """The models that could be taken, in words."""
        names = self._installed()
        return f"here: {', '.join(names[:8])}{' …' * (len(names) > 8)}" if names else "no model is here"

    def _waiting(self, model: str) -> list[tuple[ChatPane, Slot]]:
        """The panes to which this model is to come."""
        slot = self._engines.slot(model)
        return [(pane, slot) for pane in self._panes() if self._coming.get(pane.number) == model and slot is not None]

    def _show(self, model: str) -> None:
        for pane in self._panes():
            if pane.session.model == model and pane.slot is not None and pane.number not in self._coming:
                pane.show_slot(pane.slot)
                if pane.slot.error is not None:
                    self._offer_in(pane, pane.slot.error)

    def _offer_in(self, pane: ChatPane, error: LocalInferError) -> None:
        """Its model cannot be opened: others are offered, in the list of what can be typed if there is a chat."""
        pane.offer = self._offer()
        pane.message.tell(error, pane.offer)
        if self._installed() and not pane.box.text and pane.session.turns:
            pane.box.replace_all("/model ")


def _expect(pane: ChatPane, model: str, slot: Slot) -> None:
    """Another model is on its way; what is asked until then waits for it."""
    if model != pane.coming:
        pane.say(f"{model} is being loaded; it answers here as soon as it is there")
    pane.coming = model
    pane.set_status(phase="loading", stage=slot.stage, percent=slot.percent)
