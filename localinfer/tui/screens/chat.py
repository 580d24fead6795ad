"""All panes, the engines they share, and the keys that move between them."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, ClassVar

from textual import events, on, work
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.screen import Screen
from textual.widgets import TextArea

from localinfer.chats.session import ChatSession
from localinfer.errors import LocalInferError, UsageError
from localinfer.text import clean
from localinfer.tui import commands
from localinfer.tui.doing import COMMANDS, perform
from localinfer.tui.engines import Engines, OpenModel
from localinfer.tui.keys import BINDINGS
from localinfer.tui.messages import Loaded, LoadFailed, LoadMoved
from localinfer.tui.meter import Meter
from localinfer.tui.pacing import Pacing
from localinfer.tui.screens.details import DetailsScreen
from localinfer.tui.tiling import MOST_PANES, Direction, Tiling
from localinfer.tui.widgets.grid import PaneGrid
from localinfer.tui.widgets.pane import ChatPane
from localinfer.tui.widgets.title import TitleLine
from localinfer.tui.widgets.total import TotalLine
from localinfer.tui.widgets.transcript import ErrorNote

if TYPE_CHECKING:
    from textual.widget import Widget

    from localinfer.engine.protocol import Engine


class ChatScreen(Screen[None]):
    """Panes side by side. Threads load models and answer; they only post messages."""

    BINDINGS: ClassVar[list[BindingType]] = BINDINGS

    def __init__(
        self,
        sessions: Sequence[ChatSession],
        open_model: OpenModel,
        *,
        clock: Callable[[], float],
        meter: Meter,
        models: Callable[[], list[str]],
        name_of: Callable[[str], str],
        tick_s: float | None,
    ) -> None:
        """`tick_s`: how often figures are looked at; None only when a prompt is sent or answered."""
        super().__init__()
        self._tick_s = tick_s
        self.models = models
        """The names of the models that are here."""
        self.name_of = name_of
        """The one name of a model that may be called by several: an engine a model."""
        self.engines = Engines(open_model, self.post_message, self.dispose)
        self._clock = clock
        self._numbers = 0
        first, *others = [self._new_pane(session) for session in sessions]
        self.tiling = Tiling(first.number)
        for pane in others:
            self.tiling.add(pane.number, self.tiling.panes[-1], across=True)
        self._first_panes = (first, *others)
        self._here = first.number
        self._broadcast = self._paint_due = False
        self._pacing = Pacing(clock)
        self._meter = meter

    def _new_pane(self, session: ChatSession) -> ChatPane:
        self._numbers += 1
        return ChatPane(self._numbers, session, clock=self._clock, complete=self._complete, heard=self._hear)

    def _hear(self) -> None:
        """Some pane has something to show: now, or when it is time to draw again."""
        wait = 0.0 if self._tick_s is None else self._pacing.wait_s
        if not wait:
            self._paint()
        elif not self._paint_due:
            self._paint_due = True
            self.set_timer(wait, self._paint)

    def _paint(self) -> None:
        """Show what all panes have to show."""
        self._paint_due = False
        self._pacing.drawn()
        for pane in self.panes:
            pane.paint()

    def compose(self) -> ComposeResult:
        yield PaneGrid(self.tiling, *self._first_panes)
        yield TotalLine()

    async def on_mount(self) -> None:
        self.pane.box.focus()
        self._mark()
        if self._tick_s is not None:
            self.set_interval(self._tick_s, self._tick)
        self.call_after_refresh(self._load_first)  # paint first

    def _load_first(self) -> None:
        for pane in self.panes:
            self.want_model(pane)

    def on_unmount(self) -> None:
        self.engines.quit()

    @property
    def panes(self) -> tuple[ChatPane, ...]:
        """All panes, in reading order."""
        return tuple(self.query_one(PaneGrid).panes.values())

    @property
    def pane(self) -> ChatPane:
        """The one that is written in."""
        return self.query_one(PaneGrid).panes[self._here]

    @property
    def load_error(self) -> LocalInferError | None:
        """Why no pane has a model; None if one has, or may still get one."""
        errors = [pane.slot.error if pane.slot else None for pane in self.panes]
        return next(iter(errors)) if all(errors) else None

    # --- models

    def want_model(self, pane: ChatPane) -> None:
        """Give `pane` the engine of its chat's model, which is opened if it is not there."""
        slot, fresh = self.engines.want(pane.session.model, pane.number)
        pane.show_slot(slot)
        if fresh:
            self.load(pane.session.model)

    @work(thread=True, group="load", exit_on_error=False)
    def load(self, model: str) -> None:
        self.engines.load(model)

    @work(thread=True, group="close", exit_on_error=False)
    def dispose(self, engine: "Engine") -> None:
        self.engines.dispose(engine)

    @on(LoadMoved)
    def show_load(self, message: LoadMoved) -> None:
        percent = 100 * message.done // message.total if message.total else None
        self.engines.moved(message.model, message.stage, percent)
        self._show_slots(message.model)

    @on(Loaded)
    def use_engine(self, message: Loaded) -> None:
        self.engines.opened(message.model, message.engine)
        self._show_slots(message.model)
        self._mark()

    @on(LoadFailed)
    def show_load_failure(self, message: LoadFailed) -> None:
        self.engines.failed(message.model, message.error)
        self._show_slots(message.model)

    def _show_slots(self, model: str) -> None:
        for pane in self.panes:
            if pane.session.model == model and pane.slot is not None:
                pane.show_slot(pane.slot)

    # --- asking

    @on(ChatPane.Said)
    async def route(self, message: ChatPane.Said) -> None:
        """A command is done, a prompt is sent: to its pane, or to all."""
        pane = message.pane
        try:
            called = commands.read(message.text, COMMANDS) if "\n" not in message.shown else None
        except UsageError as error:
            await pane.transcript.add(ErrorNote(error))
            return
        if called is not None:
            pane.box.load_text("")
            await perform(self, pane, *called)
        elif self._broadcast:
            await self._send_to_all(pane, commands.sent(message.text))
        else:
            await pane.send(commands.sent(message.text))

    async def _send_to_all(self, pane: ChatPane, text: str) -> None:
        """All panes get the prompt, and the files attached to the one it was typed in."""
        if not (text.strip() or pane.attached):
            return
        for other in self.panes:
            if other is not pane:
                other.attached = list(pane.attached)
        sent = [await other.send(text) for other in self.panes]
        self.say(f"sent to {sum(sent)} of {len(sent)} panes")

    @on(TextArea.Changed)
    def show_hints(self, message: TextArea.Changed) -> None:
        pane, line = _pane_of(message.text_area), message.text_area.text
        asks = line.startswith("/") and not line.startswith("//") and "\n" not in line
        if pane is not None:
            pane.hint(commands.matches(self, line, COMMANDS) if asks else [])

    def _complete(self, line: str) -> str:
        return commands.complete(self, line, COMMANDS)

    # --- panes

    async def split(self, pane: ChatPane, *, across: bool, session: ChatSession | None = None) -> ChatPane | None:
        """One more pane beside `pane`, with a new chat of its model unless there is a session; None, and said, if
        there is no room."""
        grid = self.query_one(PaneGrid)
        if len(self.panes) >= MOST_PANES:
            self.say(f"there are {MOST_PANES} panes already; F10 closes one")
            return None
        if not self.tiling.has_room(pane.number, *grid.size, across=across):
            if not self.tiling.has_room(pane.number, *grid.size, across=not across):
                self.say("there is no room for one more pane; make the terminal larger, or close one with F10")
                return None
            across = not across
        new = self._new_pane(session or pane.session.sibling(False, pane.session.model))
        new.tints = pane.tints
        self.tiling.add(new.number, pane.number, across=across)
        await grid.mount(new)
        self.want_model(new)
        self.go(new)
        return new

    async def fork(self, pane: ChatPane) -> None:
        """A copy of the chat in a new pane. What both have in common, they share in the KV cache."""
        await self.split(pane, across=_is_wide(pane), session=pane.session.fork())

    async def close(self, pane: ChatPane) -> None:
        """Take `pane` away; an answer stops, its chat is kept. The last pane stays."""
        if len(self.panes) == 1:
            self.say("this is the only pane; Ctrl+Q quits")
            return
        pane.leave()
        numbers = self.tiling.panes
        place = numbers.index(pane.number)
        neighbour = numbers[place - 1] if place else numbers[1]
        self.tiling.remove(pane.number)
        panes = self.query_one(PaneGrid).panes
        if self._here == pane.number:
            self.go(panes[neighbour])
        await pane.remove()
        self.engines.leave(pane.number)
        self._mark()

    def zoom(self, pane: ChatPane) -> None:
        """`pane` alone, or all again."""
        if len(self.panes) > 1:
            self.tiling.zoomed = None if self.tiling.zoomed is not None else pane.number
            self.go(pane)

    def go(self, pane: ChatPane) -> None:
        """Write in `pane` from now on."""
        self._here = pane.number
        if self.tiling.zoomed is not None:
            self.tiling.zoomed = pane.number
        pane.title_line.done = False
        self._mark()
        pane.box.focus()

    def _mark(self) -> None:
        """Show which pane is written in, and tell its engine."""
        self.query_one(PaneGrid).settle()
        several = len(self.panes) > 1
        for i, pane in enumerate(self.panes, 1):
            title = pane.title_line
            title.number = i if several else None
            title.focused_pane = several and pane.number == self._here
            title.zoomed = self.tiling.zoomed == pane.number
            pane.set_class(several and pane.number == self._here, "-here")
        self._focus_engines()

    @on(ChatPane.Running)
    def tell_running(self) -> None:
        self._focus_engines()
        self._show_total()

    def _focus_engines(self) -> None:
        """The pane that is looked at goes first in its engine."""
        here = self.pane
        for model, engine in self.engines.open:
            engine.focus(*([here.handle] if here.handle is not None and here.session.model == model else []))

    @on(ChatPane.Ended)
    def mark_done(self, message: ChatPane.Ended) -> None:
        self._account()
        self._show_total()
        if message.pane.number != self._here and message.pane.open:
            message.pane.title_line.done = True

    @on(events.DescendantFocus)
    def follow(self, event: events.DescendantFocus) -> None:
        pane = _pane_of(event.widget)
        if pane in self.panes and pane.number != self._here:
            self.go(pane)

    @on(events.Click)
    def click(self, event: events.Click) -> None:
        """A click anywhere in a pane goes there."""
        pane = _pane_of(event.widget) if event.widget else None
        if pane in self.panes:
            self.go(pane)

    @on(TitleLine.Pressed)
    async def press(self, message: TitleLine.Pressed) -> None:
        pane = _pane_of(message.line)
        if pane not in self.panes:
            return
        self.go(pane)
        match message.button:
            case "split":
                await self.split(pane, across=_is_wide(pane))
            case "zoom":
                self.zoom(pane)
            case "close":
                await self.close(pane)

    @on(TitleLine.Dropped)
    def drop(self, message: TitleLine.Dropped) -> None:
        """A title dragged onto another pane: the two change places."""
        pane = _pane_of(message.line)
        target = next((one for one in self.panes if one.region.contains(message.x, message.y)), None)
        if pane in self.panes and target is not None and target is not pane:
            self.tiling.swap(pane.number, target.number)
            self._mark()

    # --- keys

    async def action_command(self, line: str) -> None:
        """A key that stands for a command."""
        called = commands.read(f"/{line}", COMMANDS)
        assert called is not None
        await perform(self, self.pane, *called)

    def toggle_broadcast(self) -> None:
        """Prompts go to all panes from now on, or to one again."""
        self._broadcast = not self._broadcast
        self.say("each prompt goes to all panes now; F8 ends it" if self._broadcast else "prompts go to one pane again")
        self._show_total()

    def show_details(self) -> None:
        """Plots and figures."""
        self.app.push_screen(DetailsScreen(self._meter, lambda: self.panes))

    def action_go(self, way: Direction) -> None:
        other = self.tiling.neighbour(self._here, way, *self.query_one(PaneGrid).size)
        if other is not None:
            self.go(self.query_one(PaneGrid).panes[other])

    def action_move(self, way: Direction) -> None:
        other = self.tiling.neighbour(self._here, way, *self.query_one(PaneGrid).size)
        if other is not None and self.tiling.zoomed is None:
            self.tiling.swap(self._here, other)
            self._mark()

    def action_page(self, direction: int) -> None:
        shown = self.pane.transcript
        (shown.scroll_page_down if direction > 0 else shown.scroll_page_up)(animate=False)

    # --- small things

    def stop_or(self, quit_app: Callable[[], None]) -> None:
        """Ctrl+C: first the answer stops; without one, the app may quit."""
        if self.pane.busy and not self.pane.stopping:
            self.pane.stop()
        else:
            quit_app()

    def _tick(self) -> None:
        for pane in self.panes:
            pane.tick()
        self._account()
        self._show_total()

    def _account(self) -> None:
        """Share out the energy since the last time among those who had tokens computed."""
        self._meter.share_out(self.panes)

    def _show_total(self) -> None:
        line = self.query_one(TotalLine)
        line.total = self._meter.sample(self.panes, self.engines, broadcast=self._broadcast)

    def say(self, text: str) -> None:
        """Tell the user, for a moment."""
        self.notify(clean(text), markup=False)


def _is_wide(pane: ChatPane) -> bool:
    """Is there more room beside than below? A cell is about twice as high as wide."""
    return pane.size.width >= 2 * pane.size.height


def _pane_of(widget: "Widget") -> ChatPane | None:
    return next((one for one in widget.ancestors_with_self if isinstance(one, ChatPane)), None)
