"""`quantize --refine kl`: a quantized model is made, its scales and norm gains are trained, and it is written again.

All happens in `<dest>.partial`: `rough` is the model as quantized, `state.safetensors` is where the training stands,
`made` is the result, which becomes `dest` in one step. The integers stay as they are.
"""

import importlib.util
import json
import math
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from localinfer.errors import LocalInferError, NotSupported, UsageError
from localinfer.formats.durable import sync, write_bytes, write_failed, write_json
from localinfer.formats.json_files import TOKENIZER_LIMIT, read_bytes, read_object
from localinfer.formats.layout import INDEX
from localinfer.formats.safetensors import SafetensorsFile, write_safetensors
from localinfer.formats.tokenizer import Tokenizer
from localinfer.graph.registry import family_for
from localinfer.graph.weights import Checkpoint
from localinfer.quantize.calibration import CalibrationText, calibration
from localinfer.quantize.checkpoint import calibrated_on
from localinfer.quantize.journal import Earlier, Journal, locked, publish, sha256
from localinfer.quantize.origin import Origin
from localinfer.quantize.plan import TABLE_BITS
from localinfer.quantize.report import RECORD, QuantizeReport, peak_bytes, tell_errors_again, worst

if TYPE_CHECKING:
    from localinfer.quantize.distill import Distillation, State

VERSION = 1
"""Counts the changes of the training: a run is not resumed with another."""

MORE_TEXT = 4
"""Times as many tokens are trained on as are calibrated on, if the text has them."""

SAVE_S = 60.0
"""Seconds of training that a kill may lose."""

STATE, REPORT = "state.safetensors", "report.json"
_TENSORS = ("change", "mean", "square", "best")

Make = Callable[[Path], QuantizeReport]
"""Quantizes the source into a folder."""


def refine_checkpoint(
    source: Path,
    dest: Path,
    make: Make,
    settings: dict[str, Any],
    *,
    text: CalibrationText | None = None,
    seconds: float = 0.0,
    threads: int = 0,
    earlier: Earlier = "auto",
    on_progress: Callable[[int, int], None] | None = None,
    say: Callable[[str], None] = lambda text: None,
    clock: Callable[[], float] = time.monotonic,
) -> QuantizeReport:
    """Write to `dest` what `make` makes of `source`, trained to speak like `source`; never worse on held-out text.

    `settings` are those of `make`, as JSON. `seconds` limit all of it, `make` included; 0: until the text was gone over
    twice, and then the same call gives the same bytes. Stopped at any time, it goes on where it was; `earlier` and
    `say` as `quantize_checkpoint` has them. Raises what `make` raises.
    """
    if importlib.util.find_spec("torch") is None:
        raise NotSupported(
            "refining needs torch, which is not installed", hint="`pip install localinfer[quantize]`, or leave it out"
        )
    if settings.get("bits") == TABLE_BITS:
        raise UsageError("8 bits lose too little to be refined", hint="leave out `--refine`")
    if dest.exists():
        raise UsageError(f"{dest} is there already", hint="remove it first, or use it")
    started = time.monotonic()
    source, dest, text = source.resolve(), dest.absolute(), text or CalibrationText()
    workers = threads or os.cpu_count() or 1
    tokens = calibration(Tokenizer(source), text.render, MORE_TEXT * text.tokens, text.seed, text.files)
    partial = dest.with_name(dest.name + ".partial")
    with locked(partial):
        origin = Origin(source)
        told = settings | {"refine": VERSION, "tokens": text.tokens, "seed": text.seed}
        told |= {"calibration": calibrated_on(tokens, workers)}
        Journal(partial, told, origin.said, earlier=earlier, say=say)
        report = _rough(partial, make)
        left = max(1.0, seconds - report.seconds) if seconds else 0.0
        state, note = _trained(source, partial, tokens, text.seed, left, workers, on_progress, clock)
        origin.require_unchanged()
        if dest.exists():
            raise UsageError(f"{dest} is there already", hint="another process has just made it; use it")
        _write(partial / "rough", partial / "made", state, note)
        errors = tell_errors_again(source, partial / "rough", partial / "made")
        publish(partial / "made", dest)
        shutil.rmtree(partial, ignore_errors=True)
    size = sum(file.stat().st_size for file in dest.iterdir())
    said: dict[str, Any] = {"notes": (*report.notes, note["text"]), **worst(errors)}
    peak = max(report.peak_bytes, peak_bytes())
    return replace(report, size_bytes=size, seconds=time.monotonic() - started, peak_bytes=peak, **said)


def _rough(partial: Path, make: Make) -> QuantizeReport:
    """The model to start from, made now or found made."""
    rough, told = partial / "rough", partial / REPORT
    if rough.exists() and told.exists():
        values = read_object(told)
        values |= {"notes": tuple(values["notes"]), "worst_tensors": tuple(map(tuple, values["worst_tensors"]))}
        return QuantizeReport(**{field.name: values[field.name] for field in fields(QuantizeReport)})
    shutil.rmtree(rough, ignore_errors=True)
    report = make(rough)
    write_json(told, asdict(report))
    return report


def _trained(
    source: Path,
    partial: Path,
    tokens: NDArray[np.int32],
    seed: int,
    seconds: float,
    workers: int,
    on_progress: Callable[[int, int], None] | None,
    clock: Callable[[], float],
) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """The tensors that changed, by the graph's names (none if nothing was gained), and what is to be said of it."""
    from localinfer.quantize.calibrated import threads
    from localinfer.quantize.distill import Distillation

    saved = clock()

    def on_step(state: "State") -> None:
        nonlocal saved
        if on_progress:
            on_progress(int(1000 * distillation.progress(state)), 1000)
        if clock() - saved >= SAVE_S:
            _save(partial / STATE, state)
            saved = clock()

    with threads(workers):
        distillation = Distillation(Checkpoint(source), Checkpoint(partial / "rough"), tokens, seed, seconds)
        state = distillation.run(_load(partial / STATE, distillation) or distillation.begin(), clock, on_step)
        _save(partial / STATE, state)
        note = {
            "method": "kl",
            "steps": state.step,
            "seconds": round(state.used, 1),
            "kld_before": _figure(state.given),
            "kld_after": _figure(state.least),
        }
        gained = state.least < state.given
        changed = (
            f"{state.given:.4f} to {state.least:.4f}" if gained else f"stayed at {state.given:.4f}: kept as it was"
        )
        note["text"] = f"refined in {state.step} steps: KL divergence on held-out calibration text {changed}"
        return (distillation.student.stored(state.best) if gained else {}), note


def _figure(value: float) -> float | None:
    return float(f"{value:.6g}") if math.isfinite(value) else None


def _write(rough: Path, made: Path, tensors: dict[str, NDArray[Any]], note: dict[str, Any]) -> None:
    """`rough` with other scales and norms, file by file; config.json last."""
    shutil.rmtree(made, ignore_errors=True)
    config, record = read_object(rough / "config.json"), read_object(rough / RECORD)
    name_of = family_for(config.get("model_type")).tensor_name
    hashes, total = dict(record["files"]), 0
    try:
        made.mkdir()
    except OSError as error:
        raise write_failed(made, 0, error) from error
    for file in sorted(rough.glob("*.safetensors")):
        old, new = SafetensorsFile(file), {}
        for stored, info in old.tensors.items():
            name = (name_of(stored) or "").removesuffix("_scale").removesuffix(".weight")
            part = "scales" if stored.endswith("_scale") else "norm"
            values = tensors.get(f"{name} {part}")
            form = info.dtype if values is None else "F16" if part == "scales" else "F32"
            new[stored] = (form, old.read(stored) if values is None else values)
            total += new[stored][1].nbytes
        write_safetensors(made / file.name, new)
        hashes[file.name] = sha256(made / file.name)
    index = read_object(rough / INDEX)
    write_json(made / INDEX, {"metadata": {"total_size": total}, "weight_map": index["weight_map"]})
    hashes[INDEX] = sha256(made / INDEX)
    for name in hashes:
        if not (made / name).exists():
            write_bytes(made / name, read_bytes(rough / name, TOKENIZER_LIMIT))
    recipe = record["recipe"] | {"refine": {key: note[key] for key in note if key != "text"}}
    recipe["notes"] = [*recipe.get("notes", ()), note["text"]]
    write_json(made / RECORD, record | {"recipe": recipe, "files": hashes})
    write_json(made / "config.json", config)
    sync(made)


def _save(path: Path, state: "State") -> None:
    numbers = {field.name: getattr(state, field.name) for field in fields(state) if field.name not in _TENSORS}
    told = np.frombuffer(json.dumps(numbers).encode(), np.uint8)
    write_safetensors(path, {"numbers": ("U8", told)} | {n: ("F32", getattr(state, n).numpy()) for n in _TENSORS})


def _load(path: Path, distillation: "Distillation") -> "State | None":
    """Where an earlier run has stood; `None` if it left nothing that is whole."""
    import torch

    from localinfer.quantize.distill import State

    if not path.exists():
        return None
    try:
        file = SafetensorsFile(path)
        tensors = {name: torch.from_numpy(file.read(name)) for name in _TENSORS}
        numbers: dict[str, Any] = json.loads(file.read("numbers").tobytes())
        state = State(**(numbers | tensors))
    except (LocalInferError, ValueError, KeyError, TypeError):
        return None
    size = distillation.student.first.shape
    return state if all(tensor.shape == size for tensor in tensors.values()) else None
