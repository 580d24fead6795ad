"""`quantize --refine kl|qat`: a quantized model is made, trained to speak like the original, and written again.

All happens in `<dest>.partial`: `rough` is the model as quantized, `state.safetensors` is where the training stands,
`made` is the result, which becomes `dest` in one step. With `kl` the integers stay as they are.
"""

import json
import math
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from localinfer.errors import LocalInferError, NotSupported, UsageError
from localinfer.formats.durable import sync, write_bytes, write_failed, write_json
from localinfer.formats.json_files import TOKENIZER_LIMIT, read_bytes, read_object
from localinfer.formats.layout import INDEX
from localinfer.formats.safetensors import SafetensorsFile, write_safetensors
from localinfer.formats.tokenizer import Tokenizer
from localinfer.graph.weights import Checkpoint
from localinfer.quantize.calibration import CalibrationText, calibration
from localinfer.quantize.checkpoint import calibrated_on
from localinfer.quantize.journal import Earlier, Journal, locked, publish, sha256
from localinfer.quantize.origin import Origin
from localinfer.quantize.plan import TABLE_BITS
from localinfer.quantize.report import RECORD, QuantizeReport, peak_bytes, tell_errors_again, worst
from localinfer.quantize.time_plan import MORE_TEXT, Effort
from localinfer.quantize.torch_installed import require_torch_for

if TYPE_CHECKING:
    from torch import Tensor

    from localinfer.quantize.distill import Distillation, State

Refining = Literal["kl", "qat"]
"""What is trained: the scales and norms, or the weights as well."""

VERSION = 2
"""Counts the changes of the training: a run is not resumed with another."""

SAVE_S = 60.0
"""Seconds of training that a kill may lose; more where saving takes long."""

SAVING = 0.05
"""Share of the time that may go into saving."""

STATE, REPORT = "state.safetensors", "report.json"
_TENSORS = {
    **dict.fromkeys(("change", "mean", "square", "best", "at", "power"), "F32"),
    "drift": "BF16",
    "chosen": "U8",
}

Make = Callable[[Path], QuantizeReport]
"""Quantizes the source into a folder."""


def refine_checkpoint(
    source: Path,
    dest: Path,
    make: Make,
    settings: dict[str, Any],
    *,
    method: Refining = "kl",
    text: CalibrationText | None = None,
    seconds: float = 0.0,
    effort: Effort | None = None,
    threads: int = 0,
    earlier: Earlier = "auto",
    on_progress: Callable[[int, int], None] | None = None,
    say: Callable[[str], None] = lambda text: None,
    clock: Callable[[], float] = time.monotonic,
) -> QuantizeReport:
    """Write to `dest` what `make` makes of `source`, trained to speak like `source`; never worse on held-out text.

    `settings` are those of `make`, as JSON. `method` `kl` trains scales and norms, `qat` the weights too. `seconds`
    limit all of it, `make` included; 0: until the text was gone over twice, and then the same call gives the same
    bytes. `effort` says how much is looked at meanwhile, and what to leave for writing. Stopped at any time, it goes on
    where it was, or was last saved; `earlier` and `say` as `quantize_checkpoint` has them. Raises what `make` raises.
    """
    require_torch_for("rtn", mixed=False, refine=True)
    if settings.get("bits") == TABLE_BITS:
        raise UsageError("8 bits lose too little to be refined", hint="leave out `--refine`")
    lacking = Checkpoint(source).graph.not_trained
    if lacking:
        raise NotSupported(f"{lacking} cannot be refined yet", hint="leave out `--refine`")
    if dest.exists():
        raise UsageError(f"{dest} is there already", hint="remove it first, or use it")
    started = clock()
    source, dest, text = source.resolve(), dest.absolute(), text or CalibrationText()
    workers = threads or os.cpu_count() or 1
    tokens = _unseen_first(Tokenizer(source), text)
    partial = dest.with_name(dest.name + ".partial")
    with locked(partial):
        origin = Origin(source)
        told = settings | {"refine": [method, VERSION], "tokens": text.tokens, "seed": text.seed}
        told |= {"calibration": calibrated_on(tokens, workers)}
        Journal(partial, told, origin.said, earlier=earlier, say=say)
        report = _rough(partial, make)
        effort = effort or Effort()
        left = max(1e-3, seconds - (clock() - started) - effort.ending_s) if seconds else 0.0
        tensors, note = dict[str, NDArray[Any]](), _no_time(method)
        if not seconds or left >= effort.least_s:
            training = _Training(source, partial, tokens, text.seed, method, left, workers, effort)
            tensors, note = training.result(on_progress or (lambda done, total: None), clock)
        origin.require_unchanged()
        if dest.exists():
            raise UsageError(f"{dest} is there already", hint="another process has just made it; use it")
        _write(partial / "rough", partial / "made", tensors, note)
        errors = tell_errors_again(source, partial / "rough", partial / "made")
        publish(partial / "made", dest)
        shutil.rmtree(partial, ignore_errors=True)
    size = sum(file.stat().st_size for file in dest.iterdir())
    said: dict[str, Any] = {"notes": (*report.notes, note["text"]), **worst(errors)}
    peak = max(report.peak_bytes, peak_bytes())
    return replace(report, size_bytes=size, seconds=clock() - started, peak_bytes=peak, **said)


def _unseen_first(tokenizer: Tokenizer, text: CalibrationText) -> NDArray[np.int32]:
    """Sequences to train on; those that the quantizer has not calibrated on come first, and will be held out."""
    seen, more = (
        calibration(tokenizer, text.render, times * text.tokens, text.seed, text.files) for times in (1, MORE_TEXT)
    )
    known = {sequence.tobytes() for sequence in seen}
    order = sorted(range(len(more)), key=lambda at: more[at].tobytes() in known)
    return more[order]


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


@dataclass(frozen=True, slots=True)
class _Training:
    """What is trained, on what, and for how long."""

    source: Path
    partial: Path
    tokens: NDArray[np.int32]
    seed: int
    method: Refining
    seconds: float
    workers: int
    effort: Effort

    def result(
        self, on_progress: Callable[[int, int], None], clock: Callable[[], float]
    ) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        """The tensors that changed, by the graph's names (none if nothing was gained), and what is to be said of it."""
        from localinfer.quantize.distill import Distillation
        from localinfer.quantize.torch_threads import threads

        began = clock()
        file, saved, pause = self.partial / STATE, began, SAVE_S

        def on_step(state: "State") -> None:
            nonlocal saved, pause
            on_progress(int(1000 * training.progress(state)), 1000)
            if clock() - saved >= pause:
                started = time.monotonic()
                _save(file, state)
                saved, pause = clock(), max(SAVE_S, (time.monotonic() - started) / SAVING)

        with threads(self.workers):
            models = Checkpoint(self.source), Checkpoint(self.partial / "rough")
            training = Distillation(
                *models, self.tokens, self.seed, effort=self.effort, seconds=self.seconds, method=self.method
            )
            state = training.run(_load(file, training), clock, on_step, began)
            _save(file, state)
            gained = state.least < state.given
            return training.stored(state) if gained else {}, _note(self.method, state)


def _note(method: Refining, state: "State") -> dict[str, Any]:
    """What is kept in the record, and as `text` what is said."""
    note: dict[str, Any] = {
        "method": method,
        "steps": state.step,
        "seconds": round(state.used, 1),
        "kld_before": _figure(state.given),
        "kld_after": _figure(state.least),
    }
    stayed = f"stayed at {state.given:.4f}: kept as it was"
    changed = f"{state.given:.4f} to {state.least:.4f}" if state.least < state.given else stayed
    note["text"] = f"refined in {state.step} steps: KL divergence on held-out calibration text {changed}"
    return note


def _no_time(method: Refining) -> dict[str, Any]:
    """The same where it was too late to begin."""
    note: dict[str, Any] = {"method": method, "steps": 0, "seconds": 0.0, "kld_before": None, "kld_after": None}
    return note | {"text": "not refined: quantizing has left no time for it"}


def _figure(value: float) -> float | None:
    return float(f"{value:.6g}") if math.isfinite(value) else None


def _write(rough: Path, made: Path, tensors: dict[str, NDArray[Any]], note: dict[str, Any]) -> None:
    """`rough` with other scales, norms and integers, file by file; config.json last."""
    shutil.rmtree(made, ignore_errors=True)
    config, record = read_object(rough / "config.json"), read_object(rough / RECORD)
    names = Checkpoint(rough).names
    hashes, total = dict(record["files"]), 0
    try:
        made.mkdir()
    except OSError as error:
        raise write_failed(made, 0, error) from error
    for file in sorted(rough.glob("*.safetensors")):
        old, new = SafetensorsFile(file), {}
        for stored, info in old.tensors.items():
            name, part, form = names[stored] or "", "norm", "F32"
            for end, what, kind in (("_scale", "scales", "F16"), ("_packed", "packed", "I32")):
                if name.endswith(end):
                    name, part, form = name.removesuffix(end), what, kind
            values = tensors.get(f"{name.removesuffix('.weight')} {part}")
            form = info.dtype if values is None else form
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
    tensors = {name: (form, _bits(getattr(state, name), form)) for name, form in _TENSORS.items()}
    write_safetensors(path, {"numbers": ("U8", told)} | {n: t for n, t in tensors.items() if t[1].size})


def _bits(tensor: "Tensor", form: str) -> NDArray[Any]:
    """As safetensors wants it."""
    import torch

    views = {"BF16": torch.uint16, "U8": torch.uint8}
    return (tensor.view(views[form]) if form in views else tensor).numpy()


def _load(path: Path, training: "Distillation") -> "State | None":
    """Where an earlier run has stood; `None` if it left nothing that is whole."""
    import torch

    from localinfer.quantize.distill import State

    if not path.exists():
        return None
    empty, kinds = training.empty(), {"BF16": torch.bfloat16, "U8": torch.int8}
    tensors = {}
    try:
        file = SafetensorsFile(path)
        for name, form in _TENSORS.items():
            like = getattr(empty, name)
            values = torch.from_numpy(file.read(name)) if name in file.tensors else torch.empty(0)
            tensors[name] = values.view(kinds[form]) if form in kinds and values.numel() else values
            if tensors[name].shape != like.shape:
                return None
        numbers: dict[str, Any] = json.loads(file.read("numbers").tobytes())
        return State(**(numbers | tensors))
    except (LocalInferError, ValueError, KeyError, TypeError):
        return None
