"""The panes, each where the tiling says, and the borders between them, to be dragged."""

from dataclasses import dataclass

from textual import events
from textual.geometry import Offset, Region, Size, Spacing
from textual.layout import ArrangeResult, Layout, WidgetPlacement
from textual.message import Message
from textual.widget import Widget

from localinfer.tui.tiling import Divider, Tiling
from localinfer.tui.widgets.pane import ChatPane


class _Tiled(Layout):
    """Places panes by their numbers."""

    name = "tiled"

    def __init__(self, tiling: Tiling) -> None:
        self._tiling = tiling

    def arrange(self, parent: Widget, children: list[Widget], size: Size, greedy: bool = True) -> ArrangeResult:
        boxes = self._tiling.boxes(size.width, size.height)
        return [
            WidgetPlacement(Region(*boxes[child.number]), Offset(), Spacing(), child)
            for child in children
            if isinstance(child, ChatPane) and child.number in boxes
        ]


class PaneGrid(Widget, can_focus=False):
    """All panes. `settle` after each change of the tiling."""

    ALLOW_SELECT = False

    @dataclass
    class Resized(Message):
        """A border was dragged to another place."""

    def __init__(self, tiling: Tiling, *panes: ChatPane) -> None:
        super().__init__(*panes)
        self._tiling = tiling
        self._held: Divider | None = None
        self._tiled = _Tiled(tiling)

    @property
    def layout(self) -> Layout:
        return self._tiled

    @property
    def panes(self) -> dict[int, ChatPane]:
        """By number, in reading order."""
        found = {pane.number: pane for pane in self.query_children(ChatPane)}
        return {number: found[number] for number in self._tiling.panes if number in found}

    def settle(self) -> None:
        """Show what the tiling shows, hide the rest."""
        zoomed = self._tiling.zoomed
        for number, pane in self.panes.items():
            pane.display = zoomed in (None, number)
            pane.refresh(layout=True)  # a widget forgets where its children stand only when one of them asks

    def on_mouse_down(self, event: events.MouseDown) -> None:
        x, y = self._cell(event)
        self._held = self._tiling.divider_at(x, y, *self.size)
        if self._held is not None:
            self.capture_mouse()
            event.stop()

    def on_mouse_move(self, event: events.MouseMove) -> None:
        if self._held is not None and self._tiling.drag(self._held, *self._cell(event), *self.size):
            self.settle()

    def on_mouse_up(self) -> None:
        if self._held is not None:
            self._held = None
            self.release_mouse()
            self.post_message(self.Resized())

    def _cell(self, event: events.MouseEvent) -> tuple[int, int]:
        """Where the mouse is in the grid, whatever widget the event began at."""
        return int(event.screen_x) - self.region.x, int(event.screen_y) - self.region.y
