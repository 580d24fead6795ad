"""`fit`: what a model needs in each width, whether it is there, and how fast it will be; before any weight is here."""

import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from localinfer.config import EngineConfig, draft_kv_blocks
from localinfer.cost.disk import disk_bandwidth
from localinfer.cost.fit import Fit, estimate
from localinfer.cost.machine import last_level_cache, read_bandwidth
from localinfer.cost.mapped import Mapped, mapped
from localinfer.cost.predict import Known, Prediction, load_of, predict
from localinfer.errors import NotSupported, size
from localinfer.graph.memory import Form, held, weights_bytes
from localinfer.graph.weights import Checkpoint
from localinfer.paths import experts_dir


@dataclass(frozen=True, slots=True, kw_only=True)
class FormFit:
    """One width of a model. Bytes; `form` is the word of `list`."""

    form: str
    total_bytes: int
    weights_bytes: int
    in_file_bytes: int
    """Of weights that take no memory: they stay in their file, and rows of them are read."""
    kv_bytes: int
    other_bytes: int
    """Activations, tables, buffers of loading, and the program."""
    drafter_bytes: int
    free_bytes: int
    fits: bool
    disk_bytes: int
    """What it takes on disk, beside the original it is made from; with the file of its experts, where it needs one."""
    fits_disk: bool
    predicted_tok_s: float
    tok_s_source: str
    """`measured` here, or `estimate`."""
    bytes_per_token: int
    correction: float
    corrected_by: tuple[str, ...]
    experts_bytes: int
    """Of weights, those of experts, which can stay in a file; 0 without experts."""
    mapped_bytes: int
    """What it takes in memory with experts in a file, as many held as there is room for; 0 without experts."""
    mapped_held_bytes: int
    """Of the experts, those."""
    mapped_fits: bool
    mapped_tok_s: float
    """The least to be expected then: were all experts as likely. 0 where it is not known."""


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
    disk_bytes_per_s: float
    """Read from the disk that would hold experts; 0 where nothing is asked of it."""
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


@dataclass(frozen=True, slots=True)
class StoredForm:
    """A width of a model: the word of `list`, and how its matrices would be stored; None: as they are."""

    word: str
    form: Form | None


def fit(
    asked: Asked,
    checkpoint: Checkpoint,
    all_forms: Sequence[StoredForm],
    known: Sequence[Known],
    config: EngineConfig,
    *,
    disk: Path,
    drafter: Path | None = None,
) -> FitReport:
    """Judge the headers of `checkpoint`, which lies in `asked.path`, in each of `all_forms`, the stored one first.

    `known` models were measured on this machine; `disk` is a folder on the disk that would hold it. Raises
    `NotSupported` for a form that cannot be made, and `UsageError` for a context that the model was not made for.
    """
    _require_made(asked, all_forms)
    context = config.choose_context(checkpoint.spec.max_context)
    bandwidth, cache, free_disk = read_bandwidth(config.threads), last_level_cache(), _free(disk)
    draft_bytes = _drafter_bytes(drafter, context, config) if drafter else 0
    needs = {one: _need(checkpoint, context, config, one.form) for one in all_forms}
    parts = {one: _in_part(need, draft_bytes) for one, need in needs.items()}
    disk_speed = disk_bandwidth(experts_dir()) if any(part for _, part in parts.values()) else 0.0

    def judge(one: StoredForm) -> FormFit:
        need, (found, part) = needs[one], parts[one]
        guess = predict(load_of(checkpoint, one.form), known, bandwidth.bytes_per_s, cache)
        on_disk = _on_disk(asked, need, one.form) + (found.experts_bytes if found and part else 0)
        return FormFit(
            form=one.word,
            total_bytes=need.total_bytes + draft_bytes,
            weights_bytes=need.weights_bytes,
            in_file_bytes=need.in_file_bytes,
            kv_bytes=need.kv_bytes,
            other_bytes=need.other_bytes,
            drafter_bytes=draft_bytes,
            free_bytes=need.free_bytes,
            fits=need.total_bytes + draft_bytes <= need.free_bytes,
            disk_bytes=on_disk,
            fits_disk=on_disk <= free_disk,
            **_speed(guess, next((k for k in known if k.name == f"{asked.name}:{one.word}"), None)),
            **_mapped(found, draft_bytes, 1 / guess.tok_s, disk_speed),
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
        disk_bytes_per_s=disk_speed,
        forms=tuple(sorted(map(judge, all_forms), key=lambda one: one.form != asked.wanted)),
    )


def _require_made(asked: Asked, all_forms: Sequence[StoredForm]) -> None:
    if asked.wanted and asked.wanted not in [one.word for one in all_forms]:
        raise NotSupported(f"no {asked.wanted} can be made of `{asked.name}`", hint=f"leave `:{asked.wanted}` out")


def _need(checkpoint: Checkpoint, context: int, config: EngineConfig, form: Form | None) -> Fit:
    return estimate(
        checkpoint,
        context=context,
        parallel=config.parallel,
        kv_tokens=config.pool_tokens(context),
        rows=config.most_rows,
        kv_bits=config.kv_bits,
        form=form,
    )


def _speed(guess: Prediction, measured: Known | None) -> dict[str, Any]:
    return {
        "predicted_tok_s": 1 / measured.seconds if measured else guess.tok_s,
        "tok_s_source": "measured" if measured else "estimate",
        "bytes_per_token": guess.bytes_per_token,
        "correction": guess.correction,
        "corrected_by": guess.corrected_by,
    }


def _on_disk(asked: Asked, need: Fit, form: Form | None) -> int:
    """What has to come here, and what is made of it."""
    return asked.download_bytes + asked.import_bytes + (need.weights_bytes + need.in_file_bytes if form else 0)


def _in_part(need: Fit, draft_bytes: int) -> tuple[Mapped | None, bool]:
    """The same with experts in a file, and whether it runs so alone."""
    found = mapped(replace(need, free_bytes=max(0, need.free_bytes - draft_bytes)))
    return found, found is not None and found.fits and need.total_bytes + draft_bytes > need.free_bytes


def _mapped(found: Mapped | None, draft_bytes: int, computed_s: float, disk_speed: float) -> dict[str, Any]:
    known = found is not None and (disk_speed > 0 or found.held_bytes >= found.experts_bytes)
    return {
        "experts_bytes": found.experts_bytes if found else 0,
        "mapped_bytes": found.total_bytes + draft_bytes if found else 0,
        "mapped_held_bytes": found.held_bytes if found else 0,
        "mapped_fits": found is not None and found.fits,
        "mapped_tok_s": 1 / (computed_s + found.read_s(disk_speed)) if found and known else 0.0,
    }


def _drafter_bytes(path: Path, context: int, config: EngineConfig) -> int:
    """A model that guesses: its weights and its own cache, of 8 bits at least, if it does not read the other's."""
    checkpoint = Checkpoint(path, assistant=True)
    if checkpoint.spec.assistant is not None:
        return weights_bytes(checkpoint)
    context = min(context, checkpoint.spec.max_context)
    windows = checkpoint.graph.kv_windows()
    blocks = draft_kv_blocks(windows, context=context, parallel=config.parallel, prefill_chunk=config.prefill_chunk)
    bits = max(8, config.kv_bits)
    need = held(checkpoint, context=context, kv_blocks=blocks, kv_bits=bits, parallel=config.parallel)
    return need.weights + need.kv


def _free(folder: Path) -> int:
    """Bytes on the disk that would hold this folder."""
    return shutil.disk_usage(next(path for path in (folder, *folder.absolute().parents) if path.exists())).free


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
        on_disk = one.mapped_fits and not one.fits
        runs = "yes" if one.fits else "part" if on_disk else "no"
        fits = runs if one.fits_disk or runs == "no" else "disk"
        lines.append(
            f"| {one.form:<4} | {size(one.total_bytes):>8} | {size(one.weights_bytes):>8} | {size(one.kv_bytes):>8} | "
            f"{other:>8} | {fits:<4} | {size(one.disk_bytes):>8} | {_speed_in_words(one, mapped=on_disk):>8} |"
        )
    return "\n".join([*lines, "", *_inputs(report)]) + "\n"


def _speed_in_words(one: FormFit, *, mapped: bool) -> str:
    if mapped:
        return f">{one.mapped_tok_s:.1f}" if one.mapped_tok_s else "?"
    return f"{'' if one.tok_s_source == 'measured' else '≈'}{one.predicted_tok_s:.1f}"


def _inputs(report: FitReport) -> list[str]:
    """Where the figures come from, and what to do."""
    first = report.forms[0]
    said = [
        f"≈: one stream at the start of a text, from {size(report.read_bytes_per_s)}/s read with {report.threads} "
        f"threads and a cache of {size(report.cache_bytes)}, times {1 / first.correction:.2f} as "
        + (f"measured with {', '.join(first.corrected_by[:3])}" if first.corrected_by else "no model was measured yet")
    ]
    if first.in_file_bytes:
        said.append(
            f"beside its memory {first.form} has {size(first.in_file_bytes)} of weights that stay in their file: "
            "a row of them is read for each token"
        )
    if report.download_bytes:
        said.append(
            f"nothing but headers was read; `localinfer pull {report.model}` downloads {size(report.download_bytes)}"
        )
    if report.package:
        said.append(f"nothing but a header was read, of the weights in package {report.package}")
    fitting = [one for one in report.forms if one.fits]
    said += [
        f"part: {one.form} runs with {size(one.mapped_held_bytes)} of its {size(one.experts_bytes)} of experts in "
        f"memory and all of them in a file on disk, counted there, which gives "
        f"{size(report.disk_bytes_per_s)}/s; >: were all experts as likely"
        for one in report.forms
        if one.mapped_fits and not one.fits
    ][:1]
    if not fitting and not any(one.mapped_fits for one in report.forms):
        said.append("no form fits: lower `--ctx-size` or `--parallel`, or choose a smaller model")
    elif fitting and not first.fits:
        said.append(f"{fitting[0].form} fits: `localinfer quantize {report.model} --bits {fitting[0].form[3:]}`")
    return said
