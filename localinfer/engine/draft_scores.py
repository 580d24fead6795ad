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

    def draw(self, choose: Choose, taken: list[int]) -> tuple[int, float] | None:
        """The token that `choose` takes, and its probability by these logits at temperature 1; None where one of them
        is not finite. Uses them up."""
        top = self.logits.max()
        if not np.isfinite(top):
            return None
        chances = np.subtract(self.logits, top, out=self.room)
        np.exp(chances, out=chances)  # before `choose`, which may change the logits
        total = float(chances.sum())
        token = choose(self._laid_out(), taken)
        if token is None:
            return None
        at = token if self.ids is None else int(np.searchsorted(self.ids, token))
        if self.ids is not None and (at == len(self.ids) or self.ids[at] != token):
            return token, 0.0
        return token, min(float(chances[at]) / total, 1.0)

    def _laid_out(self) -> NDArray[np.float32]:
        """Scores of the whole vocabulary."""
        if self.ids is None or self.spread is None:
            return self.logits
        self.spread.fill(np.finfo(np.float32).min)  # finite: the sampler refuses what is not
        self.spread[self.ids] = self.logits
        return self.spread
