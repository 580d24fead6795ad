"""What came out of `quantize`, in numbers."""

import math
import resource
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from localinfer.formats.durable import write_json
from localinfer.formats.json_files import read_object
from localinfer.graph.names import AHEAD
from localinfer.graph.weights import Checkpoint
from localinfer.quantize.plan import Plan

RECORD = "localinfer.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class QuantizeReport:
    """Sizes in bytes, times in seconds. `error` is the relative root-mean-square error of the layers' weights."""

    bits: int
    group: int
    table_bits: int
    table_group: int
    head_bits: int
    layers: int
    resumed_files: int
    weights: int
    bits_per_weight: float
    """Of the whole model, with scales, embedding, head and norms."""

    body_bits_per_weight: float
    """Of the layers' matrices alone, with scales."""

    source_bytes: int
    size_bytes: int
    error: float
    worst_tensor: str
    worst_error: float
    worst_tensors: tuple[tuple[str, float], ...]
    """The five with the largest relative error, the worst first."""

    seconds: float
    weights_per_second: float
    peak_bytes: int
    notes: tuple[str, ...]


_CACHED = ("bits_per_weight", "body_bits_per_weight", "size_bytes", "worst_tensors", "seconds", "peak_bytes")


def keep_report(dest: Path, report: QuantizeReport) -> None:
    """Write into the `localinfer.json` of the finished model `dest`, as `report`, what its making took and gave."""
    path = dest / RECORD
    write_json(path, read_object(path) | {"report": {name: getattr(report, name) for name in _CACHED}})


def keep_quality(dest: Path, figures: Mapping[str, Any]) -> None:
    """Write what was measured of the finished model `dest` into its `localinfer.json`, as `quality`."""
    path = dest / RECORD
    write_json(path, read_object(path) | {"quality": dict(figures)})


def peak_bytes() -> int:
    """The most memory that this process has had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def worst(errors: Mapping[str, float]) -> dict[str, Any]:
    """What `QuantizeReport` says of the errors of all quantized tensors."""
    body = [error for name, error in errors.items() if "layers." in name]
    ranking = sorted(errors.items(), key=lambda pair: -pair[1])
    return {
        "error": math.sqrt(sum(error * error for error in body) / len(body)),
        "worst_tensor": ranking[0][0],
        "worst_error": ranking[0][1],
        "worst_tensors": tuple(ranking[:5]),
    }


def tell_errors_again(source: Path, before: Path, made: Path) -> dict[str, float]:
    """Measure the weights of `made` against `source` and write that into its record, in place of what held before.

    `made` is `before` with other scales and norms. What was folded into norms when `before` was made is divided out.
    The errors of `before` move to `before_refine`; how far a matrix's own outputs are off is known of these only.
    """
    original, after = Checkpoint(source), Checkpoint(made)
    folded = folds(original, Checkpoint(before))
    record, errors = read_object(made / RECORD), {}
    for stored in record["error"]:
        head = stored.endswith("lm_head.weight")
        name = "lm_head" if head else (original.names.get(stored) or stored).removesuffix(".weight")
        table = "model.embed_tokens" if head and original.spec.tied else name
        wanted = original.matrix(table) * folded.get(name, 1)
        power = float(np.square(wanted, dtype=np.float64).sum())
        off = float(np.square(wanted - after.matrix(name), dtype=np.float64).sum())
        errors[stored] = float(f"{math.sqrt(off / power) if power else 0.0:.6g}")
    former = {"error": record["error"], "output_error": record.get("output_error", {})}
    write_json(made / RECORD, record | {"error": errors, "output_error": {}, "before_refine": former})
    return errors


def folds(original: Checkpoint, made: Checkpoint) -> dict[str, NDArray[np.float32]]:
    """For each matrix behind a norm the factors of its columns that the norm gave up."""
    found: dict[str, NDArray[np.float32]] = {}
    for op in original.graph.body:
        norm = op.input_norm()
        if norm is None:
            continue
        was, now = (model.vector(f"{norm.name}.weight") + np.float32(norm.offset) for model in (original, made))
        fold = np.where(now == 0, 1, was / np.where(now == 0, 1, now)).astype(np.float32)
        found |= {linear.name: fold for linear in op.fused()[0]}
    return found


def make_report(
    plan: Plan, finished: Mapping[str, Mapping[str, Any]], dest: Path, resumed: int, seconds: float
) -> QuantizeReport:
    """The report on the finished folder `dest`."""
    names = {job.tensor.name: job for job in plan.jobs if job.bits and not job.tensor.name.startswith(AHEAD)}
    body = [job for name, job in names.items() if "layers." in name]
    errors = {name: float(error) for entry in finished.values() for name, error in entry["error"].items()}
    weights = plan.weights
    fresh = seconds if not resumed else math.inf  # a resumed run did a part only
    return QuantizeReport(
        bits=plan.bits,
        group=plan.group,
        table_bits=8,
        table_group=plan.table_group,
        head_bits=plan.head,
        layers=plan.layers,
        resumed_files=resumed,
        weights=weights,
        bits_per_weight=plan.nbytes * 8 / weights,
        body_bits_per_weight=sum(job.nbytes for job in body) * 8 / sum(job.weights for job in body),
        source_bytes=sum(job.tensor.info.nbytes for job in plan.jobs),
        size_bytes=sum(file.stat().st_size for file in dest.iterdir()),
        **worst(errors),
        seconds=seconds,
        weights_per_second=weights / fresh if seconds > 0 else 0.0,
        peak_bytes=peak_bytes(),
        notes=plan.notes,
    )
