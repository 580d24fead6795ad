"""Where the panes of a screen stand: split, closed, zoomed, moved, resized; which one is written in."""

from collections.abc import Sequence
from itertools import count
from typing import TYPE_CHECKING

from textual import events, on, work
from textual.app import ComposeResult
from textual.screen import Screen

from localinfer.chats.screen_state import ScreenState
from localinfer.chats.session import ChatSession
from localinfer.errors import LocalInferError
from localinfer.tui.screen_saving import ScreenWriter
from localinfer.tui.screens.resize import ResizeScreen
from localinfer.tui.tiling import MOST_PANES, Direction, Tiling, from_plain
from localinfer.tui.widgets.grid import PaneGrid
from localinfer.tui.widgets.pane import ChatPane
from localinfer.tui.widgets.title import TitleLine
from localinfer.tui.widgets.total import TotalLine

if TYPE_CHECKING:
    from textual.widget import Widget

COLUMNS, LINES = 4, 2
"""How far a border moves at a press of an arrow."""


class PaneScreen(Screen[None]):
    """Panes side by side. What they hold is the business of those who build on this."""

    def restore(self, panes: Sequence[ChatPane], writer: ScreenWriter) -> None:
        """Begin with these panes: where those that were kept stood, if they are those, else side by side."""
        self.writer = writer
        self._told: LocalInferError | None = None
        self._first_panes = tuple(panes)
        for label, pane in enumerate(panes, 1):
            pane.label = label
        saved = writer.restored
        try:
            self.tiling = Tiling(from_plain(saved.tree if saved else None, [pane.number for pane in panes]))
        except ValueError:
            self.tiling = Tiling(panes[0].number)
            for pane in panes[1:]:
                self.tiling.add(pane.number, self.tiling.panes[-1], across=True)
        self._focused = panes[saved.focused if saved and saved.focused < len(panes) else 0].number

    def bring_unsent(self) -> None:
        """Put back into the boxes what was typed there when the app was left."""
        saved = self.writer.restored
        for i, pane in enumerate(self._first_panes):
            if pane.session.chat_id is None:
                pane.put_unsent(saved.panes[i].unsent if saved else self.writer.take(None))

    def keep(self) -> None:
        """Write down what of the screen is kept."""
        self.writer.save(self._saved())

    @work(thread=True, group="keep", exit_on_error=False)
    def keep_soon(self) -> None:
        """The same, in a thread."""
        self.writer.save(self.app.call_from_thread(self._saved))
        self.app.call_from_thread(self._tell_problem)

    def _tell_problem(self) -> None:
        problem = self.writer.problem
        if problem is not None and problem is not self._told:
            self._told = problem
            self.say(f"panes and unsent prompts are not kept: {problem.message}")

    def _saved(self) -> ScreenState:
        return self.writer.now(self.tiling, self.panes, self.pane, self.app.theme)

    def compose(self) -> ComposeResult:
        yield PaneGrid(self.tiling, *self._first_panes)
        yield TotalLine()

    def new_pane(self, session: ChatSession) -> ChatPane:
        """A pane that is on no screen yet."""
        raise NotImplementedError

    def want_model(self, pane: ChatPane) -> None:
        """Give `pane` the engine of its chat's model."""
        raise NotImplementedError

    def left(self, pane: ChatPane) -> None:
        """`pane` was closed."""

    def marked(self) -> None:
        """Other panes are there, or another one is written in."""

    @property
    def panes(self) -> tuple[ChatPane, ...]:
        """All panes, in reading order."""
        return tuple(self.query_one(PaneGrid).panes.values())

    @property
    def pane(self) -> ChatPane:
        """The one that is written in."""
        return self.query_one(PaneGrid).panes[self._focused]

    # --- what commands do

    async def split(self, pane: ChatPane, *, across: bool, session: ChatSession | None = None) -> ChatPane | None:
        """One more pane beside `pane`, with a new chat of its model unless there is a session; None, and said, if
        there is no room."""
        if not self.is_attached:  # the app is about to end
            return None
        grid = self.query_one(PaneGrid)
        if len(self.panes) >= MOST_PANES:
            self.say(f"there are {MOST_PANES} panes already; F10 closes one")
            return None
        if not self.tiling.has_room(pane.number, *grid.size, across=across):
            if not self.tiling.has_room(pane.number, *grid.size, across=not across):
                self.say("there is no room for one more pane; make the terminal larger, or close one with F10")
                return None
            across = not across
        new = self.new_pane(session or pane.session.sibling(False, pane.session.model))
        new.running.tints = pane.running.tints
        new.label = free_label(self.panes)
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
        pane.display = False  # at once; it is removed when its own messages are done
        numbers = self.tiling.panes
        index = numbers.index(pane.number)
        neighbour = numbers[index - 1] if index else numbers[1]
        self.tiling.remove(pane.number)
        panes = self.query_one(PaneGrid).panes
        if self._focused == pane.number:
            self.go(panes[neighbour])
        await pane.remove()
        self.writer.put_aside(pane.session.chat_id, pane.unsent)
        self.left(pane)
        self.mark()

    def zoom(self, pane: ChatPane) -> None:
        """`pane` alone, or all again."""
        if len(self.panes) > 1:
            self.tiling.zoomed = None if self.tiling.zoomed is not None else pane.number
            self.go(pane)

    def go(self, pane: ChatPane) -> None:
        """Write in `pane` from now on."""
        self._focused = pane.number
        if self.tiling.zoomed is not None:
            self.tiling.zoomed = pane.number
        pane.title_line.done = False
        self.mark()
        self.set_focus(pane.box)  # at once: the next key is this pane's

    def balance(self) -> None:
        """All panes side by side equally wide, all above each other equally high."""
        self.tiling.balance()
        self.query_one(PaneGrid).settle()

    def resize_by_keys(self) -> None:
        """Arrows move the borders of the pane that is written in, until Enter."""
        if len(self.panes) == 1:
            self.say("this is the only pane; F5 and F6 split it")
            return
        self.tiling.zoomed = None
        self.mark()
        self.app.push_screen(ResizeScreen(self._resize, self.balance))

    def _resize(self, way: Direction) -> None:
        grid = self.query_one(PaneGrid)
        cells = COLUMNS if way in ("left", "right") else LINES
        if self.tiling.resize(self._focused, way, cells, *grid.size):
            grid.settle()

    def mark(self) -> None:
        """Show which pane is written in."""
        self.query_one(PaneGrid).settle()
        several = len(self.panes) > 1
        for pane in self.panes:
            title = pane.title_line
            title.number = pane.label if several else None
            title.focused_pane = several and pane.number == self._focused
            title.zoomed = self.tiling.zoomed == pane.number
            pane.set_class(several and pane.number == self._focused, "-here")
            pane.set_class(several, "-several")
        self.marked()

    # --- keys and mouse

    def action_go(self, way: Direction) -> None:
        other = self.tiling.neighbour(self._focused, way, *self.query_one(PaneGrid).size)
        if other is not None:
            self.go(self.query_one(PaneGrid).panes[other])

    async def action_tab(self) -> None:
        """Complete what is typed, or else go to the next pane. At once: the next key is typed there."""
        if not (self.pane.box.has_focus and await self.pane.box.complete()):
            self.action_next_pane(1)

    def action_next_pane(self, by: int) -> None:
        """In reading order, also while one pane is alone on the screen."""
        panes = self.panes
        self.go(panes[(panes.index(self.pane) + by) % len(panes)])

    def action_move(self, way: Direction) -> None:
        other = self.tiling.neighbour(self._focused, way, *self.query_one(PaneGrid).size)
        if other is not None and self.tiling.zoomed is None:
            self.tiling.swap(self._focused, other)
            self.mark()

    def action_page(self, direction: int) -> None:
        shown = self.pane.transcript
        (shown.scroll_page_down if direction > 0 else shown.scroll_page_up)(animate=False)

    @on(events.DescendantFocus)
    def follow(self, event: events.DescendantFocus) -> None:
        pane = pane_of(event.widget)
        if pane in self.panes and pane.number != self._focused and event.widget is self.focused:  # no news that is old
            self.go(pane)

    @on(events.Click)
    def click(self, event: events.Click) -> None:
        """A click anywhere in a pane goes there."""
        pane = pane_of(event.widget) if event.widget else None
        if pane in self.panes:
            self.go(pane)

    @on(TitleLine.Pressed)
    async def press(self, message: TitleLine.Pressed) -> None:
        pane = pane_of(message.line)
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
        pane = pane_of(message.line)
        target = next((one for one in self.panes if one.region.contains(message.x, message.y)), None)
        if pane in self.panes and target is not None and target is not pane:
            self.tiling.swap(pane.number, target.number)
            self.mark()

    def say(self, text: str) -> None:
        """Tell the user, above the box that is written in."""
        self.pane.say(text)


def free_label(panes: Sequence[ChatPane]) -> int:
    """The lowest number that no pane has; each keeps its own as long as it is there."""
    taken = {pane.label for pane in panes}
    return next(number for number in count(1) if number not in taken)


def pane_of(widget: "Widget") -> ChatPane | None:
    """The pane that this is a part of."""
    return next((one for one in widget.ancestors_with_self if isinstance(one, ChatPane)), None)


def _is_wide(pane: ChatPane) -> bool:
    """Is there more room beside than below? A cell is about twice as high as wide."""
    return pane.size.width >= 2 * pane.size.height
