"""Integer weights as GPTQ tools store them (AutoGPTQ, GPTQModel), turned into the row-wise form of `compressed.py`.

`qweight` is int32 [K * b / 32, N]: column n is the bit stream of output row n, the same stream that compressed-tensors
lays along a row. `qzeros` is int32 [K / group, N * b / 32], streams along N, and `scales` float16 [K / group, N]. A
weight is `scale * (q - zero)`, q and zero unsigned. The first version stores every zero less one, the second as it is.
"""

import numpy as np
from numpy.typing import NDArray

from localinfer.formats.compressed import unpack

Words = NDArray[np.int32]


def rows_of(qweight: Words) -> Words:
    """`qweight` [words, N] → `weight_packed` [N, words]. Unsigned q is there what signed q - 2**(b-1) is here."""
    return np.ascontiguousarray(qweight.T)


def zeros_of(qzeros: Words, bits: int, rows: int, stored_less: int) -> NDArray[np.int16]:
    """Zero points as int16 [N, groups], less 2**(b-1): 0 in all places means symmetric weights."""
    signed = unpack(qzeros, bits, rows).T.astype(np.int16)
    return np.ascontiguousarray(signed + np.int16(stored_less))
