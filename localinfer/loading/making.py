"""Make a smaller form of a model that is here, with progress; a stop loses nothing."""

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from localinfer.events import OnProgress
from localinfer.hub.model import LocalModel, variant_of_bits
from localinfer.loading.tell import Tell

if TYPE_CHECKING:
    from localinfer.quantize import CalibrationText, Earlier, QuantizeReport, Refining
    from localinfer.quantize.pace import Expected
    from localinfer.quantize.plan import HeadBits
    from localinfer.quantize.recipe import Asked, Recipe
    from localinfer.quantize.speeds import Speeds
    from localinfer.quantize.time_plan import TimePlan, Wish


@dataclass(frozen=True, slots=True)
class Limit:
    """How long it may all take: `seconds` since `started`, by `clock`; 0 is no limit. `speeds` None: measured."""

    seconds: float = 0.0
    report: bool = True
    """Whether it is to be measured afterwards, within the time."""
    clock: Callable[[], float] = time.monotonic
    started: float = field(default_factory=time.monotonic)
    speeds: "Speeds | None" = None


SHORT_REPORT_S = 20.0

BUSY = 0.8
"""Share of the processors below which it is said that other programs use them."""

LONG_BYTES = 32 << 20
"""Of a source, from which on quantizing takes long enough to say beforehand how long."""


@dataclass(frozen=True, slots=True)
class Making:
    """What was made: the report, how it was made, and the seconds that were expected of each phase, if any were."""

    report: "QuantizeReport"
    recipe: "Recipe"
    expected_s: Mapping[str, float]
    plan: "TimePlan | None"
    """How the time was divided, where it was limited."""
    report_s: float = math.inf
    """Seconds that measuring what it lost is worth, where no plan says that."""


def make_small(
    source: LocalModel,
    bits: int,
    *,
    group: int | None = None,
    head: "HeadBits" = 8,
    asked: "Asked | None" = None,
    calib: Sequence[str] = (),
    seed: int = 0,
    bits_per_weight: float | None = None,
    target_bytes: int | None = None,
    uniform: bool = False,
    limit: Limit | None = None,
    name: str | None = None,
    threads: int = 0,
    earlier: "Earlier" = "auto",
    tell: Tell,
) -> Making:
    """Quantize `source` to `name:INT<bits>` among our models. Ctrl-C keeps what is done and says so.

    `asked` None is the default effort. `calib` (files, or `self` for text that the model writes) and `seed` say what is
    calibrated on. `limit` is planned before: what cannot be done in it is refused or shortened, and said; without one
    it is said how long all takes here. `earlier`: what becomes of a stopped run. Three bits are a mix of the same
    bytes, unless it is to be `uniform`, has a `group`, or is limited.
    """
    from localinfer.chats.template import conversation
    from localinfer.hub.cache import variant_dir
    from localinfer.loading.self_calibration import calibration_files, forget_words
    from localinfer.quantize import CalibrationText
    from localinfer.quantize.recipe import Asked
    from localinfer.quantize.report import keep_report

    name, limit, variant = name or source.name, limit or Limit(), variant_of_bits(bits)
    mixed = bool(bits_per_weight or target_bytes)
    recipe = chosen_recipe(source, bits, asked or Asked(), mixed=mixed, tell=tell)
    if not (mixed or uniform or group):
        mixed = bool(bits_per_weight := _usual_mix(source, bits, recipe, limit, tell))
    method, refine = recipe.method, recipe.refine
    text = CalibrationText(recipe.tokens, seed, (), conversation)
    wish = _wish(recipe, bits, calib, mixed=mixed, head=head, report=limit.report)
    plan = _planned(source, wish, limit, threads, tell)
    expected_s, expected = _told(source, wish, recipe, limit, threads, tell)
    made, dest = f"{name}:{variant}", variant_dir(name, variant)
    if plan is not None:
        method = method if plan.schedule.has("layers") else "rtn"
        text = replace(text, tokens=_tokens(plan, dest, earlier))
    settings: dict[str, Any] = {"bits": bits, "group": group, "head": head, "method": method}
    settings |= {"bits_per_weight": bits_per_weight, "target_bytes": target_bytes}
    limits: dict[str, Any] = {"threads": threads, "earlier": earlier}
    with tell.progress(long=True) as progress, stoppable(tell):
        if method != "rtn" or refine or mixed:
            left = partial(plan.left, "speaking") if plan is not None else no_end
            more: dict[str, Any] = {"refine": refine is not None, "left": left, "progress": progress, "say": tell.note}
            text = replace(text, files=calibration_files(source, dest, calib, text, **limits, **more))
        limits |= {"say": tell.note, "clock": limit.clock}
        quantizing = {"on_speed": tell.speed} | (plan.quantizing() if plan else {"expected": expected})
        report = _made(source.path, dest, made, settings, text, limits, quantizing, plan, refine, progress)
    keep_report(dest, report)
    forget_words(dest)
    return Making(report, recipe, expected_s, plan, _report_seconds(recipe, report.seconds))


@contextmanager
def stoppable(tell: Tell) -> Iterator[None]:
    """Say at Ctrl-C that nothing is lost."""
    try:
        yield
    except KeyboardInterrupt:
        tell.warn("interrupted; the same command goes on where it stopped")
        raise


def chosen_recipe(source: LocalModel, bits: int, asked: "Asked", *, mixed: bool, tell: Tell) -> "Recipe":
    """What is `asked` for, for `source`. Raises `NotSupported` where torch is lacking for that."""
    from localinfer.graph.weights import Checkpoint
    from localinfer.quantize.plan import TABLE_BITS
    from localinfer.quantize.recipe import RECIPES, recipe_of
    from localinfer.quantize.torch_installed import require_torch_for

    recipe, remark = recipe_of(asked, bits, source.path)
    if remark:
        tell.note(remark)
    best = asked.effort == "best" and bits != TABLE_BITS and not Checkpoint(source.path).graph.not_trained
    wanted = asked.method or (RECIPES["best"].method if best else "rtn")
    require_torch_for(wanted, mixed=mixed, refine=recipe.refine is not None)
    return recipe


def _usual_mix(source: LocalModel, bits: int, recipe: "Recipe", limit: Limit, tell: Tell) -> float | None:
    """Bits a weight of the mix that has the bytes of one width, where it loses clearly less than that; said."""
    from localinfer.graph.weights import Checkpoint
    from localinfer.quantize.plan import MIXED_BITS, choose_groups
    from localinfer.quantize.torch_installed import has_torch

    if bits != MIXED_BITS or recipe.method == "rtn" or not has_torch():
        return None
    if limit.seconds:
        tell.note("all layers get one width, since dealing them out takes time; `--bpw` mixes them all the same")
        return None
    graph = Checkpoint(source.path).graph
    if graph.not_calibrated:
        return None
    found = bits + 16 / choose_groups(graph, bits, None)[0]
    tell.note(f"layers get from {bits} bits up, {found:g} bits a weight in all; `--uniform` makes them alike")
    return found


def _wish(recipe: "Recipe", bits: int, calib: Sequence[str], *, mixed: bool, head: int, report: bool) -> "Wish":
    """What is to be done, for those who estimate it."""
    from localinfer.loading.self_calibration import SELF
    from localinfer.quantize.calibration import about_tokens
    from localinfer.quantize.estimates import LEAST_TOKENS
    from localinfer.quantize.time_plan import Wish

    sides: dict[str, Any] = {"mixed": mixed, "refine": recipe.refine or "", "head": head, "report": report}
    if SELF in calib:
        return Wish(bits, recipe.method, recipe.tokens, speaks=True, **sides)
    most = max(LEAST_TOKENS, about_tokens([Path(name).expanduser() for name in calib]))
    return Wish(bits, recipe.method, min(recipe.tokens, most), most=most, **sides)


def _report_seconds(recipe: "Recipe", made_in: float) -> float:
    """How long to measure what was made in so many seconds: after `quick` no longer than that, or a little."""
    return max(SHORT_REPORT_S, made_in) if recipe.effort == "quick" else math.inf


def _tokens(plan: "TimePlan", dest: Path, earlier: "Earlier") -> int:
    """How many to calibrate on: as `plan` says, but a stopped run that is gone on with keeps its number."""
    from localinfer.quantize.journal import tokens_of_stopped

    stopped = None if earlier == "fresh" else tokens_of_stopped(dest.with_name(f"{dest.name}.partial"))
    return stopped or plan.tokens


def no_end() -> float:
    """Seconds that are left where there is no limit."""
    return math.inf


def _planned(source: LocalModel, wish: "Wish", limit: Limit, threads: int, tell: Tell) -> "TimePlan | None":
    """How the time is divided, said where something is shortened; None without a limit."""
    from localinfer.quantize.time_plan import plan_time, workers_of

    if not limit.seconds:
        return None
    plan = plan_time(
        source.path,
        wish,
        limit.seconds,
        workers=workers_of(threads),
        started=limit.started,
        clock=limit.clock,
        speeds=limit.speeds,
    )
    for words in plan.notes:
        tell.note(words)
    return plan


def _told(
    source: LocalModel,
    wish: "Wish",
    recipe: "Recipe",
    limit: Limit,
    threads: int,
    tell: Tell,
) -> "tuple[dict[str, float], Expected | None]":
    """Say how it will be made, and without a limit how long that takes here; the seconds of each phase, and what a
    layer and a weight are expected to take."""
    from localinfer.graph.weights import Checkpoint
    from localinfer.quantize.estimates import Costs
    from localinfer.quantize.schedule import in_seconds
    from localinfer.quantize.speeds import measure_speeds
    from localinfer.quantize.time_plan import expected_layer, expected_seconds, workers_of

    how = f"INT{wish.bits} by {recipe.words}"
    if limit.seconds or (limit.speeds is None and Checkpoint(source.path).nbytes < LONG_BYTES):
        tell.note(how)
        return {}, None
    speeds = limit.speeds or measure_speeds(workers_of(threads), torch=wish.takes_torch)
    costs = Costs.of(source.path, wish.bits, speeds)
    phases = expected_seconds(costs, wish)
    if "report" in phases:
        before = sum(phases.values()) - phases["report"]
        phases["report"] = min(phases["report"], _report_seconds(recipe, before))
    parts = ", ".join(f"{name} {in_seconds(seconds)}" for name, seconds in phases.items())
    busy = f"; other programs leave {speeds.share:.0%} of the processors" if speeds.share < BUSY else ""
    tell.note(f"{how}: about {in_seconds(sum(phases.values()))} here ({parts}){busy}")
    return phases, expected_layer(costs, wish)


def _made(
    source: Path,
    dest: Path,
    name: str,
    settings: dict[str, Any],
    text: "CalibrationText",
    limits: dict[str, Any],
    quantizing: dict[str, Any],
    plan: "TimePlan | None",
    refine: "Refining | None",
    progress: OnProgress,
) -> "QuantizeReport":
    """Quantize to `dest`, and refine; each for as long as `plan` says."""
    from localinfer.quantize import quantize_checkpoint, refine_checkpoint

    def telling(what: str) -> Callable[[int, int], None]:
        return lambda done, total: progress(f"{what} {name}", done, total)

    def make(where: Path) -> "QuantizeReport":
        on_progress = telling("quantizing to")
        return quantize_checkpoint(
            source, where, text=text, on_progress=on_progress, **quantizing, **limits, **settings
        )

    if not refine:
        return make(dest)
    time = plan.refining() if plan is not None else {}
    training = limits | time | {"on_progress": telling("refining")}
    return refine_checkpoint(source, dest, make, settings, method=refine, text=text, **training)
