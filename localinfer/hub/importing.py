"""Turn a GGUF file into a model of ours: checked, written beside its place, then renamed whole."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from localinfer.errors import LocalInferError, UsageError
from localinfer.formats.durable import sync, write_failed, write_json
from localinfer.formats.json_files import file_error, read_object
from localinfer.hub.cache import own_model, variant_dir
from localinfer.hub.checkpoint import RECORD
from localinfer.hub.hashing import sha256_file
from localinfer.hub.locks import locked
from localinfer.hub.model import LocalModel
from localinfer.hub.names import check_model_name, folder_of, name_from
from localinfer.paths import models_dir

Progress = Callable[[int, int], None]
"""Called with (done, total) in whatever unit the work has."""


def import_file(
    path: Path,
    name: str | None = None,
    on_progress: Progress | None = None,
    *,
    source: dict[str, Any] | None = None,
) -> LocalModel:
    """Make `name:BF16` from the GGUF file at `path`; the weights are dequantized to bf16.

    `name` defaults to one made from the file's stem. Importing the same file again returns what is there; another file
    under a taken name is a `UsageError`. `source` is kept in `localinfer.json` beside the file's name and hash.
    Raises what the reader raises (`Corrupt`, `NotSupported`, `NotFound`) and `DoesNotFit` when the disk is full;
    nothing half-made is left behind then.
    """
    name = check_model_name(name) if name else default_name(path)
    with locked(models_dir() / ".locks" / f"{folder_of(name)}.lock"):
        if (taken := own_model(name, "BF16")) is None:
            _write(path, variant_dir(name, "BF16"), source or {}, on_progress)
        elif recorded_hash(taken.path) == _hash(path):
            return taken
        else:
            raise UsageError(
                f"`{name}` is already the name of another model",
                hint=f"choose one with `--name`, or delete it: `localinfer rm {name}:BF16`",
            )
    made = own_model(name, "BF16")
    if made is None:
        raise LocalInferError(f"`{name}` was imported but is not complete", hint="report this, with the file's name")
    return made


def default_name(path: Path) -> str:
    """A model name from a file name: `My model.Q4_1.gguf` → `My-model.Q4_1`."""
    return check_model_name(name_from(path.stem) or "imported")


def recorded_hash(directory: Path) -> str | None:
    """The sha256 of the file that an imported model was made from, or None."""
    try:
        source = read_object(directory / RECORD).get("source")
    except LocalInferError:
        return None
    digest = source.get("sha256") if isinstance(source, dict) else None
    return digest if isinstance(digest, str) else None


def _hash(path: Path) -> str:
    try:
        return sha256_file(path)
    except OSError as error:
        raise file_error(path, error) from error


def _write(path: Path, final: Path, source: dict[str, Any], on_progress: Progress | None) -> None:
    from localinfer.formats.gguf import GgufFile
    from localinfer.formats.gguf_import import import_gguf

    partial = final.with_name(final.name + ".partial")
    try:
        if partial.exists():
            shutil.rmtree(partial)  # an earlier attempt that died; the lock says nobody is writing it
        if final.exists():
            shutil.rmtree(final)  # incomplete, or `own_model` would have found it
        import_gguf(path, partial, on_progress)
        types = sorted({tensor.type for tensor in GgufFile(path).tensors.values()})
        origin = {"file": path.name, "sha256": sha256_file(path), "types": types, **source}
        files = sorted(partial.iterdir())
        hashes = {file.name: sha256_file(file) for file in files}
        write_json(partial / RECORD, {"format": 1, "kind": "imported", "source": origin, "files": hashes})
        for file in files:
            sync(file)
        sync(partial)
        partial.rename(final)
        sync(final.parent)
    except OSError as error:
        shutil.rmtree(partial, ignore_errors=True)
        raise write_failed(final, 4096, error) from error
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
