"""Metadata values of a GGUF file, within bounds."""

from typing import Any

from localinfer.errors import NotSupported
from localinfer.formats.gguf import GgufFile

LLAMACPP = "run it with `--backend llamacpp`"


def bounded(file: GgufFile, key: str, high: int, default: int | None = None, low: int = 1) -> int:
    """A whole number; one for each layer will do if they are all the same."""
    found = file.metadata.get(key)
    if isinstance(found, list) and found:
        if any(item != found[0] for item in found):
            raise refused(file, f"`{key}` differs from layer to layer, which is not supported")
        file.metadata[key] = found[0]
    value = file.integer(key, default)
    if not low <= value <= high:
        raise file.error(f"`{key}` is {value}, but must lie between {low} and {high}")
    return value


def number(file: GgufFile, key: str, default: float | None = None) -> float:
    """A number as it was before it became float32."""
    return float(f"{file.number(key, default):.7g}")


def positive(file: GgufFile, key: str, default: float | None = None) -> float:
    """A number above 0."""
    value = number(file, key, default)
    if value <= 0:
        raise file.error(f"`{key}` is {value}, but must be positive")
    return value


def windowed_layers(file: GgufFile, arch: str, layers: int, every: int) -> list[str]:
    """`layer_types`: which layers have a window. The file has one flag for each, or all but every n-th (0: all) have
    one; `every` where it says nothing."""
    key = f"{arch}.attention.sliding_window_pattern"
    found: Any = file.metadata.get(key, every)
    if isinstance(found, list):
        if len(found) < layers or not all(item in (0, 1) for item in found):
            raise file.error(f"`{key}` does not say of each layer if it has a window")
        windowed = [bool(item) for item in found[:layers]]
    else:
        every = bounded(file, key, 1024, every, low=0)
        windowed = [every == 0 or (i + 1) % every != 0 for i in range(layers)]
    return ["sliding_attention" if one else "full_attention" for one in windowed]


def refused(file: GgufFile, what: str) -> NotSupported:
    """The error for what a file asks for and nothing here runs."""
    return NotSupported(f"{file.path.name}: {what}", hint=LLAMACPP)
