"""`--time-budget`: which phases of quantizing take place, how long each may take, and how much of its work it does."""

import os
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from localinfer.quantize.calibration import LENGTH
from localinfer.quantize.estimates import LEAST_TOKENS, Costs
from localinfer.quantize.pace import Expected
from localinfer.quantize.plan import TABLE_BITS, Method
from localinfer.quantize.schedule import SAFETY, Clock, Phase, Running, Schedule, in_seconds, largest, scheduled
from localinfer.quantize.speeds import Speeds, measure_speeds
from localinfer.quantize.torch_installed import TORCHLESS

FLAG = "`--time-budget`"
LEAST_CHUNKS, ALL_CHUNKS, FLOOR_CHUNKS = 2, 24, 4
"""Chunks of a report that is of any use, those of a whole one, and those that its floor takes."""

LOOKING = 0.35
"""Share of the time for refining that may go into looks at held-out text."""

TOGETHER = 8
"""Texts that the model writes side by side."""

MORE_TEXT = 4
"""Times as many tokens are trained on as are calibrated on, if the text has them."""

FORMS = 7
"""Widths and groups that are tried where widths are mixed, at most."""


@dataclass(frozen=True, slots=True)
class Wish:
    """What was asked for."""

    bits: int
    method: Method
    tokens: int
    """To calibrate on; refining takes `MORE_TEXT` times as many."""
    mixed: bool = False
    """Whether widths are mixed."""
    refine: str = ""
    """`kl` or `qat`."""
    speaks: bool = False
    """Whether the original writes the text."""
    report: bool = True
    head: int = TABLE_BITS
    """Bits of the head."""
    most: int = 1 << 40
    """Tokens that the text has, about."""

    @property
    def takes_torch(self) -> bool:
        """Whether a part of it is torch's to do."""
        return self.method not in TORCHLESS or self.mixed or bool(self.refine)

    @property
    def text_tokens(self) -> int:
        """Of all text that is read."""
        return min(self.most, self.tokens * (MORE_TEXT if self.refine else 1))


@dataclass(frozen=True, slots=True)
class Effort:
    """How much refining looks, and how many sequences it trains the layers on one by one; what is usual by default."""

    held_out: int = 8
    checks: int = 5
    sequences: int = 32
    judges: int = 4
    passes: int = 3
    ending_s: float = 0.0
    """Seconds to leave for writing the result."""
    least_s: float = 0.0
    """Seconds without which refining is not begun."""


@dataclass(frozen=True, slots=True)
class TimePlan(Running):
    """What will be done. `notes` tell what is shortened."""

    tokens: int
    spoken_tokens: int
    layer_s: float
    """What a layer by the method is expected to take."""
    weight_s: float
    """What rounding a weight is expected to take."""
    beside_s: float
    """What is not counted, at the end."""
    effort: Effort
    notes: tuple[str, ...]

    def quantizing(self) -> dict[str, Any]:
        """What `quantize_checkpoint` is to be given, if it begins now."""
        last = "layers" if self.schedule.has("layers") else "rounding"
        return {
            "seconds": max(1e-3, self.left(last) - self.beside_s),
            "expected": Expected(self.layer_s, self.weight_s),
        }

    def refining(self) -> dict[str, Any]:
        """What `refine_checkpoint` is to be given, if it begins now, quantizing included."""
        return {"seconds": max(1e-3, self.left("refining")), "effort": self.effort}


def workers_of(threads: int) -> int:
    """How many threads quantizing takes, where so many are asked for; 0: not said."""
    return threads or os.cpu_count() or 1


def plan_time(
    source: Path,
    wish: Wish,
    seconds: float,
    *,
    workers: int,
    started: float,
    clock: Clock = time.monotonic,
    speeds: Speeds | None = None,
) -> TimePlan:
    """Divide `seconds` since `started`. `speeds` None: measured now, what torch does only once it could be in time.

    Raises `UsageError` for a time in which it cannot be done, with the numbers.
    """

    def divided(costs: Costs, *, loaded: bool = True) -> Schedule:
        phases = _phases(costs, wish, loaded=loaded)
        return scheduled(phases, seconds, used=clock() - started, flag=FLAG, job=f"INT{wish.bits}")

    costs = Costs.of(source, wish.bits, speeds or measure_speeds(workers, torch=False))
    schedule = divided(costs, loaded=speeds is not None)
    if speeds is None and wish.takes_torch and any(map(schedule.has, ("layers", "mixing", "refining"))):
        costs = replace(costs, speeds=measure_speeds(workers, torch=True))
        schedule = divided(costs)
    return _plan(costs, wish, schedule, started, clock)


def expected_seconds(costs: Costs, wish: Wish) -> dict[str, float]:
    """What each phase of `wish` is expected to take, all of it, without a limit and without the safety of one."""
    return {phase.name: phase.full / SAFETY for phase in _phases(costs, wish, loaded=True)}


def expected_layer(costs: Costs, wish: Wish) -> Expected:
    """The same of one layer by the method, and of one weight rounded to the nearest."""
    layer = costs.layer(wish.method, wish.tokens) if wish.method != "rtn" else 0.0
    head = costs.narrow_head(wish.method, wish.tokens)
    return Expected(layer / SAFETY, costs.rounding() / SAFETY / costs.weights, head / SAFETY)


def _phases(costs: Costs, wish: Wish, *, loaded: bool) -> list[Phase]:
    """In their order. Not `loaded`: torch is to come, and its speed is not known, but taken to be great."""
    loading = 0.0 if loaded or not wish.takes_torch else costs.torch()
    needed = bool(loading) and (wish.mixed or bool(wish.refine))
    found = [Phase("loading torch", loading, loading)] if needed else []
    if wish.speaks:
        spoken = wish.text_tokens
        least = costs.speaking(LEAST_TOKENS + LENGTH, TOGETHER)
        found.append(Phase("speaking", least, max(least, costs.speaking(spoken, TOGETHER))))
    if wish.mixed:
        mixing = costs.widths_chosen(FORMS)
        found.append(Phase("mixing", mixing, mixing))
    beside = costs.beside()
    found.append(Phase("rounding", beside + costs.rounding(hasty=True), beside + costs.rounding()))
    if wish.method != "rtn":
        least, full = (costs.layer(wish.method, tokens) for tokens in (LEAST_TOKENS, wish.tokens))
        least += 0.0 if needed else loading
        head = costs.narrow_head(wish.method, wish.tokens) if wish.head < TABLE_BITS else 0.0
        found.append(Phase("layers", least, max(least, costs.layers * full + head), needed=False))
    if wish.refine:
        least = _refining(costs, wish, Effort(1, 1, 0)) + 2 * costs.step()
        refined = _refining(costs, wish, Effort()) + 2 * wish.text_tokens / LENGTH * costs.step()
        found.append(Phase("refining", least, max(least, refined)))
    if wish.report:
        least, full = (costs.report(chunks, FLOOR_CHUNKS) for chunks in (LEAST_CHUNKS, ALL_CHUNKS))
        found.append(Phase("report", least, full, needed=False))
    return found


def _refining(costs: Costs, wish: Wish, effort: Effort) -> float:
    one_by_one = effort.sequences if wish.refine == "qat" else 0
    return costs.refined(effort.held_out, effort.checks, one_by_one, effort.judges, effort.passes)


def _plan(costs: Costs, wish: Wish, schedule: Schedule, started: float, clock: Clock) -> TimePlan:
    """How much of its work each phase does in its time, and what to say of that."""
    notes = []
    tokens, spoken = wish.tokens, wish.text_tokens
    if schedule.has("layers"):
        tokens = costs.tokens(wish.method, wish.tokens, schedule.seconds["layers"])
        if tokens < wish.tokens // LENGTH * LENGTH:
            notes.append(f"calibrating on {tokens} tokens, not {wish.tokens}")
    elif wish.method != "rtn":
        notes.append(f"no time for {wish.method}: rounding to the nearest")
    if schedule.has("speaking"):
        room = schedule.seconds["speaking"]
        fit = largest(lambda count: costs.speaking(count, TOGETHER) <= room, LEAST_TOKENS + LENGTH, spoken)
        if fit < spoken:
            notes.append(f"letting the model write about {fit} tokens, not {spoken}")
    effort = _effort(costs, wish, schedule.seconds["refining"]) if schedule.has("refining") else Effort()
    if wish.report and not schedule.has("report"):
        least = in_seconds(costs.report(LEAST_CHUNKS, FLOOR_CHUNKS))
        notes.append(f"no time to measure what it lost, which takes about {least} at the least")
    return TimePlan(
        schedule,
        started,
        clock,
        tokens,
        spoken,
        costs.layer(wish.method, tokens) if wish.method != "rtn" else 0.0,
        costs.rounding() / costs.weights,
        costs.beside(),
        effort,
        tuple(notes),
    )


def _effort(costs: Costs, wish: Wish, seconds: float) -> Effort:
    """The most looks at held-out text that leave time to learn, and the same of sequences for the layers."""
    ending = 3 * (costs.source_bytes + 2 * costs.made_bytes) / costs.speeds.hashing
    looking = [Effort(held, checks, 0) for held in (8, 4, 2, 1) for checks in (5, 3, 2, 1)]
    room = max(0.0, seconds - ending - costs.loading())
    bare = _refining(costs, wish, Effort(0, 0, 0))
    chosen = next((one for one in looking if _refining(costs, wish, one) - bare <= LOOKING * room), looking[-1])
    if wish.refine == "qat":
        usual = Effort()
        sizes = [Effort(chosen.held_out, chosen.checks, n, min(usual.judges, chosen.held_out)) for n in (32, 16, 8, 4)]
        fits = (one for one in sizes if _refining(costs, wish, one) <= 2 * LOOKING * room + bare)
        chosen = next(fits, replace(chosen, sequences=0))
    least = _refining(costs, wish, Effort(1, 1, 0)) + 2 * costs.step()
    return replace(chosen, ending_s=ending, least_s=max(0.0, least - ending) / SAFETY)
