"""Which layers bear a 4-bit cache. Asked of the model itself, so that no list of models is needed.

What makes a layer fail is keys of which a few columns are far larger than the rest, as large biases make them: rotated,
they drown the others. That is in the weights, and any text shows it.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from localinfer.errors import NotSupported
from localinfer.graph.spec import ModelSpec

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

LIMIT = 0.25
"""Relative error of a layer's attention from which on it keeps 8 bits."""

PROBE_TOKENS = 256


def require_4_bit(spec: ModelSpec) -> None:
    """Raise `NotSupported` when the heads' values cannot be grouped by 32."""
    odd = next((dim for dim in (spec.head_dim, *(shape.head_dim for shape in spec.shapes)) if dim % 32), 0)
    if odd:
        raise NotSupported(
            f"a 4-bit cache is for heads of a multiple of 32 values, and this model's have {odd}",
            hint="use `--kv-bits 8`",
        )


def probe_length(spec: ModelSpec) -> int:
    """Tokens that layers are tried with, whatever context was asked for: the choice must not depend on it."""
    return min(PROBE_TOKENS, spec.max_context)


def probe_text(spec: ModelSpec) -> "NDArray[np.int32]":
    """The text: tokens from all over the vocabulary, always the same."""
    import numpy as np

    return ((np.arange(probe_length(spec)) * 7919 + 1) % spec.vocab_size).astype(np.int32)


def choose_bits(errors: Sequence[float]) -> list[int]:
    """Bits of each layer's cache, from the errors of `Program.probe_kv`. One that is no number is too large."""
    return [4 if error < LIMIT else 8 for error in errors]
