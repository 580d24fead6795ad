"""The line at the top of a pane: which model, how small, and what computes it; and what the mouse can do."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from rich.cells import cell_len
from textual import events
from textual.content import Content
from textual.message import Message
from textual.reactive import reactive
from textual.widget import Widget

from localinfer.text import one_line
from localinfer.tui.labels import model_label

if TYPE_CHECKING:
    from localinfer.engine.protocol import EngineInfo

Button = Literal["focus", "split", "zoom", "close"]

_BUTTONS: tuple[tuple[str, Button], ...] = ((" + ", "split"), (" □ ", "zoom"), (" × ", "close"))
_BUTTON_WIDTH = 3


class TitleLine(Widget):
    """The model with its width, then its backend once that is known. Dragged onto another pane, the two change
    places."""

    number: reactive[int | None] = reactive(None)
    """Shown while there are several panes."""
    done: reactive[bool] = reactive(False)
    """An answer was written here while somebody looked elsewhere."""
    focused_pane: reactive[bool] = reactive(False)
    zoomed: reactive[bool] = reactive(False)

    @dataclass
    class Pressed(Message):
        """A button of this line, or the line itself."""

        line: "TitleLine"
        button: Button

    @dataclass
    class Dropped(Message):
        """The line was dragged to this place of the screen."""

        line: "TitleLine"
        x: int
        y: int

    def __init__(self, model: str) -> None:
        super().__init__()
        self._model = model
        self._info: EngineInfo | None = None
        self._held = False

    def show(self, model: str, info: "EngineInfo | None") -> None:
        """Which model, and how it runs once that is known."""
        self._model, self._info = model, info
        self.refresh()

    def render(self) -> Content:
        buttons = "".join(text for text, _ in self._buttons())
        room = self.size.width - len(buttons)
        number = "" if self.number is None else f"{self.number} "
        mark = "✓ " if self.done else ""
        free = room - len(number) - len(mark)
        details = self._details()
        bits = self._info.bits if self._info else ""
        name = model_label(self._model, bits, free, spare=cell_len("".join(details)))
        left = len(number) + len(mark) + cell_len(name)
        where = _fitting(details, room - left)
        colour = "bold $primary" if self.focused_pane or self.number is None else "bold $foreground 70%"
        return Content.assemble(
            Content.styled(number, "$foreground 50%"),
            Content.styled(mark, "bold $success"),
            Content.styled(name, "bold" if self.number is None else colour),
            Content.styled(where, "$foreground 60%"),
            Content(" " * max(0, room - left - cell_len(where))),
            Content.styled(buttons, "$foreground 50%"),
        )

    def _buttons(self) -> tuple[tuple[str, Button], ...]:
        if self.number is None:
            return _BUTTONS[:1] if self.size.width >= 40 else ()
        return _BUTTONS if self.size.width >= 40 else _BUTTONS[-1:]

    def on_mouse_down(self, event: events.MouseDown) -> None:
        self._held = True
        self.capture_mouse()
        event.stop()

    def on_mouse_up(self, event: events.MouseUp) -> None:
        if not self._held:
            return
        self._held = False
        self.release_mouse()
        if not self.region.contains(int(event.screen_x), int(event.screen_y)):
            self.post_message(self.Dropped(self, int(event.screen_x), int(event.screen_y)))
            return
        buttons = self._buttons()
        from_right = self.size.width - int(event.x)  # its padding is one column
        index = len(buttons) - 1 - from_right // _BUTTON_WIDTH
        on_button = from_right >= 0 and 0 <= index < len(buttons)
        self.post_message(self.Pressed(self, buttons[index][1] if on_button else "focus"))

    def on_click(self, event: events.Click) -> None:
        event.stop()  # all is said when the button comes up

    def _details(self) -> list[str]:
        """How it runs, the most telling first."""
        if self._info is None:
            return []
        info = self._info
        threads = f"{info.threads} thread" + "s" * (info.threads != 1)
        computes = " ".join(dict.fromkeys((info.backend, info.isa)))
        bits = " and ".join(map(str, sorted({info.kv_bits, *info.kv_layers})))
        return [f"  ·  {one_line(part, 30)}" for part in (computes, threads, f"KV {bits} bit")]


def _fitting(parts: list[str], room: int) -> str:
    """Those of `parts` that have room, in their order."""
    shown = ""
    for part in parts:
        if cell_len(shown + part) <= room:
            shown += part
    return shown
