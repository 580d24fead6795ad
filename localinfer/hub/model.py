"""What a model on this machine is, as plain data."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Variant = Literal["BF16", "INT8", "INT5", "INT4", "INT3", "GGUF"]
Source = Literal["hub", "ours", "file"]

VARIANTS: tuple[Variant, ...] = ("BF16", "INT8", "INT5", "INT4", "INT3", "GGUF")


def variant_of_bits(bits: int) -> Variant:
    """8 → `INT8`; anything wider than 8 bits is `BF16`."""
    return {8: "INT8", 5: "INT5", 4: "INT4", 3: "INT3"}.get(bits, "BF16")  # type: ignore[return-value]


@dataclass(frozen=True, slots=True)
class LocalModel:
    """One complete model that can be opened now."""

    ref: str
    """What to type to mean exactly this one."""

    name: str
    """The name it shares with its other forms: `org/name`, or a file's stem."""

    variant: Variant
    """Form of the weights. `BF16` also stands for float16 and float32 originals."""

    path: Path
    """A checkpoint directory, or a GGUF file."""

    kind: Literal["checkpoint", "gguf"]

    revision: str | None
    """Commit of the repository it comes from; None for local files."""

    size_bytes: int
    """Bytes on disk."""

    source: Source = "file"
    """`hub`: the shared download cache. `ours`: quantized or imported here. `file`: a path of the user's."""

    modified: float = 0.0
    """When it was made, seconds since 1970."""
