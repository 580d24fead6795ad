"""Eight-bit floats, e4m3: a sign, four bits of exponent (bias 7), three of fraction; no infinity, two NaNs."""

import numpy as np
from numpy.typing import NDArray


def _values() -> NDArray[np.float32]:
    code = np.arange(256)
    exponent, fraction = code >> 3 & 15, code & 7
    size = np.where(exponent == 0, fraction * 2.0**-9, (1 + fraction / 8) * 2.0 ** (exponent - 7))
    size[(code & 0x7F) == 0x7F] = np.nan
    return np.where(code & 0x80, -size, size).astype(np.float32)


E4M3 = _values()
"""What each of the 256 codes means."""


def from_e4m3(codes: NDArray[np.uint8]) -> NDArray[np.float32]:
    """The same numbers in float32, of the same shape."""
    return E4M3[codes]
