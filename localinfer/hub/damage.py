"""Whether a model's files were cut off, by what costs little: headers, sizes, and how a file of JSON ends."""

from pathlib import Path

from localinfer.errors import Corrupt, LocalInferError, NotFound
from localinfer.formats.json_files import file_error, read_object
from localinfer.formats.layout import CONFIG

_TOKENIZER = "tokenizer.json"
_OBJECTS = (
    _TOKENIZER,
    "tokenizer_config.json",
    "generation_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
)
"""Files that hold one object; those of the configuration and the index are read whole."""

_TAIL = 64
"""Bytes at the end of a file in which its last brace must stand; all before is not read."""


def damage_of(directory: Path) -> LocalInferError | None:
    """What is wrong with the files of a checkpoint; None if nothing is seen. Weights and tokens are not read."""
    from localinfer.formats.checkpoint_files import open_tensors

    try:
        read_object(directory / CONFIG)
        open_tensors(directory)
        if not (directory / _TOKENIZER).is_file():
            raise NotFound(f"{directory}: {_TOKENIZER} is missing", hint="download the model again")
        for name in _OBJECTS:
            if (directory / name).exists():
                _must_end(directory / name)
    except LocalInferError as error:
        return error
    return None


def _must_end(path: Path) -> None:
    """Raise `Corrupt` for a file of JSON that ends before its object does."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - _TAIL))
            tail = file.read(_TAIL).rstrip()
    except OSError as error:
        raise file_error(path, error) from error
    if not tail.endswith(b"}"):
        raise Corrupt(f"{path}: is cut off", hint="download or copy the file again")
