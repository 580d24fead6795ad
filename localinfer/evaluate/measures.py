"""What two rows of logits say of each other: plain numpy in float64, no model and no file."""

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

Logits = NDArray[np.float32]
Doubles = NDArray[np.float64]

_ROWS_AT_ONCE = 8
"""So that the float64 rows of one piece stay in the processor's cache."""


@dataclass(frozen=True, slots=True)
class Measured:
    """One number a scored position; P is the reference, Q the model. Without a reference P is Q."""

    nll: Doubles
    """-ln Q(token that came)."""
    nll_reference: Doubles
    """-ln P(token that came)."""
    kld: Doubles
    """KL(P || Q) over the whole vocabulary, in nats; at least 0."""
    same: NDArray[np.bool_]
    """P and Q have the same likeliest token (the lowest of equals)."""

    def __len__(self) -> int:
        return len(self.nll)


def join(parts: list[Measured]) -> Measured:
    """All positions of `parts` in order."""
    columns = {field.name: np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(Measured)}
    return Measured(**columns)


def measure(logits: Logits, reference: Logits | None, targets: NDArray[np.int32]) -> Measured:
    """Compare rows of `logits` [n, vocab] with those of `reference`; `targets` [n] are the tokens that came next.

    Logits must be finite.
    """
    n = len(targets)
    nll, nll_reference, kld = np.empty(n), np.empty(n), np.zeros(n)
    same = np.ones(n, np.bool_)
    for first in range(0, n, _ROWS_AT_ONCE):
        part = slice(first, min(n, first + _ROWS_AT_ONCE))
        rows = np.arange(part.stop - first)
        q, _, log_q = _normalized(logits[part])
        nll[part] = log_q - q[rows, targets[part]]
        if reference is None:
            nll_reference[part] = nll[part]
            continue
        p, weights, log_p = _normalized(reference[part])
        nll_reference[part] = log_p - p[rows, targets[part]]
        # sum of P * (ln P - ln Q); the two normalizers are the same for all tokens.
        apart = np.einsum("ij,ij->i", weights, p - q) / weights.sum(axis=1)
        kld[part] = np.maximum(apart - (log_p - log_q), 0.0)
        same[part] = logits[part].argmax(axis=1) == reference[part].argmax(axis=1)
    return Measured(nll, nll_reference, kld, same)


def _normalized(rows: Logits) -> tuple[Doubles, Doubles, Doubles]:
    """Logits less their largest, exp of these, and ln of the sum of exp: -ln softmax is the third less the first."""
    shifted = rows.astype(np.float64)
    shifted -= shifted.max(axis=1, keepdims=True)
    weights = np.exp(shifted)
    return shifted, weights, np.log(weights.sum(axis=1))
