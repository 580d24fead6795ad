"""What the engines do, in plots of the last two minutes, and every figure of every pane."""

from collections.abc import Callable, Sequence
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.color import Color
from textual.containers import Horizontal, VerticalScroll
from textual.content import Content
from textual.screen import Screen
from textual.widgets import Static
from textual_plotext import PlotextPlot

from localinfer.cost.bill import usd
from localinfer.cost.energy import marked
from localinfer.cost.prices import electricity
from localinfer.text import one_line
from localinfer.tui.labels import name_cells
from localinfer.tui.meter import Meter, Sample
from localinfer.tui.widgets.figures import Figures
from localinfer.tui.widgets.pane import ChatPane
from localinfer.tui.widgets.status import milliseconds
from localinfer.tui.widgets.total import TotalLine

_COLUMNS = (
    *("pane", "model", "phase", "context", "prompt", "cached", "written", "tok/s", "first token", "ITL", "ITL p99"),
    *("drafts right", "gain", "J", "$", "API $"),
)


class DetailsScreen(Screen[None]):
    """Refreshed twice a second, as the samples come."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape,f3,q", "app.pop_screen", "Close")]

    def __init__(self, meter: Meter, panes: Callable[[], Sequence[ChatPane]]) -> None:
        super().__init__()
        self._meter = meter
        self._panes = panes

    def compose(self) -> ComposeResult:
        with VerticalScroll():
            with Horizontal():
                yield PlotextPlot(id="speed")
                yield PlotextPlot(id="rows")
                yield PlotextPlot(id="blocks")
            yield Figures(_COLUMNS, lead=2)
            yield Static(id="reasons", markup=False)
        yield TotalLine()

    def on_mount(self) -> None:
        self._show()
        self.set_interval(0.5, self._show)

    def on_resize(self) -> None:
        self.call_after_refresh(self._show)

    def _show(self) -> None:
        samples = list(self._meter.samples)
        self._plot("speed", "tokens/s in all", samples, [("", lambda one: one.tok_s)])
        self._plot(
            "rows",
            "rows of a step",
            samples,
            [
                ("decode", lambda one: one.load.decode_rows),
                ("draft", lambda one: one.load.draft_rows),
                ("prefill", lambda one: one.load.prefill_rows),
            ],
        )
        self._plot(
            "blocks",
            "KV blocks",
            samples,
            [
                ("used", lambda one: one.load.used),
                ("shared", lambda one: one.load.shared),
                ("kept", lambda one: one.load.kept),
            ],
        )
        panes = self._panes()
        self.query_one(Figures).show([_row(pane, self.size.width) for pane in panes])
        told = {pane.label: pane.status.no_drafts for pane in panes if pane.status.no_drafts}
        lines = [f"pane {number}: no drafts: {one_line(why, 200)}" for number, why in told.items()]
        self.query_one("#reasons", Static).update(Content("\n".join(lines)))
        self.query_one(TotalLine).total = self._meter.total

    def _colours(self) -> list[tuple[int, int, int]]:
        """Of the first, second and third curve."""
        names = ("success", "primary", "warning")
        return [Color.parse(self.app.theme_variables[name]).rgb for name in names]

    def _plot(
        self,
        name: str,
        title: str,
        samples: Sequence[Sample],
        curves: Sequence[tuple[str, Callable[[Sample], float]]],
    ) -> None:
        plot = self.query_one(f"#{name}", PlotextPlot)
        plot.plt.clear_data()
        plot.plt.title(title)
        now = samples[-1].at if samples else 0.0
        times = [sample.at - now for sample in samples]
        highest = 1.0
        for (label, value), colour in zip(curves, self._colours(), strict=False):
            values = [value(sample) for sample in samples]
            highest = max([highest, *values])
            if values:
                plot.plt.plot(times, values, label=label or None, marker="braille", color=colour)
        plot.plt.ylim(0, highest)
        plot.plt.xlim(-120, 0)
        plot.refresh()


def _row(pane: ChatPane, width: int) -> list[str]:
    status, stats = pane.status, pane.stats
    context = status.context.removeprefix("context ").partition(" ")[0] or "–"
    head = [str(pane.label), pane.model_name(name_cells(width)), status.phase_text, context]
    joules = status.joules
    tail = [
        marked(f"{joules:.1f}", status.source) if joules else "–",
        marked(usd(electricity(joules, status.usd_per_kwh).usd), status.source) if joules else "–",
        usd(status.api_usd) if status.api_usd else "–",
    ]
    if stats is None:
        return [*head, *["–"] * (len(_COLUMNS) - len(head) - len(tail)), *tail]
    drafting, speed = stats.drafting, status.tok_s or stats.decode_tok_s
    guesses = drafting.by_drafter if drafting else ()
    tried, right = sum(one.tried for one in guesses), sum(one.right for one in guesses)
    return [
        *head,
        str(stats.prompt_tokens),
        str(stats.cached_tokens) if status.stats else "–",
        str(stats.completion_tokens),
        f"{speed:.1f}" if speed else "–",
        f"{stats.ttft_s:.2f} s" if stats.ttft_s else "–",
        milliseconds(stats.itl_s) if stats.itl_s else "–",
        milliseconds(stats.itl_p99_s) if stats.itl_p99_s else "–",
        f"{right}/{tried}" if tried else "–",
        f"x{drafting.speedup:.2f}" if tried and drafting and drafting.speedup else "–",
        *tail,
    ]
