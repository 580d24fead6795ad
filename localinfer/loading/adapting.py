"""A model with adapters merged in, made once and kept until it is pruned."""

import hashlib
import os
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from localinfer.errors import UsageError, size
from localinfer.hub.model import LocalModel
from localinfer.hub.names import is_model_name
from localinfer.loading.tell import Tell
from localinfer.paths import merged_dir


def adapted(model: LocalModel, words: Sequence[str], *, tell: Tell) -> LocalModel:
    """`model` with the adapters that `words` name (`DIR` or `DIR=WEIGHT`) added to its weights; itself without any.

    Raises `UsageError` for an adapter of another base, and as `read_adapter` and `merge` do.
    """
    if not words:
        return model
    from localinfer.graph.weights import Checkpoint
    from localinfer.quantize.adapters import CONFIG, WEIGHTS, base_of, merge, read_adapter, weighted
    from localinfer.quantize.journal import sha256

    if model.kind != "checkpoint":
        raise UsageError("adapters are merged into checkpoints, and this is a GGUF file", hint="name the original")
    checkpoint = Checkpoint(model.path)
    named = [weighted(word) for word in words]
    for folder, _ in named:
        _require_base(base_of(folder), folder, model, tell)
    adapters = [read_adapter(folder, weight, checkpoint) for folder, weight in named]
    said = [(sha256(folder / CONFIG), sha256(folder / WEIGHTS), weight) for folder, weight in named]
    digest = hashlib.sha256(repr((1, checkpoint.identity, said)).encode()).hexdigest()[:24]
    dest = merged_dir() / digest
    if not dest.exists():
        several = "s" * (len(named) > 1)
        tell.note(f"merging {len(named)} adapter{several} into {model.ref} once, {size(model.size_bytes)} or more")
        partial = dest.with_name(f"{digest}.{os.getpid()}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        try:
            with tell.progress(in_bytes=True) as progress:
                merge(checkpoint, adapters, partial, progress)
            if not dest.exists():
                partial.rename(dest)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    names = "+".join(folder.name if weight == 1 else f"{folder.name}={weight:g}" for folder, weight in named)
    held = sum(path.stat().st_size for path in dest.iterdir() if path.is_file())
    made = replace(model, ref=f"{model.ref}+{names}", path=dest, revision=digest, source="file")
    return replace(made, size_bytes=held, modified=dest.stat().st_mtime)


def _require_base(base: str, folder: Path, model: LocalModel, tell: Tell) -> None:
    """Raise `UsageError` where the adapter says that it was trained on another model of the Hub; where one of both has
    no such name, say so."""
    if is_model_name(base) and is_model_name(model.name) and model.source != "file":
        if base.lower() != model.name.lower():
            raise UsageError(
                f"{folder.name} was trained on {base}, not on {model.name}",
                hint=f"name that model; if both are the same, say so in {folder / 'adapter_config.json'}",
            )
    elif base:
        tell.note(f"{folder.name} was trained on `{base}`; whether that is this model, only its shapes tell")
