"""Arrays that show what a kernel should not do: guards around outputs, misaligned starts, aligned panels."""

from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Bytes = NDArray[np.uint8]
Scalar = TypeVar("Scalar", bound=np.generic)

EPS = 2.0**-24
"""Half a unit in the last place of a float32 of size 1: the error of one rounding."""


def aligned(n_bytes: int) -> Bytes:
    """`n_bytes` zero bytes that start at a multiple of 64."""
    room = np.zeros(n_bytes + 64, np.uint8)
    start = -room.ctypes.data % 64
    return room[start : start + n_bytes]


def shifted(values: NDArray[Scalar], offset: int) -> NDArray[Scalar]:
    """A contiguous copy of `values` that starts `offset` elements after a multiple of 64 bytes."""
    item = values.dtype.itemsize
    room = aligned(values.size * item + offset * item)[offset * item :]
    copy = room.view(values.dtype).reshape(values.shape)
    copy[...] = values
    return copy


class Guarded:
    """An output surrounded by bytes that a kernel must leave alone, also between its rows."""

    FILL = 0xA5

    def __init__(self, shape: tuple[int, ...], dtype: Any = np.float32, *, offset: int = 1, gap: int = 0) -> None:
        self._item = np.dtype(dtype).itemsize
        rows, columns = (1, shape[0]) if len(shape) == 1 else shape
        self._before = 16 + offset
        self._room = aligned((self._before + rows * (columns + gap) + 16) * self._item)
        self._room[:] = self.FILL
        body = self._room.view(dtype)[self._before : self._before + rows * (columns + gap)]
        body = body.reshape(rows, columns + gap)[:, :columns]
        self.view: NDArray[Any] = body[0] if len(shape) == 1 else body

    def check(self) -> None:
        """Fails if a byte outside the view was written."""
        copy = self._room.copy()
        # The same window on the copy, painted over: what remains must be the fill.
        window = np.ndarray(self.view.shape, self.view.dtype, copy.data, self._before * self._item, self.view.strides)
        window.view(np.uint8)[...] = self.FILL
        assert (copy == self.FILL).all(), "written outside of the output"


def same_bits(a: NDArray[np.float32], b: NDArray[np.float32]) -> bool:
    """Equal to the last bit, the sign of zero included; any NaN equals any NaN."""
    if a.shape != b.shape:
        return False
    return bool(
        (
            np.where(np.isnan(a), np.float32(np.nan), a).view(np.uint32)
            == np.where(np.isnan(b), np.float32(np.nan), b).view(np.uint32)
        ).all()
    )


def assert_close(seen: Floats, expected: NDArray[np.float64], tolerance: NDArray[np.float64] | float) -> None:
    """|seen - expected| <= tolerance everywhere; names the worst place."""
    error = np.abs(seen.astype(np.float64) - expected)
    excess = error - tolerance
    worst = np.unravel_index(int(np.argmax(excess)), excess.shape)
    assert excess[worst] <= 0, f"at {worst}: {seen[worst]} for {expected[worst]}, off by {error[worst]}"
