"""The line at the bottom of a pane: what goes on, how fast, how full."""

from dataclasses import dataclass, replace
from typing import Literal

from textual.content import Content
from textual.reactive import reactive
from textual.widget import Widget

from localinfer.cost.bill import usd
from localinfer.cost.energy import Source, marked
from localinfer.cost.prices import USD_PER_KWH, per_million
from localinfer.events import Stats, gain_in_words
from localinfer.text import one_line

Phase = Literal["loading", "ready", "queued", "parked", "prefill", "decode", "stopping", "failed"]

_COLOURS: dict[Phase, str] = {
    "decode": "$success",
    "ready": "$foreground 70%",
    "failed": "$error",
    "parked": "$warning",
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
        """The other parts, the most telling first; a dash where nothing is known."""
        parts = [
            self._speed,
            self.drafts,
            self.first_token,
            self.context,
            self.latency,
            self.energy,
            self.cost,
            self.api,
        ]
        return [part for part in parts if part]

    @property
    def tok_s(self) -> float | None:
        """Tokens a second in this phase."""
        if self.stats is None:
            return None
        per_phase = {"prefill": self.stats.prefill_tok_s, "decode": self.stats.recent_tok_s or self.stats.decode_tok_s}
        return per_phase.get(self.phase, self.stats.decode_tok_s)

    @property
    def _speed(self) -> str:
        curve = f" {sparkline(self.speeds)}" if len(self.speeds) > 1 else ""
        return "– tok/s" if self.tok_s is None else f"{self.tok_s:.1f} tok/s{curve}"

    @property
    def drafts(self) -> str:
        """What guessing ahead has won, or why it does nothing; empty where it is off or there is nothing to say yet."""
        drafting = self.stats.drafting if self.stats else None
        if drafting is None:
            return ""
        if not drafting.by_drafter:
            return f"no drafts: {drafting.off}" if drafting.off else ""
        tried, right = (sum(getattr(one, name) for one in drafting.by_drafter) for name in ("tried", "right"))
        return f"{gain_in_words(drafting)}, {right / max(1, tried):.0%} right"

    @property
    def first_token(self) -> str:
        seconds = self.stats.ttft_s if self.stats else None
        return "first token –" if seconds is None else f"first token {seconds:.2f} s"

    @property
    def context(self) -> str:
        size = self.stats.context_size if self.stats else self.context_size
        if not size:
            return "context –"
        used = self.stats.context_used if self.stats else 0
        return f"context {used}/{size} ({used / size:.0%})"

    @property
    def latency(self) -> str:
        """Inter-token latency, the median and one in a hundred; empty until it is known."""
        if self.stats is None or self.stats.itl_s is None or self.stats.itl_p99_s is None:
            return ""
        return f"ITL {1e3 * self.stats.itl_s:.0f} ms, p99 {1e3 * self.stats.itl_p99_s:.0f}"

    @property
    def energy(self) -> str:
        return (
            "energy –"
            if self.joules_per_token is None
            else f"energy {marked(f'{self.joules_per_token:.2f}', self.source)} J/token"
        )

    @property
    def cost(self) -> str:
        if self.joules_per_token is None:
            return "cost –"
        price = per_million(self.joules_per_token, self.usd_per_kwh).usd
        return f"electricity {marked(usd(price), self.source)}/M tokens"

    @property
    def api(self) -> str:
        return "API –" if self.api_usd is None else f"an API: {usd(self.api_usd)} so far"


class StatusLine(Widget):
    """One line; parts that do not fit are left out, the last ones first."""

    status: reactive[Status] = reactive(Status())

    def render(self) -> Content:
        status = self.status if self.size.width >= CURVE_WIDTH else replace(self.status, speeds=())
        colour = _COLOURS.get(status.phase, "$primary")
        return line_of(status.phase_text, status.details, colour, self.size.width - 2)


def line_of(head: str, details: list[str], colour: str, room: int) -> Content:
    """A dot and `head` in this colour, then as many of `details` as have room."""
    shown: list[str] = []
    for part in details:
        if len("   ".join([head, *shown, part])) > room:
            break
        shown.append(part)
    parts = [Content.styled("● ", colour), Content.styled(head, f"bold {colour}")]
    parts += [Content.styled("   " + part, "$foreground 60%") for part in shown]
    return Content.assemble(*parts)
