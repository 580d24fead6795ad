"""The line at the bottom of a pane: what goes on, how fast, how full."""

from dataclasses import dataclass, replace
from typing import Literal

from rich.cells import cell_len, set_cell_size
from textual.content import Content
from textual.reactive import reactive
from textual.widget import Widget

from localinfer.cost.bill import usd
from localinfer.cost.energy import Source, marked
from localinfer.cost.prices import USD_PER_KWH, per_million
from localinfer.events import Stats, gain_in_words
from localinfer.text import one_line

Phase = Literal["loading", "ready", "queued", "preempted", "prefill", "decode", "stopping", "failed"]

_COLOURS: dict[Phase, str] = {
    "decode": "$success",
    "ready": "$foreground 70%",
    "failed": "$error",
    "preempted": "$warning",
}
_BARS = "▁▂▃▄▅▆▇█"

CURVE_WIDTH = 56
"""Narrower lines have no room for the curve."""

SPARKS = 12
"""Values in the little curve of tokens/s."""


def sparkline(values: tuple[float, ...]) -> str:
    """The last values as a curve of one line, from zero to the largest of them."""
    top = max(values, default=0.0)
    return "".join(_BARS[round(value / top * (len(_BARS) - 1)) if top else 0] for value in values[-SPARKS:])


@dataclass(frozen=True, slots=True)
class Status:
    """All that the line shows. `percent` belongs to the phase, `elapsed` is seconds since the prompt was sent."""

    phase: Phase = "loading"
    percent: int | None = None
    stage: str = ""
    elapsed: float | None = None
    stats: Stats | None = None
    context_size: int | None = None
    context_used: int | None = None
    """Tokens of the conversation before anything is asked, as the model would read it; None until it is known."""
    narrow: bool = False
    """Is there room for short words only?"""
    form: str = ""
    """The form that answers keep, in a word."""
    speeds: tuple[float, ...] = ()
    """Tokens/s at the last ticks of this answer."""
    joules: float = 0.0
    """What this chat has taken since the pane was opened."""
    joules_per_token: float | None = None
    """Of the last answer."""
    source: Source = "rapl"
    """Who says the joules."""
    usd_per_kwh: float = USD_PER_KWH
    api_usd: float | None = None
    """What a provider would have charged for this chat since the pane was opened; None where nobody serves its
    model."""

    @property
    def phase_text(self) -> str:
        """`loading weights 40%`, `prefill 43%`, `decode 12 s`, `ready`."""
        words: list[str] = [self.phase]
        if self.stage:
            words.append(one_line(self.stage, 24))
        if self.percent is not None:
            words.append(f"{self.percent}%")
        if self.elapsed is not None:
            words.append(f"{self.elapsed:.0f} s")
        return " ".join(words)

    @property
    def details(self) -> list[str]:
        """The other parts that are known, the most telling first."""
        parts = (
            self.speed,
            f"form: {self.form}" if self.form else "",
            self.context,
            self.drafts,
            self.first_token,
            self.latency,
            self.energy,
            self.cost,
            self.api,
        )
        return [part for part in parts if part]

    @property
    def tok_s(self) -> float | None:
        """Tokens a second in this phase."""
        if self.stats is None:
            return None
        per_phase = {"prefill": self.stats.prefill_tok_s, "decode": self.stats.recent_tok_s or self.stats.decode_tok_s}
        return per_phase.get(self.phase, self.stats.decode_tok_s)

    @property
    def speed(self) -> str:
        curve = f" {sparkline(self.speeds)}" if len(self.speeds) > 1 else ""
        return f"{self.tok_s:.1f} tok/s{curve}" if self.tok_s else ""

    @property
    def context(self) -> str:
        """Tokens of the conversation, and how full the context is with them."""
        used = self.stats.context_used if self.stats else self.context_used
        size = self.stats.context_size if self.stats else self.context_size
        if not used or not size:
            return ""
        return f"ctx {used}/{size}" if self.narrow else f"context {used}/{size} ({used / size:.0%})"

    @property
    def drafts(self) -> str:
        """What drafts have won or lost; empty where there were none, and where that is nothing to speak of."""
        drafting = self.stats.drafting if self.stats else None
        if drafting is None or not drafting.by_drafter:
            return ""
        tried, right = (sum(getattr(one, name) for one in drafting.by_drafter) for name in ("tried", "right"))
        if (drafting.speedup or 1) < 1.005 and drafting.saved_s > -0.05:
            return ""
        share = f"{right / max(1, tried):.0%}"
        return gain_in_words(drafting) + (f", {share} right" if share != "0%" else "")

    @property
    def no_drafts(self) -> str:
        """Why nobody guesses ahead; empty while somebody does, and where it is not known."""
        drafting = self.stats.drafting if self.stats else None
        return drafting.off if drafting and not drafting.by_drafter else ""

    @property
    def first_token(self) -> str:
        seconds = self.stats.ttft_s if self.stats else None
        return "" if seconds is None else f"first token {seconds:.2f} s"

    @property
    def latency(self) -> str:
        """Inter-token latency in milliseconds a token, and what one in a hundred exceeds; empty until it is known."""
        if self.stats is None or not self.stats.itl_s or not self.stats.itl_p99_s:
            return ""
        return f"ITL {milliseconds(self.stats.itl_s)}, p99 {milliseconds(self.stats.itl_p99_s)}"

    @property
    def energy(self) -> str:
        each = self.joules_per_token
        return "" if not each else f"energy {marked(f'{each:.2f}', self.source)} J/token"

    @property
    def cost(self) -> str:
        if not self.joules_per_token:
            return ""
        price = per_million(self.joules_per_token, self.usd_per_kwh).usd
        return f"electricity {marked(usd(price), self.source)}/M tokens"

    @property
    def api(self) -> str:
        return "" if not self.api_usd else f"an API: {usd(self.api_usd)} so far"


def milliseconds(seconds: float) -> str:
    """`12 ms`, `3.4 ms`, `0.12 ms`: two digits at least."""
    ms = 1e3 * seconds
    return f"{ms:.0f} ms" if ms >= 10 else f"{ms:.1f} ms" if ms >= 1 else f"{ms:.2f} ms"


class StatusLine(Widget):
    """One line; a part that does not fit is left out."""

    ALLOW_SELECT = False  # it is also the border to the pane below, to be dragged

    status: reactive[Status] = reactive(Status())

    def render(self) -> Content:
        status = self.status
        if self.size.width < CURVE_WIDTH:
            status = replace(status, speeds=(), narrow=True)
        colour = _COLOURS.get(status.phase, "$primary")
        return line_of(status.phase_text, status.details, colour, self.size.width - 2)


def line_of(head: str, details: list[str], colour: str, room: int) -> Content:
    """A dot and `head` in this colour, then those of `details` that have room, in their order."""
    head = set_cell_size(head, room - 2) if cell_len(head) > room - 2 else head
    free = room - cell_len(head) - 2
    parts = [Content.styled("● ", colour), Content.styled(head, f"bold {colour}")]
    for part in details:
        if cell_len(part) + 3 <= free:
            free -= cell_len(part) + 3
            parts.append(Content.styled("   " + part, "$foreground 60%"))
    return Content.assemble(*parts)
