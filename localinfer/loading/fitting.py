"""Whether a model and its context fit into memory, and where its experts go; asked before anything is loaded."""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from localinfer.config import EngineConfig
from localinfer.errors import DoesNotFit, UsageError, size
from localinfer.hub.model import LocalModel

if TYPE_CHECKING:
    from localinfer.cost.fit import Fit
    from localinfer.cost.mapped import Mapped
    from localinfer.graph.weights import Checkpoint


@dataclass(frozen=True, slots=True)
class Fitted:
    """A model that can be loaded."""

    checkpoint: "Checkpoint"
    config: EngineConfig
    """With experts where they are to be: `resident` or `mapped`, and then in how many bytes."""
    note: str = ""
    """What to say before it is loaded."""


def check_fit(model: LocalModel, config: EngineConfig) -> Fitted:
    """The model's files, opened. Raises `DoesNotFit`, with both numbers, when the model and its context are larger than
    the free memory, and `UsageError` where experts are to be mapped and there are none."""
    from localinfer.cost.mapped import mapped
    from localinfer.graph.weights import Checkpoint

    checkpoint = Checkpoint(model.path)
    fit = _estimate(checkpoint, config)
    if fit.fits and config.experts != "mapped":
        return Fitted(checkpoint, replace(config, experts="resident"))
    instead = mapped(fit, held_bytes=config.experts_bytes)
    if instead is None and config.experts == "mapped":
        raise UsageError(f"`{model.ref}` has no experts that could be mapped", hint="leave `--experts` out")
    if instead is None or config.experts == "resident" or not instead.fits:
        raise _does_not_fit(model, config, fit, instead)
    found = replace(config, experts="mapped", experts_bytes=instead.held_bytes)
    return Fitted(checkpoint, found, _expected(model, checkpoint, fit, instead, config))


def _does_not_fit(model: LocalModel, config: EngineConfig, fit: "Fit", instead: "Mapped | None") -> DoesNotFit:
    needs, free = f"`{model.ref}` needs {size(fit.total_bytes)}", f"{size(fit.free_bytes)} is free"
    hint = ""
    if instead is not None and instead.fits:
        least = size(instead.least_bytes)
        hint = f"leave out `--experts resident`: with experts on disk it runs from {least} on, slower"
    elif instead is not None:
        needs += f", or {size(instead.least_bytes)} with its experts on disk"
    return DoesNotFit(f"{needs}, but {free}", hint=hint or _smaller(model, config))


def _expected(model: LocalModel, checkpoint: "Checkpoint", fit: "Fit", instead: "Mapped", config: EngineConfig) -> str:
    """One line: why experts are on disk, and what speed to expect."""
    from localinfer.cost.disk import disk_bandwidth
    from localinfer.cost.machine import last_level_cache, read_bandwidth
    from localinfer.cost.predict import load_of, predict
    from localinfer.paths import experts_dir

    held, every = size(instead.held_bytes), size(instead.experts_bytes)
    why = "" if fit.fits else f"`{model.ref}` needs {size(fit.total_bytes)}, but {size(fit.free_bytes)} is free: "
    if instead.held_bytes >= instead.experts_bytes:
        return f"experts are read from {experts_dir()} when they are wanted; there is room for all {every} of them"
    said = f"{why}{held} of {every} of experts are held, the others read from {experts_dir()} when they are wanted"
    disk = disk_bandwidth(experts_dir())
    if not disk:
        return said
    bandwidth = read_bandwidth(config.threads).bytes_per_s
    computed = 1 / predict(load_of(checkpoint), (), bandwidth, last_level_cache()).tok_s
    slowest = 1 / (computed + instead.read_s(disk))
    return f"{said}; expect {slowest:.1f} tok/s or more, as the disk gives {size(disk)}/s"


def _estimate(checkpoint: "Checkpoint", config: EngineConfig) -> "Fit":
    """What this model needs with these settings."""
    from localinfer.cost.fit import context_of, estimate

    context = context_of(checkpoint, config.context)
    return estimate(
        checkpoint,
        context=context,
        parallel=config.parallel,
        kv_tokens=config.pool_tokens(context),
        rows=config.most_rows,
        kv_bits=config.kv_bits,
        ahead=config.draft in ("auto", "mtp"),
    )


def _smaller(model: LocalModel, config: EngineConfig) -> str:
    """What would fit: another form of it that is here, one that can be made, or less context."""
    from localinfer.graph.weights import Checkpoint
    from localinfer.hub.cache import forms_of
    from localinfer.hub.names import is_model_name

    forms = forms_of(model.name) if model.source != "file" and is_model_name(model.name) else []
    for form in sorted(forms, key=lambda form: -form.size_bytes):
        if form.size_bytes < model.size_bytes and _estimate(Checkpoint(form.path), config).fits:
            return f"run `localinfer run {form.ref}`, which fits"
    if model.variant == "BF16":
        return f"make it smaller with `localinfer quantize {model.ref} --bits 4`, or lower `--ctx-size`"
    return "lower `--ctx-size`, or close a program"
