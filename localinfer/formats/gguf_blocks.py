"""Integers with scales as ggml's blocks of 32 weights: Q8_0 and Q4_0 hold `integer * float16` just as our files do."""

import numpy as np
from numpy.typing import NDArray

BLOCK = 32
BLOCK_BYTES = {"Q8_0": 34, "Q4_0": 18}


def blocks_of(kind: str, values: NDArray[np.int8], scales: NDArray[np.float16]) -> NDArray[np.uint8]:
    """int8 [N, K] (for Q4_0 in [-8, 7]) and float16 [N, K / group], group a multiple of 32 → bytes [N, K / 32 * size].

    No weight changes.
    """
    rows, columns = values.shape
    out = np.empty((rows, columns // BLOCK, BLOCK_BYTES[kind]), np.uint8)
    spread = np.repeat(scales, columns // BLOCK // scales.shape[1], axis=1)
    out[:, :, :2] = np.ascontiguousarray(spread.astype("<f2")).view(np.uint8).reshape(rows, -1, 2)
    blocks = values.reshape(rows, -1, BLOCK)
    if kind == "Q8_0":
        out[:, :, 2:] = blocks.view(np.uint8)
    else:
        unsigned = (blocks + np.int8(8)).view(np.uint8)
        out[:, :, 2:] = unsigned[:, :, :16] | unsigned[:, :, 16:] << 4
    return out.reshape(rows, -1)
