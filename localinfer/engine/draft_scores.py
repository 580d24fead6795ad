"""Rows of scores, as drafters that run a model hand them to the text's own sampler."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from localinfer.speculation.drafter import Choose


@dataclass(slots=True)
class ScoreRow:
    """Logits [vocab]; or, with `ids` int32 [m], those of these tokens alone, all others being impossible.

    `spread` float32 [vocab] is then where they are laid out for the sampler; it may be shared.
    """

    logits: NDArray[np.float32]
    ids: NDArray[np.int32] | None = None
    spread: NDArray[np.float32] | None = None

    def draw(self, choose: Choose, taken: list[int]) -> tuple[int, float]:
        """The token that `choose` takes, and its probability by these logits at temperature 1. Uses them up."""
        logits, total = self.logits, _log_sum(self.logits)
        if self.ids is None or self.spread is None:
            token = choose(logits, taken)
            return token, min(1.0, float(np.exp(logits[token] - total)))
        self.spread.fill(-np.inf)
        self.spread[self.ids] = logits
        token = choose(self.spread, taken)
        at = int(np.searchsorted(self.ids, token))
        return token, float(np.exp(logits[at] - total)) if at < len(self.ids) and self.ids[at] == token else 0.0


def _log_sum(logits: NDArray[np.float32]) -> float:
    top = logits.max()
    return float(top + np.log(np.exp(logits - top).sum()))
