"""`quantize`: a bf16, f16 or f32 model directory becomes a compressed-tensors directory, file by file, safe to stop."""

import hashlib
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from localinfer.errors import Corrupt, DoesNotFit, UsageError, size
from localinfer.events import Speed
from localinfer.formats.durable import sync, write_bytes, write_json
from localinfer.formats.json_files import TOKENIZER_LIMIT, read_bytes, read_object
from localinfer.formats.layout import INDEX
from localinfer.formats.safetensors import write_safetensors
from localinfer.formats.tokenizer import Tokenizer
from localinfer.graph.names import AHEAD
from localinfer.quantize.calibration import CalibrationText, calibration
from localinfer.quantize.forecast import Forecast, Kind
from localinfer.quantize.journal import Earlier, Journal, locked, publish, sha256
from localinfer.quantize.layer import quantize_unit
from localinfer.quantize.origin import Origin, copied
from localinfer.quantize.pace import HASTE, HURRIED, Expected, Pace, TooLate, hurried
from localinfer.quantize.plan import HEAD, TABLE_BITS, HeadBits, Job, Method, Plan, make_plan
from localinfer.quantize.report import QuantizeReport, make_report
from localinfer.quantize.torch_installed import require_torch_for

if TYPE_CHECKING:
    from localinfer.graph.ops import LayerOp
    from localinfer.quantize.budget import Deal
    from localinfer.quantize.calibrated import Layers
    from localinfer.quantize.importance import Weighed
    from localinfer.quantize.layer import Made

    Calibrating: TypeAlias = Layers | Weighed
    OpenLayers: TypeAlias = Callable[[Callable[[], None]], Calibrating]

FORMAT = 1
"""Of `localinfer.json`."""

CALIBRATED = 4
"""Counts the changes of the numerics of calibrated methods: a run is not resumed with others."""


def quantize_checkpoint(
    source: Path,
    dest: Path,
    *,
    bits: Literal[8, 5, 4, 3],
    group: int | None = None,
    head: HeadBits = TABLE_BITS,
    method: Method = "rtn",
    text: CalibrationText | None = None,
    bits_per_weight: float | None = None,
    target_bytes: int | None = None,
    mix: Mapping[str, tuple[int, int]] | None = None,
    threads: int = 0,
    seconds: float = 0.0,
    expected: Expected | None = None,
    earlier: Earlier = "auto",
    on_progress: Callable[[int, int], None] | None = None,
    on_speed: Callable[[Speed], None] = lambda speed: None,
    say: Callable[[str], None] = lambda text: None,
    clock: Callable[[], float] = time.monotonic,
) -> QuantizeReport:
    """Write the model in `source` with `bits` a weight to `dest`, which appears whole or not at all.

    The embedding gets 8 bits, the head as `HeadBits` has it. Stopped at any time (Ctrl-C, kill, disk full), the same
    call goes on and gives the same bytes; `earlier` as `Journal` has it. `group` None chooses; `threads` 0 takes all.
    `on_progress(done, total)` counts weights, `on_speed` is told before how fast that goes, `say` what a person should
    know. Every `method` but `rtn` calibrates, on `text` (None: our own), for `seconds` at most if not 0: layers without
    time are rounded. What is `expected` counts until a layer is measured. With `bits_per_weight` (of the layers) or
    `target_bytes` (of all) the fused groups get different widths, from `bits` up; `mix` names them.

    Raises `UsageError` (dest exists, group does not divide, no mix is of that size, text too short, another process),
    `NotSupported` (architecture, quantized, no torch), `Corrupt` (NaN, damage), `DoesNotFit`, `Changed` (source).
    """
    started, heard = clock(), (on_progress or (lambda done, total: None), on_speed)
    source, dest, workers = source.resolve(), dest.absolute(), threads or os.cpu_count() or 1
    _require_new(dest, "remove it first, or use it")
    plan = make_plan(source, bits, group, method, mix, head)
    tokens = _tokens(source, text, plan, mixed=bool(bits_per_weight or target_bytes))
    plan = _mixed(source, plan, tokens, bits_per_weight, target_bytes, workers)
    partial = dest.with_name(dest.name + ".partial")
    with locked(partial):
        if dest.exists():
            shutil.rmtree(partial, ignore_errors=True)
        _require_new(dest, "another process has just made it; use it")
        origin, settings = Origin(source), _settings(plan, tokens, workers)
        journal = Journal(partial, settings, origin.said, earlier=earlier, say=say)
        pace, resumed = Pace(plan, seconds, journal.finished, started, clock, say, expected), len(journal.finished)
        _must_fit(partial, plan, journal)
        try:
            with _calibrated(source, plan, None if method == "rtn" else tokens, partial, workers) as open_layers:
                forecast = _forecast(plan, journal, expected, clock)
                _Writing(plan, partial, journal, origin, pace, forecast, heard).run(workers, open_layers)
        except Corrupt:
            origin.require_unchanged()  # if it has, what is finished was made before
            shutil.rmtree(partial, ignore_errors=True)  # going on could not help
            raise
        _finish(source, partial, plan, journal, origin, settings)
        publish(partial, dest)
    plan = replace(plan, notes=(*plan.notes, *_notes(plan, journal)))
    return make_report(plan, journal.finished, dest, resumed, clock() - started)


def _require_new(dest: Path, hint: str) -> None:
    if dest.exists():
        raise UsageError(f"{dest} is there already", hint=hint)


def _settings(plan: Plan, tokens: NDArray[np.int32] | None, workers: int) -> dict[str, Any]:
    """All that decides the bytes of the result, beside the source."""
    told = {} if tokens is None else {"calibration": calibrated_on(tokens, workers, plan.method, mixed=plan.mixed)}
    return told | {
        "bits": plan.bits,
        "group": plan.group,
        "table_group": plan.table_group,
        "head": plan.head,
        "method": plan.method,
        "rounding": "the grid of Q4_0" if any(job.trained for job in plan.jobs) else "signed scale, least squares",
        "forms": {job.tensor.name: [job.bits, job.group] for job in plan.jobs if job.bits and plan.mixed},
        "files": [plan.file_name(unit) for unit in range(len(plan.units))],
        "numpy": np.__version__,
    }


def _notes(plan: Plan, journal: Journal) -> list[str]:
    said = [note for entry in journal.finished.values() for note in entry.get("notes", ())]
    return [*said, *hurried(plan.method, journal.finished, plan.layers)]


def _tokens(source: Path, text: CalibrationText | None, plan: Plan, mixed: bool) -> NDArray[np.int32] | None:
    """The calibration text, if it is needed."""
    if plan.method == "rtn" and not mixed:
        return None
    text = text or CalibrationText()
    require_torch_for(plan.method, mixed=mixed, refine=False)
    return calibration(Tokenizer(source), text.render, text.tokens, text.seed, text.files)


def _mixed(
    source: Path,
    plan: Plan,
    tokens: NDArray[np.int32] | None,
    bits_per_weight: float | None,
    target_bytes: int | None,
    workers: int,
) -> Plan:
    """`plan` with its widths mixed, if a size was asked for."""
    if tokens is None or (bits_per_weight is None and target_bytes is None):
        return plan
    from localinfer.quantize.budget import mixed_plan

    return mixed_plan(source, plan, tokens, bits_per_weight, target_bytes, workers)


def ask_costs(
    source: Path, bits: int, text: CalibrationText, *, method: Method, head: HeadBits, threads: int = 0
) -> "tuple[Deal, dict[str, Any]]":
    """What forms of the layers from `bits` up would cost, and all that decides the bytes of models made of them."""
    from localinfer.quantize.budget import deal_of

    workers, plan = threads or os.cpu_count() or 1, make_plan(source, bits, None, method, head=head)
    require_torch_for(method, mixed=True, refine=False)
    tokens = calibration(Tokenizer(source), text.render, text.tokens, text.seed, text.files)
    return deal_of(source, plan, tokens, workers), _settings(plan, tokens, workers)


def calibrated_on(
    tokens: NDArray[np.int32], workers: int, method: Method | None = None, *, mixed: bool = False
) -> dict[str, Any]:
    """The settings of calibrating on `tokens`. Sums of torch depend on threads, library and processor; ours do not."""
    text = hashlib.sha256(tokens.astype("<i4").tobytes()).hexdigest()
    told = {"version": CALIBRATED, "tokens": tokens.size, "sha256": text}
    if method == "imatrix" and not mixed:
        return told
    from localinfer.quantize.calibrated import arithmetic

    return told | {"threads": workers} | arithmetic()


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
) -> "Iterator[OpenLayers | None]":
    """What opens the layers for a method that calibrates, once the file of the embedding is there."""
    if tokens is None:
        yield None
        return
    if plan.method == "imatrix":
        from localinfer.quantize.importance import Weighed

        yield lambda look: Weighed(source, plan, tokens, workers, look)
        return
    from localinfer.quantize.calibrated import Layers
    from localinfer.quantize.torch_threads import threads

    with threads(workers):
        yield lambda look: Layers(source, plan, tokens, partial / plan.file_name(0), partial)


class _Writing:
    """The files of `plan`, one after the other; each is in the journal as soon as it is on the disk."""

    def __init__(
        self,
        plan: Plan,
        partial: Path,
        journal: Journal,
        origin: Origin,
        pace: Pace,
        forecast: Forecast,
        told: tuple[Callable[[int, int], None], Callable[[Speed], None]],
    ) -> None:
        self._plan, self._partial, self._journal = plan, partial, journal
        self._origin, self._pace, self._forecast = origin, pace, forecast
        self._on_progress, self._on_speed = told
        self._done = 0
        self._layers: Calibrating | None = None
        self._hurried = self._calibrates = False

    def run(self, workers: int, open_layers: "OpenLayers | None") -> None:
        """Write what is not finished. `open_layers` is for methods that calibrate."""
        self._calibrates = open_layers is not None
        with ThreadPoolExecutor(workers, thread_name_prefix="quantize") as pool:
            try:
                for number, unit in enumerate(self._plan.units):
                    if number == 1 and open_layers and not self._pace.too_late():
                        self._open(open_layers)
                    self._forecast.begin(number)
                    self._unit(number, unit, pool)
                    self._forecast.end()
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise

    def _open(self, open_layers: "OpenLayers") -> None:
        self._pace.begin()
        try:
            self._layers = open_layers(self._look)
        except TooLate:
            self._hurried = True

    def _unit(self, number: int, unit: tuple[Job, ...], pool: Executor) -> None:
        name = self._plan.file_name(number)
        ops = self._layers.ops(unit) if self._layers else []
        layer = bool(ops) or (self._calibrates and holds_layer(unit))
        weights = sum(job.weights for job in unit)
        if name in self._journal.finished:
            if self._layers and ops and not self._hurried:
                self._layers.pass_over(ops, self._partial / name)
            self._advance(weights)
            return
        begun = self._pace.used
        self._pace.begin()
        entry: dict[str, Any] = {"file": name}
        self._hurried = self._hurried or (layer and self._pace.too_late())
        made = self._made(unit, ops)
        if made is not None:
            tensors, errors = made.tensors, made.errors
            entry |= {"output_error": _short(made.output_errors), "notes": list(made.notes)}
            if layer:
                self._pace.fitted(self._layers_left(name))
        else:
            if layer:
                self._forecast.begin(number, "rounded")
            if self._calibrates and holds_narrow_head(unit):
                entry |= {"notes": ["no time for the head: rounded to the nearest"]}
            tensors, errors = quantize_unit(unit, pool, self._advance, self._pace.in_haste)
            entry |= ({HURRIED: True} if layer else {}) | ({HASTE: True} if self._pace.haste else {})
            self._pace.rounded()
        write_safetensors(self._partial / name, tensors)
        self._origin.require_unchanged()
        entry |= {"sha256": sha256(self._partial / name), "tensors": sorted(tensors), "error": _short(errors)}
        self._journal.add(entry | {"seconds": self._pace.used - begun})

    def _made(self, unit: tuple[Job, ...], ops: "Sequence[LayerOp]") -> "Made | None":
        """What the method makes of a layer or a head; None where it does not calibrate this, or has no time."""
        layers, done = self._layers, self._done
        if layers is None or self._hurried or not (ops or holds_narrow_head(unit)):
            return None
        try:
            if ops:
                return layers.quantize(unit, ops, self._advance, self._look)
            return layers.quantize_head(unit[0], self._advance, self._look)
        except TooLate:
            self._hurried, self._layers = True, None
            self._advance(done - self._done)
            return None

    def _layers_left(self, name: str) -> int:
        """Layers after the file `name` that are not finished."""
        assert self._layers is not None
        units = [(self._plan.file_name(number), unit) for number, unit in enumerate(self._plan.units)]
        todo = [unit for file, unit in units if file > name and file not in self._journal.finished]
        return sum(bool(self._layers.ops(unit)) for unit in todo)

    def _look(self) -> None:
        self._pace.require_time()
        self._tell()

    def _advance(self, count: int) -> None:
        self._done += count
        self._pace.advance(count)
        self._forecast.advance(count)
        self._tell()

    def _tell(self) -> None:
        self._on_speed(self._forecast.speed)
        self._on_progress(self._done, self._plan.weights)


def _forecast(plan: Plan, journal: Journal, expected: Expected | None, clock: Callable[[], float]) -> Forecast:
    """Of what is still to do; finished files cost nothing, but that calibrated layers are gone over again."""
    kinds: list[Kind] = []
    for number, unit in enumerate(plan.units):
        fitted = plan.method != "rtn" and holds_layer(unit)
        finished = plan.file_name(number) in journal.finished
        head = plan.method != "rtn" and holds_narrow_head(unit) and not finished
        kinds.append("head" if head else ("again" if finished else "fitted") if fitted else "rounded")
    sizes = [sum(job.weights for job in unit) for unit in plan.units]
    done = (plan.file_name(number) in journal.finished for number in range(len(sizes)))
    counted = [0 if was and kind == "rounded" else size for was, kind, size in zip(done, kinds, sizes, strict=True)]
    return Forecast(counted, kinds, expected, clock)


def holds_narrow_head(unit: tuple[Job, ...]) -> bool:
    """Whether this is the head, in so few bits that methods calibrate it."""
    return len(unit) == 1 and 0 < unit[0].bits < TABLE_BITS and unit[0].module.endswith(HEAD)


def holds_layer(unit: tuple[Job, ...]) -> bool:
    """Whether these tensors are those of a layer of the graph."""
    return any(job.bits and ".layers." in job.tensor.name and not job.tensor.name.startswith(AHEAD) for job in unit)


def _short(figures: dict[str, float]) -> dict[str, float]:
    return {name: float(f"{figure:.6g}") for name, figure in figures.items()}


def _finish(
    source: Path, partial: Path, plan: Plan, journal: Journal, origin: Origin, settings: dict[str, Any]
) -> None:
    """The small files; config.json last, since a folder without it is no model."""
    entries = [journal.finished[plan.file_name(unit)] for unit in range(len(plan.units))]
    index = {tensor: entry["file"] for entry in entries for tensor in entry["tensors"]}
    write_json(partial / INDEX, {"metadata": {"total_size": plan.nbytes}, "weight_map": index})
    hashes = {entry["file"]: entry["sha256"] for entry in entries}
    small = copied(source)
    for name in small:
        (partial / name).parent.mkdir(exist_ok=True)
        write_bytes(partial / name, read_bytes(source / name, TOKENIZER_LIMIT))
    config = read_object(source / "config.json") | plan.config
    origin.require_unchanged()
    record: dict[str, Any] = {
        "format": FORMAT,
        "kind": "quantized",
        "source": origin.said,
        "recipe": settings | {"table_bits": 8, "notes": [*plan.notes, *_notes(plan, journal)]},
        "error": {tensor: error for entry in entries for tensor, error in entry["error"].items()},
        "output_error": {tensor: error for entry in entries for tensor, error in entry.get("output_error", {}).items()},
        "files": hashes | {name: sha256(partial / name) for name in (INDEX, *small)},
    }
    write_json(partial / "localinfer.json", record)
    write_json(partial / "config.json", config)
    journal.remove()
    for path in filter(Path.is_file, partial.iterdir()):
        if path.name not in record["files"] and path.name not in ("localinfer.json", "config.json"):
            path.unlink()  # half a file of a run that was killed
    sync(partial)
