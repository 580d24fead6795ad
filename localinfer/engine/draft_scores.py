"""Rows of scores, as drafters that run a model hand them to the text's own sampler."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from localinfer.speculation.drafter import Choose


@dataclass(slots=True)
class ScoreRow:
    """Logits [vocab]; or, with `ids` int32 [m], those of these tokens alone, all others being impossible.

    `spread` float32 [vocab] is then where they are laid out for the sampler. `room`, as large as `logits`, is where
    chances are computed. Both may be shared by rows that are drawn from one after the other.
    """

    logits: NDArray[np.float32]
    ids: NDArray[np.int32] | None = None
    spread: NDArray[np.float32] | None = None
    room: NDArray[np.float32] | None = None

    def draw(self, choose: Choose, taken: list[int]) -> tuple[int, float]:
        """The token that `choose` takes, and its probability by these logits at temperature 1. Uses them up."""
        chances = np.subtract(self.logits, self.logits.max(), out=self.room)
        np.exp(chances, out=chances)  # before `choose`, which may change the logits
        total = float(chances.sum())
        if self.ids is None or self.spread is None:
            token = at = choose(self.logits, taken)
        else:
            self.spread.fill(-np.inf)
            self.spread[self.ids] = self.logits
            token = choose(self.spread, taken)
            at = int(np.searchsorted(self.ids, token))
            if at == len(self.ids) or self.ids[at] != token:
                return token, 0.0
        sure = float(chances[at]) / total
        return token, sure if sure <= 1 else 0.0  # NaN: not sure at all
