"""Metadata values of a GGUF file, within bounds."""

from typing import Any

from localinfer.errors import NotSupported
from localinfer.formats.gguf import GgufFile

LLAMACPP = "run it with `--backend llamacpp`"
MOST_EXPERTS = 1 << 10
MOST_MATRICES = 1 << 18
"""Of experts, in all layers."""


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


def each_layer(file: GgufFile, key: str, high: int, layers: int, default: int | None = None) -> list[int]:
    """A whole number for each layer; the file has a list of them, or one for all."""
    found: Any = file.metadata.get(key)
    if not isinstance(found, list):
        return [bounded(file, key, high, default)] * layers
    if len(found) < layers or not all(type(one) is int and 1 <= one <= high for one in found):
        raise file.error(f"`{key}` does not have a number from 1 to {high} for each layer")
    return found[:layers]


def head_size(file: GgufFile, arch: str, default: int, layers: str = "", *, partial: bool = False) -> int:
    """Values of a head in the layers that `layers` names: keys and values have one length, and RoPE turns all of
    them, or, where it may be `partial`, some."""
    head_dim = bounded(file, f"{arch}.attention.key_length{layers}", 1024, default)
    if bounded(file, f"{arch}.attention.value_length{layers}", 1024, default) != head_dim:
        raise refused(file, "keys and values differ in length")
    turned = bounded(file, f"{arch}.rope.dimension_count{layers}", 1024, head_dim)
    if head_dim % 2 or turned % 2 or turned > head_dim or (turned != head_dim and not partial):
        raise refused(file, "RoPE turns a part of each head only")
    return head_dim


def number(file: GgufFile, key: str, default: float | None = None) -> float:
    """A number as it was before it became float32."""
    return float(f"{file.number(key, default):.7g}")


def positive(file: GgufFile, key: str, default: float | None = None) -> float:
    """A number above 0."""
    value = number(file, key, default)
    if value <= 0:
        raise file.error(f"`{key}` is {value}, but must be positive")
    return value


def layers_of(file: GgufFile, arch: str) -> int:
    """The layers of the model: those that guess tokens ahead come after them and are not run."""
    count = bounded(file, f"{arch}.block_count", 1024)
    return count - bounded(file, f"{arch}.nextn_predict_layers", count - 1, 0, low=0)


def ahead(file: GgufFile, arch: str) -> set[str]:
    """The tensors of the layers that guess tokens ahead."""
    layers = range(layers_of(file, arch), bounded(file, f"{arch}.block_count", 1024))
    starts = tuple(f"blk.{layer}." for layer in layers)
    return {name for name in file.tensors if name.startswith(starts)} if starts else set()


def experts(file: GgufFile, arch: str) -> tuple[int, int]:
    """How many experts there are, and how many a row goes to."""
    count = bounded(file, f"{arch}.expert_count", MOST_EXPERTS)
    if 3 * count * bounded(file, f"{arch}.block_count", 1024) > MOST_MATRICES:
        raise file.error(f"`{arch}.expert_count` is {count}, more than is believable")
    return count, bounded(file, f"{arch}.expert_used_count", count)


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
