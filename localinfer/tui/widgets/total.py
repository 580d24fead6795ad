"""The line below all panes: what the engines do for all of them together."""

from dataclasses import dataclass, field, replace

from textual.content import Content
from textual.reactive import reactive
from textual.widget import Widget

from localinfer.cost.bill import usd
from localinfer.cost.energy import Source, marked
from localinfer.cost.prices import USD_PER_KWH, electricity
from localinfer.engine.load import Load
from localinfer.errors import size
from localinfer.text import one_line
from localinfer.tui.widgets.status import line_of, sparkline


@dataclass(frozen=True, slots=True)
class Total:
    """A moment of all engines and panes."""

    load: Load = field(default_factory=Load)
    """Summed over the engines."""
    panes: int = 1
    writing: int = 0
    tok_s: float = 0.0
    speeds: tuple[float, ...] = ()
    joules: float | None = None
    """Taken since the app began; None where it cannot be measured."""
    watts: float | None = None
    source: Source = "rapl"
    """Who says the joules."""
    usd_per_kwh: float = USD_PER_KWH
    api_usd: float | None = None
    """What providers would have charged the panes that are open; None where nobody serves their models."""
    broadcast: bool = False

    @property
    def head(self) -> str:
        """`to all`, `2 of 4 panes write`, `4 panes`."""
        words = "→ all panes   " if self.broadcast else ""
        if self.writing:
            return f"{words}{self.writing} of {self.panes} write" if self.panes > 1 else f"{words}1 writes"
        return f"{words}{self.panes} pane{'s' * (self.panes > 1)}"

    @property
    def details(self) -> list[str]:
        """The other parts that are not nothing, the most telling first."""
        curve = f" {sparkline(self.speeds)}" if len(self.speeds) > 1 else ""
        speed = f"{self.tok_s:.1f} tok/s{curve}" if self.writing and self.tok_s else ""
        parts = (self.problem, speed, self.rows, self.waiting, self.blocks, self.experts, *self._money())
        return [part for part in parts if part]

    @property
    def rows(self) -> str:
        """What the last step computed."""
        load = self.load
        kinds = (("decode", load.decode_rows), ("draft", load.draft_rows), ("prefill", load.prefill_rows))
        counts = [f"{count} {kind}" for kind, count in kinds if count]
        return f"rows: {', '.join(counts)}" if counts and self.writing else ""

    @property
    def blocks(self) -> str:
        """How full the KV cache is, and what of it serves more than one text, now or later."""
        load = self.load
        kinds = (
            (load.shared, "shared"),
            (load.kept, "kept"),
            (load.on_disk, "on disk"),
            (load.snapshots, "states"),
        )
        counts = [f"{load.used}/{load.blocks} blocks"] if load.used else []
        counts += [f"{load.window_used}/{load.window_blocks} in windows"] if load.window_used else []
        counts += [f"{count} {kind}" for count, kind in kinds if count]
        return f"KV {', '.join(counts)}" if counts else ""

    @property
    def experts(self) -> str:
        """Of experts that stay in a file, how many are in memory, and what was read."""
        load = self.load
        if not load.experts_bytes:
            return ""
        held = load.experts_held / load.experts_bytes
        return f"experts {held:.0%} held, {size(load.experts_read)} read"

    @property
    def waiting(self) -> str:
        load = self.load
        return (
            f"{load.waiting} wait" + f", {load.preempted} of them preempted" * (load.preempted > 0)
            if load.waiting
            else ""
        )

    @property
    def problem(self) -> str:
        told = self.load.disk_problem
        return f"nothing more is kept on disk: {one_line(told, 40)}" if told else ""

    def _money(self) -> list[str]:
        parts = []
        if self.watts and round(self.watts):
            parts.append(marked(f"{self.watts:.0f} W", self.source))
        if self.joules and round(self.joules):
            cost = usd(electricity(self.joules, self.usd_per_kwh).usd)
            parts.append(f"{marked(f'{self.joules:.0f} J', self.source)}, {marked(cost, self.source)} so far")
        if self.api_usd:
            parts.append(f"an API: {usd(self.api_usd)}")
        return parts


CURVE_WIDTH = 110
"""Narrower lines have no room for the curve."""

_COUNTED = (
    *("decode_rows", "draft_rows", "prefill_rows", "running", "waiting", "preempted", "preemptions"),
    *("blocks", "used", "shared", "kept", "window_blocks", "window_used", "on_disk", "snapshots"),
    *("experts_bytes", "experts_held", "experts_wanted", "experts_missed", "experts_read"),
)


def summed(loads: list[Load]) -> Load:
    """The loads of several engines as one."""
    total = Load()
    for load in loads:
        counts = {name: getattr(total, name) + getattr(load, name) for name in _COUNTED}
        problem = total.disk_problem or load.disk_problem
        total = replace(total, **counts, step_s=max(total.step_s, load.step_s), disk_problem=problem)
    return total


class TotalLine(Widget):
    """One line; a part that does not fit is left out."""

    total: reactive[Total] = reactive(Total())

    def render(self) -> Content:
        total = self.total if self.size.width >= CURVE_WIDTH else replace(self.total, speeds=())
        colour = "$warning" if total.broadcast else "$success" if total.writing else "$foreground 70%"
        return line_of(total.head, total.details, colour, self.size.width - 2)
