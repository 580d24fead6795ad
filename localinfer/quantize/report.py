"""What came out of `quantize`, in numbers."""

import math
import resource
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from localinfer.formats.durable import write_json
from localinfer.formats.json_files import read_object
from localinfer.quantize.plan import Plan

RECORD = "localinfer.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class QuantizeReport:
    """Sizes in bytes, times in seconds. `error` is the relative root-mean-square error of the layers' weights."""

    bits: int
    group: int
    table_bits: int
    table_group: int
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


def keep_quality(dest: Path, figures: Mapping[str, Any]) -> None:
    """Write what was measured of the finished model `dest` into its `localinfer.json`, as `quality`."""
    path = dest / RECORD
    write_json(path, read_object(path) | {"quality": dict(figures)})


def make_report(
    plan: Plan, finished: Mapping[str, Mapping[str, Any]], dest: Path, resumed: int, seconds: float
) -> QuantizeReport:
    """The report on the finished folder `dest`."""
    body = [job for job in plan.jobs if job.bits and ".layers." in job.tensor.name]
    errors = {name: float(error) for entry in finished.values() for name, error in entry["error"].items()}
    worst = max(errors, key=errors.__getitem__, default="")
    in_body = [errors[job.tensor.name] for job in body]
    weights = plan.weights
    fresh = seconds if not resumed else math.inf  # a resumed run did a part only
    return QuantizeReport(
        bits=plan.bits,
        group=plan.group,
        table_bits=8,
        table_group=plan.table_group,
        layers=plan.layers,
        resumed_files=resumed,
        weights=weights,
        bits_per_weight=plan.nbytes * 8 / weights,
        body_bits_per_weight=sum(job.nbytes for job in body) * 8 / sum(job.weights for job in body),
        source_bytes=sum(job.tensor.info.nbytes for job in plan.jobs),
        size_bytes=sum(file.stat().st_size for file in dest.iterdir()),
        error=math.sqrt(sum(error * error for error in in_body) / len(in_body)),
        worst_tensor=worst,
        worst_error=errors.get(worst, 0.0),
        worst_tensors=tuple(sorted(errors.items(), key=lambda pair: -pair[1])[:5]),
        seconds=seconds,
        weights_per_second=weights / fresh if seconds > 0 else 0.0,
        peak_bytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024),
        notes=plan.notes,
    )
