"""The files that a model is made from: what they were when a run began, and whether they still are that."""

import re
from pathlib import Path
from typing import Any

from localinfer.errors import Changed, LocalInferError
from localinfer.formats.chat_templates import FOLDER as TEMPLATE_FOLDER
from localinfer.formats.checkpoint_files import open_tensors
from localinfer.formats.json_files import read_object
from localinfer.quantize.journal import sha256

COPIED = (
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "chat_template.json",
    "processor_config.json",
    "preprocessor_config.json",
    "LICENSE",
    "LICENSE.txt",
)
"""Small files that a model made from another takes over as they are."""

_COMMIT = re.compile(r"[0-9a-f]{40}")
_TRAINED = re.compile(r"qat-q4_0-unquantized", re.IGNORECASE)


def copied(source: Path) -> list[str]:
    """The names of those that `source` has, its further chat templates among them."""
    templates = sorted((source / TEMPLATE_FOLDER).glob("*.jinja"))
    names = [*COPIED, *(f"{TEMPLATE_FOLDER}/{path.name}" for path in templates)]
    return [name for name in names if (source / name).is_file()]


def trained_for_q4_0(source: Path) -> bool:
    """Whether the weights were trained to be rounded as Q4_0 does it, which the name of their repository alone says."""
    return bool(_TRAINED.search(_written_down(source).get("repository", source.name)))


class Origin:
    """Hashes every file of `source` that decides what comes out. `said`: that, and commit and repository if known."""

    def __init__(self, source: Path) -> None:
        weights = sorted({tensor.file.path for tensor in open_tensors(source).values()})
        small = [source / name for name in copied(source)]
        self._seen = {path: _stamp(path) for path in [source / "config.json", *small, *weights]}
        self.said = _written_down(source) | {
            "files": {str(path.relative_to(source)): sha256(path) for path in self._seen}
        }

    def require_unchanged(self) -> None:
        """Raise `Changed` if a file was written, replaced or removed since. Looks at sizes and times alone."""
        for path, stamp in self._seen.items():
            if _stamp(path) != stamp:
                raise Changed(
                    f"{path} changed while it was being quantized",
                    hint="leave the source as it is while this runs; the same command says what can be kept",
                )


def _stamp(path: Path) -> tuple[int, ...]:
    """What a file that was written again does not keep."""
    try:
        status = path.stat()
    except OSError:
        return ()
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def _written_down(source: Path) -> dict[str, Any]:
    """Commit and repository, where the folder tells them."""
    try:
        record = read_object(source / "localinfer.json").get("source")
    except LocalInferError:
        record = None
    found = {key: value for key, value in record.items() if isinstance(value, str)} if isinstance(record, dict) else {}
    if source.parent.name == "snapshots" and _COMMIT.fullmatch(source.name):
        found["repository"] = source.parent.parent.name.removeprefix("models--").replace("--", "/")
        found["revision"] = source.name
    return found
