"""Folders compared by bytes, and checkpoints with damage."""

import json
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from localinfer.formats.checkpoint_files import open_tensors
from localinfer.formats.safetensors import write_safetensors


def tree(folder: Path) -> dict[str, bytes]:
    """Every file of a folder."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def replace_tensor(checkpoint: Path, name: str, values: NDArray[Any] | None) -> None:
    """Write the checkpoint's one file again with a tensor changed, or left out."""
    tensors = {key: (tensor.info.dtype, tensor.read()) for key, tensor in open_tensors(checkpoint).items()}
    if values is None:
        del tensors[name]
    else:
        tensors[name] = (tensors[name][0] if name in tensors else "F32", values)
    write_safetensors(checkpoint / "model.safetensors", tensors)


def read_tensor(checkpoint: Path, name: str) -> NDArray[Any]:
    values: NDArray[Any] = open_tensors(checkpoint)[name].read()
    return values


def record(folder: Path) -> dict[str, Any]:
    """`localinfer.json`."""
    value: dict[str, Any] = json.loads((folder / "localinfer.json").read_text())
    return value
