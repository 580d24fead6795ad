"""A text as one vector: what the model holds of its tokens behind the last layer, and nothing is written."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from localinfer.config import Pool

Floats = NDArray[np.float32]
Normed = Callable[[Floats], Floats]
"""Rows [n, hidden] of the residual stream as the head sees them."""


class Pooling:
    """Collects the rows of one text in their order; each depends on the text alone, and so does their sum."""

    def __init__(self, pool: Pool, normed: Normed) -> None:
        self._pool, self._normed = pool, normed
        self._sum: NDArray[np.float64] | None = None
        self._count = 0

    def add(self, start: int, rows: Floats, *, ends: bool) -> None:
        """Rows [n, hidden] of positions from `start` on; `ends` where they are the last ones."""
        if self._pool == "last":
            self._sum = self._normed(rows[-1:])[0].astype(np.float64) if ends else None
            self._count = 1
            return
        if start == 0:  # also where the text was preempted, and is read anew
            self._sum, self._count = np.zeros(rows.shape[1]), 0
        assert self._sum is not None
        assert self._count == start
        for row in self._normed(rows):  # one by one: the same bits whatever the chunk
            self._sum += row
        self._count += len(rows)

    def vector(self) -> tuple[float, ...]:
        """The text's vector [hidden], not of unit length."""
        assert self._sum is not None
        return tuple((self._sum / self._count).tolist())
