"""The norm before the head, for those who want what it gives and not the head's scores."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from localinfer.graph.prepared import norm_bias, norm_weight
from localinfer.graph.weights import Checkpoint

Floats = NDArray[np.float32]


def last_norm(checkpoint: Checkpoint) -> Callable[[Floats], Floats]:
    """The norm before the head, without what the head itself scales by."""
    norm = checkpoint.graph.head.norm
    weight, bias = norm_weight(checkpoint, norm), norm_bias(checkpoint, norm)

    def normed(rows: Floats) -> Floats:
        x = rows.astype(np.float64)
        if norm.centered:
            x -= x.mean(axis=1, keepdims=True)
        x /= np.sqrt((x * x).mean(axis=1, keepdims=True) + norm.eps)
        found = x * weight + (bias if bias is not None and len(bias) else 0)
        return found.astype(np.float32)

    return normed
