"""Make a smaller form of a model that is here, with progress; a stop loses nothing."""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from localinfer.cli.output import note
from localinfer.hub.model import LocalModel, variant_of_bits

if TYPE_CHECKING:
    from localinfer.cli.progress import Progress
    from localinfer.quantize import CalibrationText, Earlier, Method, QuantizeReport, Refining


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
    seconds: float = 0.0,
    name: str | None = None,
    threads: int = 0,
    earlier: "Earlier" = "auto",
    quiet: bool,
) -> "QuantizeReport":
    """Quantize `source` to `name:INT<bits>` among our models. Ctrl-C keeps what is done and says so.

    `method` None is what loses least at that width; `calib` (files, or `self` for the model's own words), `tokens` and
    `seed` say what it calibrates on. `refine` then trains it. All takes `seconds` at most if that is not 0.
    `earlier`: what becomes of a stopped run.
    """
    from localinfer.chats.template import conversation
    from localinfer.cli.own_words import calibration_files, forget_words
    from localinfer.cli.progress import Progress
    from localinfer.hub.cache import variant_dir
    from localinfer.quantize import DEFAULT_TOKENS, CalibrationText
    from localinfer.quantize.report import keep_report

    name = name or source.name
    made = f"{name}:{variant_of_bits(bits)}"
    method = method or _usual_method(bits, quiet)
    text = CalibrationText(tokens or DEFAULT_TOKENS, seed, (), conversation)
    sizes = {"bits_per_weight": bits_per_weight, "target_bytes": target_bytes}
    settings: dict[str, Any] = {"bits": bits, "group": group, "method": method} | sizes
    dest = variant_dir(name, variant_of_bits(bits))
    limits: dict[str, Any] = {"threads": threads, "earlier": earlier}
    with Progress(long=True, quiet=quiet) as progress:
        try:
            begun = time.monotonic()
            if method != "rtn" or refine or bits_per_weight is not None or target_bytes is not None:
                trained = refine is not None
                files = calibration_files(source, dest, calib, text, refine=trained, **limits, progress=progress)
                text = replace(text, files=files)
            limits["say"] = _remarks(progress, quiet)
            seconds = max(1.0, seconds - (time.monotonic() - begun)) if seconds else 0.0
            report = _made(source.path, dest, made, settings, text, limits, seconds, refine, progress)
        except KeyboardInterrupt:
            progress.clear()
            note("interrupted; the same command goes on where it stopped")
            raise
    keep_report(dest, report)
    forget_words(dest)
    return report


def _remarks(progress: "Progress", quiet: bool) -> Callable[[str], None]:
    def say(words: str) -> None:
        progress.clear()
        if not quiet:
            note(words)

    return say


def _usual_method(bits: int, quiet: bool) -> "Method":
    from localinfer.quantize import default_method

    method, remark = default_method(bits)
    if remark and not quiet:
        note(remark)
    return method


def _made(
    source: Path,
    dest: Path,
    name: str,
    settings: dict[str, Any],
    text: "CalibrationText",
    limits: dict[str, Any],
    seconds: float,
    refine: "Refining | None",
    progress: "Progress",
) -> "QuantizeReport":
    """Quantize to `dest`, and refine; a method may use half of the time that is to be shared with refining."""
    from localinfer.quantize import quantize_checkpoint, refine_checkpoint

    def tell(what: str) -> Callable[[int, int], None]:
        return lambda done, total: progress(f"{what} {name}", done, total)

    def make(where: Path) -> "QuantizeReport":
        time = seconds / 2 if refine else seconds
        on_progress = tell("quantizing to")
        return quantize_checkpoint(
            source, where, text=text, seconds=time, on_progress=on_progress, **limits, **settings
        )

    if not refine:
        return make(dest)
    training = limits | {"seconds": seconds, "on_progress": tell("refining")}
    return refine_checkpoint(source, dest, make, settings, method=refine, text=text, **training)
