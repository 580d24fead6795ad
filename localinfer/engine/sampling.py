"""From a row of logits to a token. The draw is native code; what it is keyed by is decided here."""

import numpy as np
from numpy.typing import NDArray

from localinfer import native
from localinfer.config import SamplingParams

RECENT = 64
"""Tokens at the end of the text that the repeat penalty looks at."""

_NOTHING = np.empty(0, np.int32)


class Sampler:
    """Chooses tokens for one request: a pure function of logits, recent tokens, the request's seed and the position.

    So it does not matter in which step, batch or draft a row was computed.
    """

    def __init__(self, params: SamplingParams) -> None:
        self._params = params
        self._penalizes = params.repeat_penalty != 1.0

    def choose(self, logits: NDArray[np.float32], tokens: list[int], taken: list[int], position: int) -> int | None:
        """The token after `tokens` and `taken`, at `position` of the text; None where a logit is NaN or infinite, or
        all are the same. `logits` [vocab] are used up."""
        if logits[0] == logits[-1] and len(logits) > 1 and (logits == logits[0]).all():
            return None  # a norm hides an overflow: it makes zeros of it
        p = self._params
        recent = _NOTHING
        if self._penalizes:
            recent = np.array((tokens[-RECENT:] + taken)[-RECENT:], np.int32)
        token = native.sample(
            logits, recent, p.temperature, p.top_k, p.top_p, p.min_p, p.repeat_penalty, p.seed, position
        )
        return token if token >= 0 else None
