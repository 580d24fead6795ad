"""Integer weights as GPTQ tools store them (AutoGPTQ, GPTQModel), to and from the row-wise form of `compressed.py`.

`qweight` is int32 [K * b / 32, N]: column n is the bit stream of output row n, the same stream that compressed-tensors
lays along a row. `qzeros` is int32 [K / group, N * b / 32], streams along N, and `scales` float16 [K / group, N]. A
weight is `scale * (q - zero)`, q and zero unsigned. The first version stores every zero less one, the second as it is.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from localinfer.formats.compressed import pack, unpack

Words = NDArray[np.int32]


def rows_of(qweight: Words) -> Words:
    """`qweight` [words, N] → `weight_packed` [N, words]. Unsigned q is there what signed q - 2**(b-1) is here."""
    return np.ascontiguousarray(qweight.T)


def zeros_of(qzeros: Words, bits: int, rows: int, stored_less: int) -> NDArray[np.int16]:
    """Zero points as int16 [N, groups], less 2**(b-1): 0 in all places means symmetric weights."""
    signed = unpack(qzeros, bits, rows).T.astype(np.int16)
    return np.ascontiguousarray(signed + np.int16(stored_less))


def to_gptq(packed: Words, scales: NDArray[np.float16], bits: int, group: int, columns: int) -> dict[str, Any]:
    """`{part: (dtype word, array)}` of a symmetric matrix in the first version's layout, columns in their own order.

    N * b must be divisible by 32.
    """
    rows, groups = scales.shape
    zero = np.full((groups, rows), -1, np.int8)  # 2**(b-1), less one, as `pack` counts
    return {
        "qweight": ("I32", np.ascontiguousarray(packed.T)),
        "qzeros": ("I32", pack(zero, bits)),
        "scales": ("F16", np.ascontiguousarray(scales.T)),
        "g_idx": ("I32", np.arange(columns, dtype=np.int32) // np.int32(group)),
    }
