"""What a model's files are, in short: for those who ask by other programs' words."""

import hashlib
import json
from collections import Counter
from dataclasses import dataclass
from functools import lru_cache
from math import prod
from pathlib import Path

from localinfer.errors import LocalInferError
from localinfer.hub.model import LocalModel


@dataclass(frozen=True, slots=True)
class Manifest:
    """`family` and `quantization` are empty, and `parameters` 0, where the files do not say."""

    digest: str
    """sha256 of the names of all files, with what tells their content: the Hub's hash, else size and time."""
    family: str
    parameters: int
    quantization: str


def manifest(model: LocalModel) -> Manifest:
    """Reads headers where the files have changed since it was last asked. All text in it comes from outside."""
    files = [model.path] if model.path.is_file() else sorted(one for one in model.path.rglob("*") if one.is_file())
    names = [(str(one.relative_to(model.path.parent)), *_content(one)) for one in files]
    return _read(model, hashlib.sha256(json.dumps(names).encode()).hexdigest())


def _content(path: Path) -> tuple[str, int, int]:
    """What tells the content of a file. In the Hub's cache the files are links to their hashes."""
    found = path.stat()
    return (path.resolve().name, found.st_size, 0) if path.is_symlink() else ("", found.st_size, found.st_mtime_ns)


@lru_cache(maxsize=256)
def _read(model: LocalModel, digest: str) -> Manifest:
    try:
        family, parameters, quantization = _gguf(model.path) if model.kind == "gguf" else _checkpoint(model)
    except LocalInferError:
        family, parameters, quantization = "", 0, model.variant
    return Manifest(digest, family, parameters, quantization)


def _checkpoint(model: LocalModel) -> tuple[str, int, str]:
    from localinfer.graph.weights import Checkpoint

    checkpoint = Checkpoint(model.path)
    return str(checkpoint.config.get("model_type") or ""), checkpoint.graph.parameters(), model.variant


def _gguf(path: Path) -> tuple[str, int, str]:
    """The quantization is the type that most weights have."""
    from localinfer.formats.gguf import GgufFile

    file = GgufFile(path)
    weights: Counter[str] = Counter()
    for tensor in file.tensors.values():
        weights[tensor.type] += prod(tensor.shape)
    return file.text("general.architecture") or "", weights.total(), max(weights, key=weights.__getitem__, default="")
