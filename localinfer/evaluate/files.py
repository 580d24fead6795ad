"""GGUF files that are to be measured: a checkpoint of ours is made of each for as long as that takes."""

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from localinfer.errors import LocalInferError, NotSupported

Convert = Callable[[Path, Path], object]
"""Writes the model of a GGUF file into a new directory. Raises `NotSupported` for one that our engine cannot run."""


@contextmanager
def as_checkpoints(
    paths: Sequence[Path], convert: Convert | None, on_note: Callable[[str], None] = lambda text: None
) -> Iterator[list[Path]]:
    """`paths`, each GGUF file among them as a directory, where `convert` can make one; else as it is, for llama.cpp.

    Raises what `convert` does, and its `NotSupported` where llama.cpp is not installed.
    """
    with tempfile.TemporaryDirectory(prefix="localinfer-eval-") as folder:
        found = []
        for number, path in enumerate(paths):
            target = Path(folder) / str(number)
            if convert is None or not path.is_file():
                found.append(path)
                continue
            try:
                convert(path, target)
                found.append(target)
            except NotSupported as error:
                _require_llamacpp(error)
                on_note(f"{error.message}: llama.cpp measures it")
                found.append(path)
        yield found


def _require_llamacpp(error: NotSupported) -> None:
    from localinfer.engine.llamacpp_library import load_library

    try:
        load_library()
    except LocalInferError:
        raise error from None
