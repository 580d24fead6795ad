"""All tensors of a Hugging Face directory, whichever of its safetensors files they lie in."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from localinfer.errors import Corrupt, LocalInferError, NotFound, NotSupported
from localinfer.formats.json_files import read_object, shown
from localinfer.formats.layout import INDEX, INDEX_LIMIT, PICKLES, SINGLE
from localinfer.formats.safetensors import SafetensorsFile, TensorInfo

MAX_FILES = 4096
_LISTED = 3
_FILE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.\-]{0,200}\.safetensors")


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """A tensor's place: its file and what the file's header says of it."""

    file: SafetensorsFile
    name: str
    info: TensorInfo

    @property
    def in_one_piece(self) -> bool:
        """Whether its values lie in the file as it is read, from `info.begin` on."""
        return True

    def read(self) -> NDArray[Any]:
        """The whole tensor as a new array (BF16 as uint16)."""
        return self.file.read(self.name)

    def read_rows(self, first: int, last: int | None) -> NDArray[Any]:
        """Rows `[first, last)` along the first axis."""
        return self.file.read_rows(self.name, first, last)


class CheckpointFiles(Mapping[str, StoredTensor]):
    """`{tensor name: its place}` for a directory; `files` are its safetensors files in order of name.

    As in transformers, a single `model.safetensors` goes before an index and what that names, and of a tensor that is
    in several of these files the one in the last is read, whichever the index names; `notes` say so then. Raises
    `NotFound` when there are no weights, `NotSupported` when there are only pickles, `Corrupt` when the index names a
    tensor that is nowhere.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        two_sets = _two_sets(directory)
        index = _index(directory)
        names = sorted(set(index.values())) if index is not None else [SINGLE]
        self.files = [_shard(directory, name) for name in names]
        self._tensors: dict[str, StoredTensor] = {}
        twice, elsewhere = list[str](), list[str]()
        for file in self.files:
            for name, info in file.tensors.items():
                twice += [name] * (name in self._tensors)
                self._tensors[name] = StoredTensor(file, name, info)
        for name, told in (index or {}).items():
            if name not in self._tensors:
                raise Corrupt(
                    f"{self.directory / INDEX}: says `{shown(name)}` is in {told}, but it is in none of the files",
                    hint="download the model again",
                )
            elsewhere += [name] * (self._tensors[name].file.path.name != told and name not in twice)
        found = (
            (twice, "in several files: what the last of them holds is read"),
            (elsewhere, f"in other files than `{INDEX}` says: read where it is"),
        )
        said = [f"{listed(names)}: {what}, as in transformers" for names, what in found if names]
        self.notes: tuple[str, ...] = (*([two_sets] if two_sets else []), *said)

    def __getitem__(self, name: str) -> StoredTensor:
        return self._tensors[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors."""
        return sum(tensor.info.nbytes for tensor in self._tensors.values())


def listed(names: Sequence[str]) -> str:
    """How many tensors these are, and the first few by name."""
    first = ", ".join(f"`{shown(name)}`" for name in names[:_LISTED])
    more = ", …" if len(names) > _LISTED else ""
    return f"tensor {first}" if len(names) == 1 else f"{len(names)} tensors ({first}{more})"


def open_tensors(directory: Path) -> CheckpointFiles:
    """Check the headers of all weights in `directory`; nothing else is read."""
    return CheckpointFiles(directory)


def _index(directory: Path) -> dict[str, str] | None:
    """The index's `{tensor: file}`, or None when the directory has one file only."""
    path = directory / INDEX
    if (directory / SINGLE).exists():
        return None
    if not path.exists():
        raise _no_weights(directory)
    return _weight_map(path)


def _two_sets(directory: Path) -> str:
    """What to say of an index beside a single file; empty where they agree, or one is missing."""
    path = directory / INDEX
    if not path.exists() or not (directory / SINGLE).exists():
        return ""
    try:
        others = sorted({*_weight_map(path).values()} - {SINGLE})
    except LocalInferError:
        others = ["nothing that can be read"]
    if not others:
        return ""
    more = f" and {len(others) - 1} more" if len(others) > 1 else ""
    return f"two sets of weights: `{SINGLE}` is read, as in transformers; `{INDEX}` ({others[0]}{more}) is not"


def _weight_map(path: Path) -> dict[str, str]:
    weights = read_object(path, INDEX_LIMIT).get("weight_map")
    if not isinstance(weights, dict) or not weights:
        raise Corrupt(f"{path}: `weight_map` must be an object that names tensors", hint="download the model again")
    for file in weights.values():
        # The name is joined to the directory: nothing that could lead out of it.
        if not isinstance(file, str) or not _FILE_NAME.fullmatch(file):
            raise Corrupt(f"{path}: {str(file)[:80]!r} is not the name of a file", hint="download the model again")
    if len(set(weights.values())) > MAX_FILES:
        raise Corrupt(f"{path}: names more than {MAX_FILES} files", hint="download the model again")
    return weights


def _shard(directory: Path, name: str) -> SafetensorsFile:
    if not (directory / name).exists():
        raise Corrupt(f"{directory}: {name} is missing", hint="download the model again; a download may have stopped")
    return SafetensorsFile(directory / name)


def _no_weights(directory: Path) -> LocalInferError:
    if not directory.is_dir():
        return NotFound(f"{directory}: no such directory", hint="check the path, or `localinfer list`")
    if any(file.suffix.lower() in PICKLES for file in directory.iterdir()):
        return NotSupported(
            f"{directory}: has pickled weights only, which can run code and are never opened",
            hint="use a repository with .safetensors files, or let transformers write it anew by `save_pretrained`",
        )
    others = sorted(file.name for file in directory.glob("*.safetensors"))
    beside = f", only {shown(others[0])}{' and more' if len(others) > 1 else ''}, and no {INDEX}" if others else ""
    return NotFound(
        f"{directory}: has no {SINGLE}{beside}", hint="download the model again, or choose another directory"
    )
