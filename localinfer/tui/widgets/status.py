"""The line at the bottom: what goes on, how fast, how full."""

from dataclasses import dataclass
from typing import Literal

from textual.content import Content
from textual.reactive import reactive
from textual.widget import Widget

from localinfer.cost.prices import per_million
from localinfer.events import Stats, gain_in_words
from localinfer.text import one_line

Phase = Literal["loading", "ready", "queued", "prefill", "decode", "stopping", "failed"]

_COLOURS: dict[Phase, str] = {"decode": "$success", "ready": "$foreground 70%", "failed": "$error"}


@dataclass(frozen=True, slots=True)
class Status:
    """All that the line shows. `percent` belongs to the phase, `elapsed` is seconds since the prompt was sent."""

    phase: Phase = "loading"
    percent: int | None = None
    stage: str = ""
    elapsed: float | None = None
    stats: Stats | None = None
    context_size: int | None = None
    joules_per_token: float | None = None

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
        drafts = [self._drafts] if self._drafts else []
        return [self._speed, *drafts, self._first_token, self._context, self._energy, self._cost]

    @property
    def _speed(self) -> str:
        if self.stats is None:
            return "– tok/s"
        per_phase = {"prefill": self.stats.prefill_tok_s, "decode": self.stats.recent_tok_s or self.stats.decode_tok_s}
        speed = per_phase.get(self.phase, self.stats.decode_tok_s)
        return "– tok/s" if speed is None else f"{speed:.1f} tok/s"

    @property
    def _drafts(self) -> str:
        """What guessing ahead has won, or why it does nothing; empty where it is off or there is nothing to say yet."""
        drafting = self.stats.drafting if self.stats else None
        if drafting is None:
            return ""
        if not drafting.by_drafter:
            return f"no drafts: {drafting.off}" if drafting.off else ""
        tried, right = (sum(getattr(one, name) for one in drafting.by_drafter) for name in ("tried", "right"))
        return f"{gain_in_words(drafting)}, {right / max(1, tried):.0%} right"

    @property
    def _first_token(self) -> str:
        seconds = self.stats.ttft_s if self.stats else None
        return "first token –" if seconds is None else f"first token {seconds:.2f} s"

    @property
    def _context(self) -> str:
        size = self.stats.context_size if self.stats else self.context_size
        if not size:
            return "context –"
        used = self.stats.context_used if self.stats else 0
        return f"context {used}/{size} ({used / size:.0%})"

    @property
    def _energy(self) -> str:
        return "energy –" if self.joules_per_token is None else f"energy {self.joules_per_token:.2f} J/token"

    @property
    def _cost(self) -> str:
        if self.joules_per_token is None:
            return "cost –"
        return f"electricity ${per_million(self.joules_per_token).usd:.2f}/M tokens"


class StatusLine(Widget):
    """One line; parts that do not fit are left out, the last ones first."""

    status: reactive[Status] = reactive(Status())

    def render(self) -> Content:
        status = self.status
        room = self.size.width - 2
        head = status.phase_text
        shown: list[str] = []
        for part in status.details:
            if len("   ".join([head, *shown, part])) > room:
                break
            shown.append(part)
        colour = _COLOURS.get(status.phase, "$primary")
        parts = [Content.styled("● ", colour), Content.styled(head, f"bold {colour}")]
        parts += [Content.styled("   " + part, "$foreground 60%") for part in shown]
        return Content.assemble(*parts)
