"""`quantize`: a bf16, f16 or f32 model directory becomes a compressed-tensors directory, file by file, safe to stop."""

import os
import re
import shutil
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal

from localinfer.errors import Corrupt, DoesNotFit, LocalInferError, UsageError, size
from localinfer.formats.durable import sync, write_bytes, write_failed, write_json
from localinfer.formats.json_files import TOKENIZER_LIMIT, read_bytes, read_object
from localinfer.formats.layout import INDEX
from localinfer.formats.safetensors import write_safetensors
from localinfer.quantize.journal import Journal, locked, sha256
from localinfer.quantize.layer import quantize_unit
from localinfer.quantize.plan import Plan, make_plan
from localinfer.quantize.report import QuantizeReport, make_report

FORMAT = 1
"""Of `localinfer.json`."""

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
    threads: int = 0,
    on_progress: Callable[[int, int], None] | None = None,
) -> QuantizeReport:
    """Write the model in `source` with `bits` a weight to `dest`, which appears whole or not at all.

    Embedding and head get 8 bits. Stopped at any time (Ctrl-C, kill, disk full), the same call goes on with the first
    unfinished file and gives the same bytes. `group` None chooses; `threads` 0 takes every processor.
    `on_progress(done, total)` counts weights.

    Raises `UsageError` (dest exists, group does not divide, another process is at it), `NotSupported` (architecture,
    quantized source), `Corrupt` (NaN or infinite weights and damaged files, named), `DoesNotFit` (disk).
    """
    started = time.monotonic()
    source, dest = source.resolve(), dest.absolute()
    if dest.exists():
        raise UsageError(f"{dest} is there already", hint="remove it first, or use it")
    plan = make_plan(source, bits, group)
    partial = dest.with_name(dest.name + ".partial")
    with locked(partial):
        if dest.exists():
            shutil.rmtree(partial, ignore_errors=True)
            raise UsageError(f"{dest} is there already", hint="another process has just made it; use it")
        origin = _origin(source, plan)
        journal = Journal(partial, {"format": FORMAT, "plan": _settings(plan), "source": origin})
        resumed = len(journal.finished)
        _must_fit(partial, plan, journal)
        try:
            workers = threads or os.cpu_count() or 1
            _write_units(plan, partial, journal, workers, on_progress or (lambda done, total: None))
        except Corrupt:
            shutil.rmtree(partial, ignore_errors=True)  # going on could not help
            raise
        _finish(source, partial, plan, journal, origin)
        try:
            partial.rename(dest)
            sync(dest.parent)
        except OSError as error:
            raise write_failed(dest, 0, error) from error
    return make_report(plan, journal.finished, dest, resumed, time.monotonic() - started)


def _settings(plan: Plan) -> dict[str, Any]:
    """All that decides the bytes of the result, beside the source."""
    return {
        "bits": plan.bits,
        "group": plan.group,
        "table_group": plan.table_group,
        "rounding": "signed scale, least squares",
        "files": [plan.file_name(unit) for unit in range(len(plan.units))],
    }


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


def _write_units(
    plan: Plan, partial: Path, journal: Journal, threads: int, on_progress: Callable[[int, int], None]
) -> None:
    total, done = plan.weights, 0

    def advance(count: int) -> None:
        nonlocal done
        done += count
        on_progress(done, total)

    pool = ThreadPoolExecutor(threads, thread_name_prefix="quantize")
    try:
        for number, unit in enumerate(plan.units):
            name = plan.file_name(number)
            if name in journal.finished:
                advance(sum(job.weights for job in unit))
                continue
            tensors, errors = quantize_unit(unit, pool, advance)
            write_safetensors(partial / name, tensors)
            rounded = {tensor: float(f"{error:.6g}") for tensor, error in errors.items()}
            journal.add({"file": name, "sha256": sha256(partial / name), "tensors": sorted(tensors), "error": rounded})
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _finish(source: Path, partial: Path, plan: Plan, journal: Journal, origin: dict[str, Any]) -> None:
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
        "recipe": _settings(plan) | {"table_bits": 8, "notes": list(plan.notes)},
        "error": {tensor: error for entry in entries for tensor, error in entry["error"].items()},
        "files": hashes | {name: sha256(partial / name) for name in (INDEX, *COPIED) if (partial / name).is_file()},
    }
    write_json(partial / "localinfer.json", record)
    write_json(partial / "config.json", config)
    journal.remove()
    for path in partial.iterdir():
        if path.name not in record["files"] and path.name not in ("localinfer.json", "config.json"):
            path.unlink()  # half a file of a run that was killed
    sync(partial)
