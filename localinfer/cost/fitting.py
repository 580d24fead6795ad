"""`fit`: what a model needs in each width, whether it is there, and how fast it will be; before any weight is here."""

import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from localinfer.bench import history
from localinfer.config import EngineConfig
from localinfer.cost.fit import estimate
from localinfer.cost.machine import last_level_cache, read_bandwidth
from localinfer.cost.predict import Known, Prediction, load_of, predict
from localinfer.engine import step_timing
from localinfer.errors import LocalInferError, NotSupported, UsageError, size
from localinfer.graph.memory import Form
from localinfer.graph.weights import Checkpoint
from localinfer.hub.model import variant_of_bits
from localinfer.hub.resolve import resolve
from localinfer.quantize.plan import TABLE_BITS, TABLES, choose_groups

WIDTHS = (8, 4, 3)
"""Bits that an original can be quantized to."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FormFit:
    """One width of a model. Bytes; `form` is the word of `list`."""

    form: str
    total_bytes: int
    weights_bytes: int
    kv_bytes: int
    other_bytes: int
    """Activations, tables, buffers of loading, and the program."""
    drafter_bytes: int
    free_bytes: int
    fits: bool
    disk_bytes: int
    """What it takes on disk, beside the original it is made from."""
    fits_disk: bool
    predicted_tok_s: float
    tok_s_source: str
    """`measured` here, or `estimate`."""
    bytes_per_token: int
    correction: float
    corrected_by: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class FitReport:
    """A model on this machine; `forms` begins with the one that was asked for."""

    model: str
    revision: str | None
    parameters: int
    where: str
    """`here`, or, judged by its headers, `hub` or `package`."""
    package: str
    """The installed package that holds the weights; empty where none is asked."""
    download_bytes: int
    context: int
    parallel: int
    kv_bits: int
    free_disk_bytes: int
    read_bytes_per_s: float
    cache_bytes: int
    """Of the last-level cache; 0 where the system does not say."""
    threads: int
    forms: Sequence[FormFit]

    def to_json(self) -> dict[str, Any]:
        """The first form's figures at the top, then all of it."""
        return {**asdict(self.forms[0]), **asdict(self)}


@dataclass(frozen=True, slots=True)
class Asked:
    """Which model, and where its headers are."""

    path: Path
    name: str
    """`org/name`, without a form."""
    form: str
    revision: str | None = None
    download_bytes: int = 0
    """What is not here yet; 0 for a local model."""
    package: str = ""
    """The installed package that holds the weights."""
    import_bytes: int = 0
    """What these take once they are a model of ours."""
    wanted: str = ""
    """The form that was asked for, where another is stored."""


def fit(asked: Asked, config: EngineConfig, *, disk: Path, drafter: Path | None = None) -> FitReport:
    """Judge the headers in `asked.path`: as they are and, of an original, in each width it can have.

    `disk` is a folder on the disk that would hold it. Raises what opening a checkpoint raises, `NotSupported` for a
    form that cannot be made, and `UsageError` for a context that the model was not made for.
    """
    checkpoint = Checkpoint(asked.path)
    all_forms = forms_of(checkpoint, asked.form)
    if asked.wanted and asked.wanted not in [word for word, _ in all_forms]:
        raise NotSupported(f"no {asked.wanted} can be made of `{asked.name}`", hint=f"leave `:{asked.wanted}` out")
    context = config.choose_context(checkpoint.spec.max_context)
    bandwidth = read_bandwidth(config.threads)
    known, cache = measured_here(config), last_level_cache()
    free_disk = shutil.disk_usage(_existing(disk)).free
    draft_bytes = _drafter_bytes(drafter, context, config) if drafter else 0
    forms = []
    for word, form in all_forms:
        need = estimate(
            asked.path,
            context=context,
            parallel=config.parallel,
            kv_tokens=config.pool_tokens(context),
            kv_bits=config.kv_bits,
            form=form,
        )
        load = load_of(checkpoint, form)
        guess = predict(load, known, bandwidth.bytes_per_s, cache)
        measured = next((one for one in known if one.name == f"{asked.name}:{word}"), None)
        on_disk = asked.download_bytes + asked.import_bytes + (need.weights_bytes if form else 0)
        forms.append(
            FormFit(
                form=word,
                total_bytes=need.total_bytes + draft_bytes,
                weights_bytes=need.weights_bytes,
                kv_bytes=need.kv_bytes,
                other_bytes=need.other_bytes,
                drafter_bytes=draft_bytes,
                free_bytes=need.free_bytes,
                fits=need.total_bytes + draft_bytes <= need.free_bytes,
                disk_bytes=on_disk,
                fits_disk=on_disk <= free_disk,
                **_speed(guess, measured),
            )
        )
    return FitReport(
        model=asked.name,
        revision=asked.revision,
        parameters=checkpoint.graph.parameters(),
        where="hub" if asked.download_bytes else "package" if asked.package else "here",
        package=asked.package,
        download_bytes=asked.download_bytes,
        context=context,
        parallel=config.parallel,
        kv_bits=config.kv_bits,
        free_disk_bytes=free_disk,
        read_bytes_per_s=bandwidth.bytes_per_s,
        cache_bytes=cache,
        threads=bandwidth.threads,
        forms=tuple(sorted(forms, key=lambda one: one.form != asked.wanted)),
    )


def forms_of(checkpoint: Checkpoint, own: str) -> list[tuple[str, Form | None]]:
    """The form that is stored (None), and of an original those that can be made of it."""
    found: list[tuple[str, Form | None]] = [(own, None)]
    if checkpoint.scheme.method != "none":
        return found
    for bits in WIDTHS:
        try:
            group, table_group, _ = choose_groups(checkpoint.graph, bits, None)
        except UsageError:
            continue  # its columns have no groups of ours: it can only run as it is
        found.append((variant_of_bits(bits), _form(bits, group, table_group)))
    return found


def _form(bits: int, group: int, table_group: int) -> Form:
    return lambda name: (TABLE_BITS, table_group) if name in TABLES else (bits, group)


def measured_here(config: EngineConfig) -> list[Known]:
    """The models that were benchmarked or timed on this machine with as many threads; those that are gone are left
    out."""
    found, reports = list[Known](), history.kept()[0]
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

    here = (str(native.cpu()["model"]), native.choose_isa(config.isa), config.threads or 0)
    try:
        found = [(key, steps) for key, steps in step_timing.entries() if (key.cpu, key.isa, key.threads) == here]
    except LocalInferError:
        return []
    return sorted(found, key=lambda entry: entry[0].kv_bits != config.kv_bits)


def benched(reports: Sequence[history.Kept], model: str, cpu: str, isa: str, *, threads: int) -> float | None:
    """Seconds a token of one stream without drafts at the start of a text, as last benchmarked here; None if never."""
    for row in _generated(reports, model, cpu):
        plain = row.get("batch") == 1 and row.get("draft") == "off" and "@" not in str(row["test"])
        if plain and (row.get("isa"), row.get("threads")) == (isa, threads) and (speed := row.get("tok_s_median")):
            return 1 / max(1e-9, float(speed))
    return None


def benched_watts(reports: Sequence[history.Kept], model: str, cpu: str, *, streams: int) -> float | None:
    """Watts while this model generated so many texts, or else another number, as last measured here; no estimates."""
    found = [
        (row.get("batch") == streams, row["joules_per_token"] * row["tok_s"])
        for row in _generated(reports, model, cpu)
        if row.get("energy_source") in ("rapl", "given") and row.get("joules_per_token") and row.get("tok_s")
    ]
    return max(found, key=lambda one: one[0])[1] if found else None


def _generated(reports: Sequence[history.Kept], model: str, cpu: str) -> list[history.Kept]:
    """The rows of tests that generate, the newest report's first."""
    mine = [one for one in reports if one["model"]["name"] == model and one.get("machine", {}).get("cpu") == cpu]
    return [row for one in reversed(mine) for row in one.get("rows", ()) if str(row.get("test", "")).startswith("tg")]


def _speed(guess: Prediction, measured: Known | None) -> dict[str, Any]:
    return {
        "predicted_tok_s": 1 / measured.seconds if measured else guess.tok_s,
        "tok_s_source": "measured" if measured else "estimate",
        "bytes_per_token": guess.bytes_per_token,
        "correction": guess.correction,
        "corrected_by": guess.corrected_by,
    }


def _drafter_bytes(path: Path, context: int, config: EngineConfig) -> int:
    """A model that guesses: its weights and its own cache."""
    need = estimate(path, context=context, kv_bits=config.kv_bits)
    return need.weights_bytes + need.kv_bytes


def _existing(folder: Path) -> Path:
    return next(path for path in (folder, *folder.absolute().parents) if path.exists())


def fit_table(report: FitReport) -> str:
    """For people; every line ends with a newline."""
    lines = [
        f"{report.model}, {report.parameters / 1e9:.2f} B weights; {report.context} tokens of context"
        + (f" for each of {report.parallel}" if report.parallel > 1 else "")
        + f", {report.kv_bits}-bit cache",
        f"{size(report.forms[0].free_bytes)} of memory is free, {size(report.free_disk_bytes)} of disk",
        "",
        "| form | memory   | weights  | KV cache | other    | fits | disk     | tok/s    |",
        "| ---- | -------: | -------: | -------: | -------: | ---- | -------: | -------: |",
    ]
    for one in report.forms:
        other = size(one.other_bytes + one.drafter_bytes)
        speed = f"{one.predicted_tok_s:.1f}"
        fits = ("yes" if one.fits_disk else "disk") if one.fits else "no"
        lines.append(
            f"| {one.form:<4} | {size(one.total_bytes):>8} | {size(one.weights_bytes):>8} | {size(one.kv_bytes):>8} | "
            f"{other:>8} | {fits:<4} | {size(one.disk_bytes):>8} | "
            f"{speed if one.tok_s_source == 'measured' else '≈' + speed:>8} |"
        )
    return "\n".join([*lines, "", *_inputs(report)]) + "\n"


def _inputs(report: FitReport) -> list[str]:
    """Where the figures come from, and what to do."""
    first = report.forms[0]
    said = [
        f"≈: one stream at the start of a text, from {size(report.read_bytes_per_s)}/s read with {report.threads} "
        f"threads and a cache of {size(report.cache_bytes)}, times {1 / first.correction:.2f} as "
        + (f"measured with {', '.join(first.corrected_by[:3])}" if first.corrected_by else "no model was measured yet")
    ]
    if report.download_bytes:
        said.append(
            f"nothing but headers was read; `localinfer pull {report.model}` downloads {size(report.download_bytes)}"
        )
    if report.package:
        said.append(f"nothing but a header was read, of the weights in package {report.package}")
    fitting = [one for one in report.forms if one.fits]
    if not fitting:
        said.append("no form fits: lower `--ctx-size` or `--parallel`, or choose a smaller model")
    elif not first.fits:
        said.append(f"{fitting[0].form} fits: `localinfer quantize {report.model} --bits {fitting[0].form[3:]}`")
    return said
