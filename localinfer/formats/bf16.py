"""bfloat16, which numpy does not have: its bits are kept as uint16."""

import numpy as np
from numpy.typing import NDArray


def to_bf16(values: NDArray[np.float32]) -> NDArray[np.uint16]:
    """float32 (finite) → the nearest bf16, ties to even. Same shape; a value too large for bf16 becomes infinite."""
    bits = np.ascontiguousarray(values).view(np.uint32)
    return ((bits + (np.uint32(0x7FFF) + (bits >> 16 & 1))) >> 16).astype(np.uint16)
