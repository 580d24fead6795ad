"""Make a smaller form of a model that is here, with progress; a stop loses nothing."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from localinfer.events import OnProgress
from localinfer.hub.model import LocalModel, variant_of_bits
from localinfer.loading.tell import Tell

if TYPE_CHECKING:
    from localinfer.quantize import CalibrationText, Earlier, Method, QuantizeReport, Refining
    from localinfer.quantize.speeds import Speeds
    from localinfer.quantize.time_plan import TimePlan


@dataclass(frozen=True, slots=True)
class Limit:
    """How long it may all take: `seconds` since `started`, by `clock`; 0 is no limit. `speeds` None: measured."""

    seconds: float = 0.0
    report: bool = True
    """Whether it is to be measured afterwards, within the time."""
    clock: Callable[[], float] = time.monotonic
    started: float = field(default_factory=time.monotonic)
    speeds: "Speeds | None" = None


def make_small(
    source: LocalModel,
    bits: int,
    *,
    group: int | None = None,
    method: "Method | None" = None,
    calib: Sequence[str] = (),
    tokens: int | None = None,
    seed: int = 0,
    bits_per_weight: float | None = None,
    target_bytes: int | None = None,
    refine: "Refining | None" = None,
    limit: Limit | None = None,
    name: str | None = None,
    threads: int = 0,
    earlier: "Earlier" = "auto",
    tell: Tell,
) -> "tuple[QuantizeReport, TimePlan | None]":
    """Quantize `source` to `name:INT<bits>` among our models. Ctrl-C keeps what is done and says so.

    `method` None is what loses least at that width; `calib` (files, or `self` for the model's own words), `tokens` and
    `seed` say what it calibrates on. `refine` then trains it. `limit` is planned before anything is done: what cannot
    be done in it is refused or shortened, and said. `earlier`: what becomes of a stopped run.
    """
    from localinfer.chats.template import conversation
    from localinfer.hub.cache import variant_dir
    from localinfer.loading.self_calibration import calibration_files, forget_words
    from localinfer.quantize import DEFAULT_TOKENS, CalibrationText
    from localinfer.quantize.report import keep_report
    from localinfer.quantize.torch_installed import require_torch_for

    name, limit = name or source.name, limit or Limit()
    made = f"{name}:{variant_of_bits(bits)}"
    mixed = bits_per_weight is not None or target_bytes is not None
    require_torch_for(method or "rtn", mixed=mixed, refine=refine is not None)
    method = method or _usual_method(bits, source.path, tell)
    text = CalibrationText(tokens or DEFAULT_TOKENS, seed, (), conversation)
    sizes = {"bits_per_weight": bits_per_weight, "target_bytes": target_bytes}
    plan = _planned(source, bits, method, text, limit, calib, mixed=mixed, refine=refine, threads=threads, tell=tell)
    dest = variant_dir(name, variant_of_bits(bits))
    if plan is not None:
        method = method if plan.schedule.has("layers") else "rtn"
        text = replace(text, tokens=_tokens(plan, dest, earlier))
    settings: dict[str, Any] = {"bits": bits, "group": group, "method": method} | sizes
    limits: dict[str, Any] = {"threads": threads, "earlier": earlier}
    with tell.progress(long=True) as progress:
        try:
            if method != "rtn" or refine or mixed:
                left = partial(plan.left, "speaking") if plan is not None else no_end
                more: dict[str, Any] = {"refine": refine is not None, "left": left, "progress": progress}
                text = replace(text, files=calibration_files(source, dest, calib, text, **limits, **more))
            limits |= {"say": tell.note, "clock": limit.clock}
            report = _made(source.path, dest, made, settings, text, limits, plan, refine, progress)
        except KeyboardInterrupt:
            tell.warn("interrupted; the same command goes on where it stopped")
            raise
    keep_report(dest, report)
    forget_words(dest)
    return report, plan


def _tokens(plan: "TimePlan", dest: Path, earlier: "Earlier") -> int:
    """How many to calibrate on: as `plan` says, but a stopped run that is gone on with keeps its number."""
    from localinfer.quantize.journal import tokens_of_stopped

    stopped = None if earlier == "fresh" else tokens_of_stopped(dest.with_name(f"{dest.name}.partial"))
    return stopped or plan.tokens


def no_end() -> float:
    """Seconds that are left where there is no limit."""
    return math.inf


def _planned(
    source: LocalModel,
    bits: int,
    method: "Method",
    text: "CalibrationText",
    limit: Limit,
    calib: Sequence[str],
    *,
    mixed: bool,
    refine: "Refining | None",
    threads: int,
    tell: Tell,
) -> "TimePlan | None":
    """How the time is divided, said where something is shortened; None without a limit."""
    from localinfer.loading.self_calibration import SELF
    from localinfer.quantize.time_plan import Wish, plan_time, workers_of

    if not limit.seconds:
        return None
    wish = Wish(bits, method, text.tokens, mixed=mixed, refine=refine or "", speaks=SELF in calib, report=limit.report)
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


def _usual_method(bits: int, source: Path, tell: Tell) -> "Method":
    from localinfer.quantize import default_method

    method, remark = default_method(bits, source)
    if remark:
        tell.note(remark)
    return method


def _made(
    source: Path,
    dest: Path,
    name: str,
    settings: dict[str, Any],
    text: "CalibrationText",
    limits: dict[str, Any],
    plan: "TimePlan | None",
    refine: "Refining | None",
    progress: OnProgress,
) -> "QuantizeReport":
    """Quantize to `dest`, and refine; each for as long as `plan` says."""
    from localinfer.quantize import quantize_checkpoint, refine_checkpoint

    def telling(what: str) -> Callable[[int, int], None]:
        return lambda done, total: progress(f"{what} {name}", done, total)

    def make(where: Path) -> "QuantizeReport":
        time = plan.quantizing() if plan is not None else {}
        on_progress = telling("quantizing to")
        return quantize_checkpoint(source, where, text=text, on_progress=on_progress, **time, **limits, **settings)

    if not refine:
        return make(dest)
    time = plan.refining() if plan is not None else {}
    training = limits | time | {"on_progress": telling("refining")}
    return refine_checkpoint(source, dest, make, settings, method=refine, text=text, **training)
