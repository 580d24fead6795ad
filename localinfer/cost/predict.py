"""How fast a model will decode that was never run: the roofline of this machine, corrected by what was measured on it.

A step of one row reads every weight once, at a part of the read bandwidth that depends on the width of the weights, and
each layer adds a little that does not depend on its size. What the last-level cache holds comes faster, which small
models notice. Models that were measured here correct the rest: those of a like size and width count most.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from localinfer.cost.roofline import weights_read
from localinfer.graph.memory import Form
from localinfer.graph.weights import Checkpoint

EFFICIENCY: Mapping[int, float] = {16: 0.75, 8: 0.65, 5: 0.6, 4: 0.65, 3: 0.57}
"""Part of the read bandwidth that a step of one row reaches, by bits of the weights, as seen on AVX2; of 5 bits it is
a guess between 4 and 3."""

LAYER_S = 12e-6
"""Seconds that a layer takes beside reading its weights: norms, attention over a short text, waiting for each other."""

CACHE_SPEED = 2.0
"""How many times as fast as memory the last-level cache is read: 32 MB against 256 MB, as seen on Zen 4."""

OTHER_WIDTH = 0.2
"""How much a measured model counts whose layers have another width."""


@dataclass(frozen=True, slots=True)
class Load:
    """What a step of one row has to do."""

    by_bits: Mapping[int, int]
    """Bytes of weights that it reads, by their bits; vectors count as 16."""
    layers: int

    @property
    def nbytes(self) -> int:
        return sum(self.by_bits.values())

    @property
    def body_bits(self) -> int:
        """The narrowest width, which is that of the layers."""
        return min(self.by_bits)

    def seconds(self, bandwidth: float, cache_bytes: int = 0) -> float:
        """By the roofline alone; `bandwidth` of the memory in bytes a second, `cache_bytes` of the last-level cache."""
        read = sum(nbytes / (bandwidth * EFFICIENCY[bits]) for bits, nbytes in self.by_bits.items())
        cached = min(1.0, cache_bytes / self.nbytes)
        return read * (1 - cached + cached / CACHE_SPEED) + self.layers * LAYER_S


@dataclass(frozen=True, slots=True)
class Known:
    """A model that was measured on this machine."""

    name: str
    load: Load
    seconds: float
    """Of a step of one row on an empty cache."""


@dataclass(frozen=True, slots=True)
class Prediction:
    """Tokens a second of one stream at the start of a text, and what they come from."""

    tok_s: float
    bytes_per_token: int
    correction: float
    """How much slower than the roofline models like this one were here; 1 when none was measured."""
    corrected_by: tuple[str, ...]
    """Those models, the one that counts most first."""


def load_of(checkpoint: Checkpoint, form: Form | None = None) -> Load:
    """The load of a checkpoint, from headers alone; `form` as in `fit.estimate`."""
    return Load(weights_read(checkpoint, form), checkpoint.spec.layers)


def predict(load: Load, known: Sequence[Known], bandwidth: float, cache_bytes: int = 0) -> Prediction:
    """The speed of `load` on a machine that reads `bandwidth` bytes a second, holds `cache_bytes` in its last-level
    cache, and ran the models `known`."""
    counts = {one.name: _likeness(load, one.load) for one in known}
    correction = _mean((counts[one.name], one.seconds / one.load.seconds(bandwidth, cache_bytes)) for one in known)
    return Prediction(
        tok_s=1 / (load.seconds(bandwidth, cache_bytes) * correction),
        bytes_per_token=load.nbytes,
        correction=correction,
        corrected_by=tuple(sorted(counts, key=lambda name: -counts[name])),
    )


def _likeness(one: Load, other: Load) -> float:
    """1 for the same size and width; half for twice the size."""
    size = min(one.nbytes, other.nbytes) / max(one.nbytes, other.nbytes)
    return size * (1.0 if one.body_bits == other.body_bits else OTHER_WIDTH)


def _mean(pairs: Iterable[tuple[float, float]]) -> float:
    """The weighted geometric mean of (weight, value); 1 of nothing."""
    weights, logs = 0.0, 0.0
    for weight, value in pairs:
        weights, logs = weights + weight, logs + weight * math.log(value)
    return math.exp(logs / weights) if weights else 1.0
