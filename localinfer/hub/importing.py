"""Turn a GGUF file into a model of ours: checked, written beside its place, then renamed whole."""

import contextlib
import hashlib
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from localinfer.errors import LocalInferError, UsageError
from localinfer.formats.durable import sync, write_failed, write_json
from localinfer.formats.json_files import file_error, read_object
from localinfer.hub.cache import made_model, variant_dir
from localinfer.hub.checkpoint import IMPORTED, RECORD
from localinfer.hub.hashing import sha256_file
from localinfer.hub.locks import locked
from localinfer.hub.model import LocalModel, variant_of_bits
from localinfer.hub.names import check_model_name, folder_of, name_from
from localinfer.paths import models_dir

Progress = Callable[[int, int], None]
"""Called with (done, total) in whatever unit the work has."""


class Importer(Protocol):
    """Who turns the file's weights into a checkpoint of ours."""

    def bits_of(self, path: Path) -> int:
        """Bits of the form that `path` will have, by its header alone. Raises what is in the way of it."""
        ...

    def write(self, path: Path, dest: Path, on_progress: Progress | None) -> dict[str, Any]:
        """Write the model into the new directory `dest`; returns what `localinfer.json` keeps of it."""
        ...


class _Bf16:
    """All weights dequantized to bf16."""

    def bits_of(self, path: Path) -> int:
        from localinfer.formats.gguf import GgufFile
        from localinfer.formats.gguf_import import read_plan

        read_plan(GgufFile(path))
        return 16

    def write(self, path: Path, dest: Path, on_progress: Progress | None) -> dict[str, Any]:
        from localinfer.formats.gguf_import import import_gguf

        import_gguf(path, dest, on_progress)
        return {}


def import_file(
    path: Path,
    name: str | None = None,
    on_progress: Progress | None = None,
    *,
    source: dict[str, Any] | None = None,
    importer: Importer | None = None,
) -> LocalModel:
    """Make a model `name` from the GGUF file at `path`, one of its files if it is split.

    Its form is the importer's; without one, the weights are dequantized to bf16. `name` defaults to one made from the
    file's stem. Importing the same file again returns what is there; another file under a taken name is a `UsageError`.
    `source` is kept in `localinfer.json` beside the file's name and hash. Raises what the reader raises (`Corrupt`,
    `NotSupported`, `NotFound`) and `DoesNotFit` when the disk is full; nothing half-made is left behind then.
    """
    name = check_model_name(name) if name else default_name(path)
    importer = importer or _Bf16()
    variant = variant_of_bits(importer.bits_of(path))
    with locked(models_dir() / ".locks" / f"{folder_of(name)}.lock"):
        if (taken := made_model(name, variant)) is None:
            _write(path, variant_dir(name, variant), source or {}, importer, on_progress)
        elif recorded_hash(taken.path) == _hash(path):
            return taken
        else:
            raise UsageError(
                f"`{name}` is already the name of another model",
                hint=f"choose one with `--name`, or delete it: `localinfer rm {name}:{variant}`",
            )
    made = made_model(name, variant)
    if made is None:
        raise LocalInferError(f"`{name}` was imported but is not complete", hint="report this, with the file's name")
    return made


def default_name(path: Path) -> str:
    """A model name from a file name: `My model.Q4_1.gguf` → `My-model.Q4_1`."""
    stem = re.sub(r"-\d{5}-of-\d{5}$", "", path.stem)  # of a split model
    return check_model_name(name_from(stem) or "imported")


def recorded_hash(directory: Path) -> str | None:
    """The sha256 of the file that an imported model was made from, or None."""
    try:
        source = read_object(directory / RECORD).get("source")
    except LocalInferError:
        return None
    digest = source.get("sha256") if isinstance(source, dict) else None
    return digest if isinstance(digest, str) else None


def _hash(path: Path) -> str:
    """The sha256 of the file; of a split model, of its files' sha256 one after the other."""
    from localinfer.formats.gguf import GgufFile

    digests = []
    for file in GgufFile(path).paths:
        try:
            digests.append(sha256_file(file))
        except OSError as error:
            raise file_error(file, error) from error
    return digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()


def _write(path: Path, final: Path, source: dict[str, Any], importer: Importer, on_progress: Progress | None) -> None:
    from localinfer.formats.gguf import GgufFile

    partial = final.with_name(final.name + ".partial")
    try:
        if partial.exists():
            shutil.rmtree(partial)  # an earlier attempt that died; the lock says nobody is writing it
        if final.exists():
            shutil.rmtree(final)  # incomplete, or `made_model` would have found it
        told = importer.write(path, partial, on_progress)
        file = GgufFile(path)
        types = sorted({tensor.type for tensor in file.tensors.values()})
        origin = {"file": file.path.name, "sha256": _hash(path), "types": types, **source}
        files = sorted(partial.iterdir())
        hashes = {file.name: sha256_file(file) for file in files}
        write_json(partial / RECORD, {"format": 1, "kind": IMPORTED, "source": origin, **told, "files": hashes})
        for one in files:
            sync(one)
        sync(partial)
        partial.rename(final)
        sync(final.parent)
    except BaseException as error:
        shutil.rmtree(partial, ignore_errors=True)
        with contextlib.suppress(OSError):
            final.parent.rmdir()  # if nothing else is in it
        if isinstance(error, OSError):
            raise write_failed(final, 4096, error) from error
        raise
