"""How likely a row of logits holds a token to be."""

import numpy as np
from numpy.typing import NDArray

from localinfer.events import Scored


def scored(logits: NDArray[np.float32], token: int, top: int) -> Scored:
    """The score of `token`, and the `top` likeliest tokens with theirs; of equals, lower tokens first. `logits` [vocab]
    are finite."""
    row = logits.astype(np.float64)
    highest = row.max()
    total = highest + np.log(np.exp(row - highest).sum())
    best = list[int]()
    if top:
        least = np.partition(row, -min(top, len(row)))[-min(top, len(row))]
        candidates = np.flatnonzero(row >= least)
        best = [int(i) for i in candidates[np.argsort(-row[candidates], kind="stable")][:top]]
    rank = int((row > row[token]).sum())
    return Scored(token, float(row[token] - total), rank, tuple((i, float(row[i] - total)) for i in best))
