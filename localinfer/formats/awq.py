"""4-bit weights as AutoAWQ stores them (its `gemm` form).

`qweight` is int32 [K, N / 8]: eight neighbouring output rows share a word, in the order 0 2 4 6 1 3 5 7 from its lowest
four bits on. `qzeros` int32 [K / group, N / 8] is laid out alike; `scales` is float16 [K / group, N]. A weight is
`scale * (q - zero)`, q and zero in [0, 15].
"""

import numpy as np
from numpy.typing import NDArray

ORDER = (0, 2, 4, 6, 1, 3, 5, 7)


def unpack_awq(words: NDArray[np.int32]) -> NDArray[np.int8]:
    """int32 [n, N / 8] → int8 [n, N] in [0, 15]."""
    out = np.empty((*words.shape, 8), np.int8)
    unsigned = words.view(np.uint32)
    for index, row in enumerate(ORDER):
        out[..., row] = unsigned >> np.uint32(4 * index) & np.uint32(15)
    return out.reshape(words.shape[0], -1)
