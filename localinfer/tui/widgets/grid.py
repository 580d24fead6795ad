"""The panes, each where the tiling says."""

from textual.geometry import Offset, Region, Size, Spacing
from textual.layout import ArrangeResult, Layout, WidgetPlacement
from textual.widget import Widget

from localinfer.tui.tiling import Tiling
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

    def __init__(self, tiling: Tiling, *panes: ChatPane) -> None:
        super().__init__(*panes)
        self._tiling = tiling
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
        self.refresh(layout=True)
