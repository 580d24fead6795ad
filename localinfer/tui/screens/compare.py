"""The last answers of all panes in figures, and where their texts part."""

from collections.abc import Sequence
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Static

from localinfer.text import one_line
from localinfer.tui.labels import name_cells
from localinfer.tui.widgets.figures import Figures
from localinfer.tui.widgets.pane import ChatPane

_COLUMNS = ("pane", "model", "tokens", "first token", "tok/s", "J/token", "words", "same as here")


class CompareScreen(ModalScreen[None]):
    """One line a pane; the texts are compared with the pane that was written in."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape,f7,enter,q,space", "dismiss", "Close")]

    def __init__(self, panes: Sequence[ChatPane], focused: ChatPane) -> None:
        super().__init__()
        self._panes = panes
        self._focused = focused

    def compose(self) -> ComposeResult:
        prompt = next((turn.content for turn in reversed(self._focused.session.turns) if turn.role == "user"), "")
        asked = Static(Content.styled(one_line(prompt, 200), "bold $primary"), markup=False)
        card = VerticalScroll(asked, Figures(_COLUMNS, lead=2))
        card.border_title = "Compare"
        card.border_subtitle = "Esc closes"
        yield card

    def on_mount(self) -> None:
        self._show()

    def on_resize(self) -> None:
        self._show()

    def _show(self) -> None:
        self.query_one(Figures).show([self._row(pane) for pane in self._panes])

    def _row(self, pane: ChatPane) -> list[str]:
        stats, status = pane.stats, pane.status
        first = "–" if stats is None or stats.ttft_s is None else f"{stats.ttft_s:.2f} s"
        speed = "–" if stats is None or stats.decode_tok_s is None else f"{stats.decode_tok_s:.1f}"
        joules = f"{status.joules_per_token:.2f}" if status.joules_per_token else "–"
        tokens = "–" if stats is None else str(stats.completion_tokens)
        words = len(pane.answered.split())
        mark = " *" if pane.busy else ""
        model = pane.model_name(name_cells(self.size.width))
        return [str(pane.label), model, tokens + mark, first, speed, joules, str(words), self._sameness(pane)]

    def _sameness(self, pane: ChatPane) -> str:
        """How far the text goes along with that of the pane one came from."""
        if pane is self._focused:
            return "this one"
        mine, theirs = self._focused.answered, pane.answered
        if not mine or not theirs:
            return "–"
        if mine == theirs:
            return "all of it"
        pairs = zip(mine.split(), theirs.split(), strict=False)
        same = next((i for i, (one, other) in enumerate(pairs) if one != other), None)
        return "begins alike" if same is None else f"{same} words"
