"""`quantize`: a bf16, f16 or f32 model directory becomes a compressed-tensors directory, file by file, safe to stop."""

import hashlib
import importlib.util
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from localinfer.errors import Corrupt, DoesNotFit, LocalInferError, NotSupported, UsageError, size
from localinfer.formats.durable import sync, write_bytes, write_failed, write_json
from localinfer.formats.json_files import TOKENIZER_LIMIT, read_bytes, read_object
from localinfer.formats.layout import INDEX
from localinfer.formats.safetensors import write_safetensors
from localinfer.formats.tokenizer import Tokenizer
from localinfer.quantize.calibration import CalibrationText, calibration
from localinfer.quantize.journal import Journal, locked, sha256
from localinfer.quantize.layer import quantize_unit
from localinfer.quantize.plan import Method, Plan, make_plan
from localinfer.quantize.report import QuantizeReport, make_report

if TYPE_CHECKING:
    from localinfer.quantize.calibrated import Layers

FORMAT = 1
"""Of `localinfer.json`."""

CALIBRATED = 1
"""Counts the changes of the numerics of calibrated methods: a run is not resumed with others."""

COPIED = (
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "preprocessor_config.json",
    "LICENSE",
    "LICENSE.txt",
)
_COMMIT = re.compile(r"[0-9a-f]{40}")


def quantize_checkpoint(
    source: Path,
    dest: Path,
    *,
    bits: Literal[8, 4, 3],
    group: int | None = None,
    method: Method = "rtn",
    text: CalibrationText | None = None,
    bits_per_weight: float | None = None,
    target_bytes: int | None = None,
    threads: int = 0,
    on_progress: Callable[[int, int], None] | None = None,
) -> QuantizeReport:
    """Write the model in `source` with `bits` a weight to `dest`, which appears whole or not at all.

    Embedding and head get 8 bits. Stopped at any time (Ctrl-C, kill, disk full), the same call goes on with the first
    unfinished file and gives the same bytes. `group` None chooses; `threads` 0 takes every processor.
    `on_progress(done, total)` counts weights. Every `method` but `rtn` calibrates, on `text` (None: our own).

    With `bits_per_weight` (of the layers) or `target_bytes` (of all weights) the fused groups get different widths,
    none below `bits`: those whose rounding costs most get more.

    Raises `UsageError` (dest exists, group does not divide, no mix is of that size, text too short, another process is
    at it), `NotSupported` (architecture, quantized source, no torch), `Corrupt` (NaN or infinite weights and damaged
    files, named), `DoesNotFit` (disk).
    """
    started = time.monotonic()
    source, dest = source.resolve(), dest.absolute()
    if dest.exists():
        raise UsageError(f"{dest} is there already", hint="remove it first, or use it")
    workers = threads or os.cpu_count() or 1
    plan, tokens = make_plan(source, bits, group, method), None
    if method != "rtn" or bits_per_weight is not None or target_bytes is not None:
        tokens = _tokens(source, text or CalibrationText())
        plan = _mixed(source, plan, tokens, bits_per_weight, target_bytes, workers)
    partial = dest.with_name(dest.name + ".partial")
    with locked(partial):
        if dest.exists():
            shutil.rmtree(partial, ignore_errors=True)
            raise UsageError(f"{dest} is there already", hint="another process has just made it; use it")
        origin = _origin(source, plan)
        settings = _settings(plan) if tokens is None else _settings(plan) | _calibration(tokens, workers)
        journal = Journal(partial, {"format": FORMAT, "plan": settings, "source": origin})
        resumed = len(journal.finished)
        _must_fit(partial, plan, journal)
        try:
            with _calibrated(source, plan, None if method == "rtn" else tokens, partial, workers) as open_layers:
                _write_units(plan, partial, journal, workers, on_progress or (lambda done, total: None), open_layers)
        except Corrupt:
            shutil.rmtree(partial, ignore_errors=True)  # going on could not help
            raise
        _finish(source, partial, plan, journal, origin, settings)
        try:
            partial.rename(dest)
            sync(dest.parent)
        except OSError as error:
            raise write_failed(dest, 0, error) from error
    plan = replace(plan, notes=(*plan.notes, *_notes(journal)))
    return make_report(plan, journal.finished, dest, resumed, time.monotonic() - started)


def _settings(plan: Plan) -> dict[str, Any]:
    """All that decides the bytes of the result, beside the source."""
    return {
        "bits": plan.bits,
        "group": plan.group,
        "table_group": plan.table_group,
        "method": plan.method,
        "rounding": "signed scale, least squares",
        "forms": {job.tensor.name: [job.bits, job.group] for job in plan.jobs if job.bits and plan.mixed},
        "files": [plan.file_name(unit) for unit in range(len(plan.units))],
    }


def _notes(journal: Journal) -> list[str]:
    return [note for entry in journal.finished.values() for note in entry.get("notes", ())]


def _tokens(source: Path, text: CalibrationText) -> NDArray[np.int32]:
    if importlib.util.find_spec("torch") is None:
        raise NotSupported(
            "calibrating needs torch, which is not installed",
            hint="`pip install localinfer[quantize]`, or round without calibration: `--method rtn`",
        )
    return calibration(Tokenizer(source), text.render, text.tokens, text.seed, text.files)


def _mixed(
    source: Path,
    plan: Plan,
    tokens: NDArray[np.int32],
    bits_per_weight: float | None,
    target_bytes: int | None,
    workers: int,
) -> Plan:
    """`plan` with its widths mixed, if a size was asked for."""
    if bits_per_weight is None and target_bytes is None:
        return plan
    from localinfer.quantize.budget import mixed_plan

    return mixed_plan(source, plan, tokens, bits_per_weight, target_bytes, workers)


def _calibration(tokens: NDArray[np.int32], workers: int) -> dict[str, Any]:
    """The part of the settings that says how it was calibrated. Sums may depend on the number of threads."""
    text = hashlib.sha256(tokens.astype("<i4").tobytes()).hexdigest()
    return {"calibration": {"version": CALIBRATED, "tokens": tokens.size, "sha256": text, "threads": workers}}


def _origin(source: Path, plan: Plan) -> dict[str, Any]:
    """Where the weights come from: commit if the folder tells it, and the hash of each file that is read."""
    files = sorted({job.tensor.file.path for job in plan.jobs})
    origin: dict[str, Any] = {"files": {path.name: sha256(path) for path in [source / "config.json", *files]}}
    try:
        record = read_object(source / "localinfer.json").get("source")
    except LocalInferError:
        record = None
    if isinstance(record, dict):
        origin = {key: value for key, value in record.items() if isinstance(value, str)} | origin
    if source.parent.name == "snapshots" and _COMMIT.fullmatch(source.name):
        origin["repository"] = source.parent.parent.name.removeprefix("models--").replace("--", "/")
        origin["revision"] = source.name
    return origin


def _must_fit(partial: Path, plan: Plan, journal: Journal) -> None:
    need = sum(
        sum(job.nbytes for job in unit)
        for number, unit in enumerate(plan.units)
        if plan.file_name(number) not in journal.finished
    )
    free = shutil.disk_usage(partial).free
    if need > free:
        raise DoesNotFit(
            f"the quantized model needs {size(need)} more, but {size(free)} is free on the disk of {partial.parent}",
            hint="free some space and run the same command again; finished parts are kept",
        )


@contextmanager
def _calibrated(
    source: Path, plan: Plan, tokens: NDArray[np.int32] | None, partial: Path, workers: int
) -> "Iterator[Callable[[], Layers] | None]":
    """What opens the layers for a method that calibrates, once the file of the embedding is there."""
    if tokens is None:
        yield None
        return
    from localinfer.quantize.calibrated import Layers, threads

    with threads(workers):
        yield lambda: Layers(source, plan, tokens, partial / plan.file_name(0), partial)


def _write_units(
    plan: Plan,
    partial: Path,
    journal: Journal,
    workers: int,
    on_progress: Callable[[int, int], None],
    open_layers: "Callable[[], Layers] | None",
) -> None:
    total, done = plan.weights, 0

    def advance(count: int) -> None:
        nonlocal done
        done += count
        on_progress(done, total)

    layers: Layers | None = None
    pool = ThreadPoolExecutor(workers, thread_name_prefix="quantize")
    try:
        for number, unit in enumerate(plan.units):
            name = plan.file_name(number)
            layers = open_layers() if number == 1 and open_layers else layers
            halves = layers.halves(unit) if layers else []
            if name in journal.finished:
                if layers and halves:
                    layers.pass_over(halves, partial / name)
                advance(sum(job.weights for job in unit))
                continue
            entry: dict[str, Any] = {"file": name}
            if layers and halves:
                made = layers.quantize(unit, halves, advance)
                tensors, errors = made.tensors, made.errors
                entry |= {"output_error": _short(made.output_errors), "notes": list(made.notes)}
            else:
                tensors, errors = quantize_unit(unit, pool, advance)
            write_safetensors(partial / name, tensors)
            journal.add(entry | {"sha256": sha256(partial / name), "tensors": sorted(tensors), "error": _short(errors)})
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _short(figures: dict[str, float]) -> dict[str, float]:
    return {name: float(f"{figure:.6g}") for name, figure in figures.items()}


def _finish(
    source: Path, partial: Path, plan: Plan, journal: Journal, origin: dict[str, Any], settings: dict[str, Any]
) -> None:
    """The small files; config.json last, since a folder without it is no model."""
    entries = [journal.finished[plan.file_name(unit)] for unit in range(len(plan.units))]
    index = {tensor: entry["file"] for entry in entries for tensor in entry["tensors"]}
    write_json(partial / INDEX, {"metadata": {"total_size": plan.nbytes}, "weight_map": index})
    hashes = {entry["file"]: entry["sha256"] for entry in entries}
    for name in COPIED:
        if (source / name).is_file():
            write_bytes(partial / name, read_bytes(source / name, TOKENIZER_LIMIT))
    config = read_object(source / "config.json") | {"quantization_config": plan.quantization}
    record: dict[str, Any] = {
        "format": FORMAT,
        "kind": "quantized",
        "source": origin,
        "recipe": settings | {"table_bits": 8, "notes": [*plan.notes, *_notes(journal)]},
        "error": {tensor: error for entry in entries for tensor, error in entry["error"].items()},
        "output_error": {tensor: error for entry in entries for tensor, error in entry.get("output_error", {}).items()},
        "files": hashes | {name: sha256(partial / name) for name in (INDEX, *COPIED) if (partial / name).is_file()},
    }
    write_json(partial / "localinfer.json", record)
    write_json(partial / "config.json", config)
    journal.remove()
    for path in partial.iterdir():
        if path.name not in record["files"] and path.name not in ("localinfer.json", "config.json"):
            path.unlink()  # half a file of a run that was killed
    sync(partial)
