"""All panes, the engines they share, and the keys that move between them."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar

from textual import on, work
from textual.binding import BindingType
from textual.message import Message

from localinfer.chats.session import ChatSession
from localinfer.errors import LocalInferError, UsageError
from localinfer.tui import commands
from localinfer.tui.engines import Engines, OpenModel
from localinfer.tui.keys import BINDINGS
from localinfer.tui.messages import Loaded, LoadFailed, LoadMoved
from localinfer.tui.meter import Meter
from localinfer.tui.models import Models
from localinfer.tui.pacing import Pacing
from localinfer.tui.screen_saving import ScreenWriter
from localinfer.tui.screens.chats import Choice
from localinfer.tui.screens.details import DetailsScreen
from localinfer.tui.screens.panes import PaneScreen
from localinfer.tui.widgets.pane import ChatPane
from localinfer.tui.widgets.total import TotalLine
from localinfer.tui.widgets.welcome import Welcome

if TYPE_CHECKING:
    from localinfer.engine.protocol import Engine

FOLLOW_EVERY_S = 1.0
"""Seconds until what another process writes is read again: it saves as often."""

KEEP_EVERY_S = 2.0
"""Seconds of layout and typing that a kill may cost."""


class ChatScreen(PaneScreen):
    """Panes side by side. Threads load models and answer; they only post messages."""

    BINDINGS: ClassVar[list[BindingType]] = BINDINGS

    def __init__(
        self,
        sessions: Sequence[ChatSession],
        open_model: OpenModel,
        *,
        does: Mapping[str, commands.Command],
        clock: Callable[[], float],
        meter: Meter,
        models: Callable[[], list[str]],
        name_of: Callable[[str], str],
        tick_s: float | None,
        writer: ScreenWriter,
    ) -> None:
        """`does` are the commands by their names. `tick_s`: how often figures are looked at; None only when a prompt
        is sent or answered."""
        super().__init__()
        self._tick_s = tick_s
        self.models = models
        """The names of the models that are here."""
        self.name_of = name_of
        """The one name of a model that may be called by several: an engine a model."""
        self.engines = Engines(open_model, self.post_message, self.dispose)
        self._models = Models(self.engines, lambda: self.panes, self.load, models)
        self._does = does
        self._completion = commands.Completion(self, does)
        self._clock = clock
        self._numbers = 0
        self.restore([self.new_pane(session) for session in sessions], writer)
        self._broadcast = self._paint_due = False
        self._pacing = Pacing(clock)
        self._paints = 0
        self._painted: dict[int, int] = {}  # in which of them each pane was drawn last
        self._meter = meter

    def new_pane(self, session: ChatSession) -> ChatPane:
        self._numbers += 1
        return ChatPane(self._numbers, session, clock=self._clock, completion=self._completion, heard=self._hear)

    def _hear(self) -> None:
        """Some pane has something to show: now, or when it is time to draw again."""
        wait = 0.0 if self._tick_s is None else self._pacing.wait_s
        if not wait:
            self._paint()
        elif not self._paint_due:
            self._paint_due = True
            self.set_timer(wait, self._paint)

    def _paint(self) -> None:
        """Show what panes have to show: replies that end; then, as far as there is time, the pane that is looked at and
        the others in turn. With one pane at a time, each second turn is for the others."""
        self._paint_due = False
        waiting = [pane for pane in self.panes if pane.running.waits]
        waiting.sort(key=lambda pane: (not pane.running.ends, self._turn(pane)))
        self._pacing.drawn(len(waiting))
        count = max(sum(pane.running.ends for pane in waiting), self._pacing.together)
        if self._tick_s is None:
            count = len(waiting)
        for pane in waiting[:count]:
            self._painted[pane.number] = self._paints
            pane.paint()
        self._paints += 1
        if waiting[count:]:
            self._hear()

    def _turn(self, pane: ChatPane) -> float:
        """Who has the smallest one is drawn first: who was drawn longest ago."""
        last = self._painted.get(pane.number, -1)
        return -1 if pane.number == self._focused and last < self._paints - 1 else last

    class Ready(Message):
        """There is a box for what is typed."""

    async def on_mount(self) -> None:
        self.set_focus(self.pane.box)
        self.post_message(self.Ready())
        self.mark()
        if self._tick_s is not None:
            self.set_interval(self._tick_s, self.tick)
            self.set_interval(KEEP_EVERY_S, self.keep_soon)
            self.set_interval(FOLLOW_EVERY_S, self.follow_others)
        self.call_after_refresh(self._load_first)  # paint first

    def _load_first(self) -> None:
        self.bring_unsent()
        for pane in self.panes:
            self.want_model(pane)

    def on_unmount(self) -> None:
        self.engines.quit()

    @property
    def load_error(self) -> LocalInferError | None:
        """Why no pane has a model; None if one has, or may still get one."""
        errors = [pane.slot.error if pane.slot else None for pane in self.panes]
        return next(iter(errors)) if all(errors) else None

    # --- models

    def want_model(self, pane: ChatPane) -> None:
        """Give `pane` the engine of its chat's model, which is opened if it is not there."""
        if pane.session.chat_id is not None:
            pane.put_unsent(self.writer.take(pane.session.chat_id))
        self._models.want(pane)

    def swap_model(self, pane: ChatPane, model: str) -> None:
        """Another model answers in `pane`, as soon as it is open; if it cannot be opened, all stays as it was."""
        self._models.swap(pane, model)

    @work(thread=True, group="load", exit_on_error=False)
    def load(self, model: str) -> None:
        self.engines.load(model)

    @work(thread=True, group="close", exit_on_error=False)
    def dispose(self, engine: "Engine") -> None:
        self.engines.dispose(engine)

    @on(LoadMoved)
    def show_load(self, message: LoadMoved) -> None:
        percent = 100 * message.done // message.total if message.total else None
        self._models.moved(message.model, message.stage, percent)

    @on(Loaded)
    def use_engine(self, message: Loaded) -> None:
        self._models.opened(message.model, message.engine)
        self.mark()

    @on(LoadFailed)
    def show_load_failure(self, message: LoadFailed) -> None:
        self._models.failed(message.model, message.error)

    # --- asking

    @on(ChatPane.Said)
    async def route(self, message: ChatPane.Said) -> None:
        """A command is done, a prompt is sent: to its pane, or to all."""
        pane = message.pane
        try:
            called = commands.read(message.text, self._does) if message.calls else None
        except UsageError as error:
            pane.message.tell(error)
            pane.box.put(message.line)
            return
        if called is not None:
            pane.earlier.sent(message.line)
            await self.perform(pane, *called)
            return
        send = self._send_to_all if self._broadcast else ChatPane.send
        if not await send(pane, commands.sent(message.text)) and message.line.strip():
            pane.box.put(message.line)

    async def perform(self, pane: ChatPane, command: commands.Command, argument: str) -> None:
        """Run a command; what goes wrong is told above the box."""
        pane.message.clear()
        try:
            await command.run(self, pane, argument)
        except LocalInferError as error:
            pane.message.tell(error)

    async def _send_to_all(self, pane: ChatPane, text: str) -> bool:
        """All panes get the prompt, and the files attached to the one it was typed in. False if that one did not."""
        files = tuple(pane.attached)
        if not (text.strip() or files):
            return False
        sent = {other: await other.send(text, files=None if other is pane else files) for other in self.panes}
        self.say(f"sent to {sum(sent.values())} of {len(sent)} panes")
        return sent[pane]

    @on(Welcome.Chosen)
    async def open_recent(self, message: Welcome.Chosen) -> None:
        await self.open_chat(self.pane, Choice(message.chat.id, message.chat.model, new_pane=False))

    async def open_chat(self, pane: ChatPane, choice: Choice | None) -> None:
        """The chat that was chosen, here or in a new pane; one that is shown already is gone to, since two panes
        writing into one chat would mix."""
        if choice is None or pane not in self.panes:
            return
        shown = next((one for one in self.panes if one.session.chat_id == choice.chat_id), None)
        if shown is not None:
            self.go(shown)
            return
        if not choice.new_pane and pane.occupied():
            return
        try:
            session = pane.session.sibling(choice.chat_id, self.name_of(choice.model))
        except LocalInferError as error:
            pane.message.tell(error)
            return
        if choice.new_pane:
            await self.split(pane, across=True, session=session)
        else:
            self.writer.put_aside(pane.session.chat_id, pane.unsent)
            await pane.use(session)
            self.want_model(pane)

    # --- panes

    def left(self, pane: ChatPane) -> None:
        self._models.forget(pane)
        self.engines.leave(pane.number)

    def marked(self) -> None:
        self._focus_engines()
        line = self.query_one(TotalLine)
        line.total = replace(line.total, panes=len(self.panes))

    @on(ChatPane.Running)
    def tell_running(self) -> None:
        self._focus_engines()
        self._show_total()

    def _focus_engines(self) -> None:
        """The pane that is looked at goes first in its engine."""
        pane, handle = self.pane, self.pane.running.handle
        for model, engine in self.engines.open:
            engine.focus(*([handle] if handle is not None and pane.session.model == model else []))

    @on(ChatPane.Ended)
    def mark_done(self, message: ChatPane.Ended) -> None:
        self._account()
        self._show_total()
        if message.pane.number != self._focused and message.pane.open:
            message.pane.title_line.done = True

    # --- keys

    def action_escape(self) -> None:
        self.pane.escape()

    async def action_command(self, line: str) -> None:
        """A key that stands for a command."""
        called = commands.read(f"/{line}", self._does)
        assert called is not None
        await self.perform(self.pane, *called)

    def toggle_broadcast(self) -> None:
        """Prompts go to all panes from now on, or to one again."""
        self._broadcast = not self._broadcast
        self.say("each prompt goes to all panes now; F8 ends it" if self._broadcast else "prompts go to one pane again")
        self._show_total()

    async def show_details(self) -> None:
        """Plots and figures."""
        await self.app.push_screen(DetailsScreen(self._meter, lambda: self.panes))

    # --- small things

    def quit_app(self) -> None:
        """End; a model that could not be loaded decides the exit code."""
        error = self.load_error
        self.app.exit(return_code=error.exit_code if error else 0)

    async def caught_up(self) -> None:
        """Wait until all that was typed here is in its box, sent, or done."""
        for one in self.pane.box.ancestors_with_self:
            for _ in range(2):  # what is handled may leave a message for itself
                done = asyncio.Event()
                if one is not self.app and one.call_later(done.set):
                    await done.wait()

    def stop_or(self, quit_app: Callable[[], None]) -> None:
        """Ctrl+C: first the answer stops; without one, the app may quit."""
        if self.pane.busy and not self.pane.stopping:
            self.pane.stop()
        else:
            quit_app()

    def tick(self) -> None:
        """Look at the figures of all panes."""
        for pane in self.panes:
            pane.running.tick()
        self._account()
        self._show_total()

    def follow_others(self) -> None:
        """Show what other processes write into the chats that are open here."""
        for pane in self.panes:
            pane.follow()

    def _account(self) -> None:
        """Share out the energy since the last time among those who had tokens computed."""
        self._meter.share_out(self.panes)

    def _show_total(self) -> None:
        line = self.query_one(TotalLine)
        line.total = self._meter.sample(self.panes, self.engines, broadcast=self._broadcast)
