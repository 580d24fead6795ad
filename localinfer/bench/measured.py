"""What was measured on this machine, for those who count what fits and what it costs."""

from collections.abc import Sequence
from pathlib import Path

from localinfer.bench import history
from localinfer.config import EngineConfig
from localinfer.cost.costing import CostReport, Facts, cost_report
from localinfer.cost.fitting import Asked, FitReport, StoredForm, fit
from localinfer.cost.machine import cpu_model
from localinfer.cost.predict import Known, load_of
from localinfer.cost.prices import Tariff
from localinfer.engine import step_timing
from localinfer.errors import LocalInferError, UsageError
from localinfer.graph.memory import Form
from localinfer.graph.weights import Checkpoint
from localinfer.hub.model import LocalModel, variant_of_bits
from localinfer.hub.resolve import resolve
from localinfer.quantize.plan import TABLE_BITS, TABLES, choose_groups

WIDTHS = (8, 4, 3)
"""Bits that an original can be quantized to."""


def fit_report(asked: Asked, config: EngineConfig, *, disk: Path, drafter: Path | None = None) -> FitReport:
    """As `fit`, in all forms, with what was measured here. Raises what opening a checkpoint raises, too."""
    checkpoint = Checkpoint(asked.path)
    forms = forms_of(checkpoint, asked.form)
    return fit(asked, checkpoint, forms, measured_models(config), config, disk=disk, drafter=drafter)


def cost_of_model(
    model: LocalModel,
    config: EngineConfig,
    tariff: Tariff,
    *,
    api_model: str | None = None,
    per_day: float | None = None,
) -> CostReport:
    """As `cost_report`, with what was measured here. Raises what opening a checkpoint raises, too."""
    checkpoint, facts = Checkpoint(model.path), facts_of(model, config)
    return cost_report(model.name, model.ref, checkpoint, facts, config, tariff, api_model=api_model, per_day=per_day)


def facts_of(model: LocalModel, config: EngineConfig) -> Facts:
    """The steps of `model` on this machine, the models that were measured on it, and what it drew."""
    steps = next((dict(one.step_s) for key, one in timed_models(config) if key.model == model.ref), {})
    watts = benched_watts(history.reports()[0], model.ref, cpu_model(), streams=config.parallel)
    return Facts(steps, measured_models(config), watts)


def forms_of(checkpoint: Checkpoint, stored: str) -> list[StoredForm]:
    """The form that is stored, and of an original those that can be made of it."""
    found = [StoredForm(stored, None)]
    if checkpoint.scheme.method != "none":
        return found
    for bits in WIDTHS:
        try:
            group, table_group, _ = choose_groups(checkpoint.graph, bits, None)
        except UsageError:
            continue  # its columns have no groups of ours: it can only run as it is
        found.append(StoredForm(variant_of_bits(bits), _form(bits, group, table_group)))
    return found


def _form(bits: int, group: int, table_group: int) -> Form:
    return lambda name: (TABLE_BITS, table_group) if name in TABLES else (bits, group)


def measured_models(config: EngineConfig) -> list[Known]:
    """The models that were benchmarked or timed on this machine with as many threads; those that are gone are left
    out."""
    found, reports = list[Known](), history.reports()[0]
    for key, steps in timed_models(config):
        try:
            model = resolve(key.model, offline=True)
            checkpoint = Checkpoint(model.path)
        except LocalInferError:
            continue
        seconds = benched(reports, model.ref, key.cpu, key.isa, threads=steps.threads) or steps.step_s[1]
        found.append(Known(f"{model.name}:{model.variant}", load_of(checkpoint), seconds))
    return list({one.name: one for one in reversed(found)}.values())


def timed_models(config: EngineConfig) -> list[tuple[step_timing.Key, step_timing.StepTiming]]:
    """What was measured when models were loaded by this processor with these kernels and as many threads, newest first;
    with the cache of `config` before others."""
    from localinfer import native

    this = (str(native.cpu()["model"]), native.choose_isa(config.isa), config.threads or 0)
    try:
        found = [(key, steps) for key, steps in step_timing.entries() if (key.cpu, key.isa, key.threads) == this]
    except LocalInferError:
        return []
    return sorted(found, key=lambda entry: entry[0].kv_bits != config.kv_bits)


def benched(reports: Sequence[history.Saved], model: str, cpu: str, isa: str, *, threads: int) -> float | None:
    """Seconds a token of one stream without drafts at the start of a text, as last benchmarked here; None if never."""
    for row in _generated(reports, model, cpu):
        plain = row.get("batch") == 1 and row.get("draft") == "off" and "@" not in str(row["test"])
        if plain and (row.get("isa"), row.get("threads")) == (isa, threads) and (speed := row.get("tok_s_median")):
            return 1 / max(1e-9, float(speed))
    return None


def benched_watts(reports: Sequence[history.Saved], model: str, cpu: str, *, streams: int) -> float | None:
    """Watts while this model generated so many texts, or else another number, as last measured here; no estimates."""
    found = [
        (row.get("batch") == streams, row["joules_per_token"] * row["tok_s"])
        for row in _generated(reports, model, cpu)
        if row.get("energy_source") in ("rapl", "given") and row.get("joules_per_token") and row.get("tok_s")
    ]
    return max(found, key=lambda one: one[0])[1] if found else None


def _generated(reports: Sequence[history.Saved], model: str, cpu: str) -> list[history.Saved]:
    """The rows of tests that generate, the newest report's first."""
    mine = [one for one in reports if one["model"]["name"] == model and one.get("machine", {}).get("cpu") == cpu]
    return [row for one in reversed(mine) for row in one.get("rows", ()) if str(row.get("test", "")).startswith("tg")]
