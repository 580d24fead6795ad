"""Whether a model and its context fit into memory, asked before anything is loaded."""

from typing import TYPE_CHECKING

from localinfer.config import EngineConfig
from localinfer.errors import DoesNotFit, size
from localinfer.hub.model import LocalModel

if TYPE_CHECKING:
    from localinfer.cost.fit import Fit
    from localinfer.graph.weights import Checkpoint


def check_fit(model: LocalModel, config: EngineConfig) -> "Checkpoint":
    """The model's files, opened. Raises `DoesNotFit`, with both numbers, when the model and its context are larger than
    the free memory."""
    from localinfer.graph.weights import Checkpoint

    checkpoint = Checkpoint(model.path)
    fit = _estimate(checkpoint, config)
    if fit.fits:
        return checkpoint
    raise DoesNotFit(
        f"`{model.ref}` needs {size(fit.total_bytes)}, but {size(fit.free_bytes)} is free", hint=_smaller(model, config)
    )


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
