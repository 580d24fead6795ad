"""The figures of one model, from what was measured at each position."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from localinfer.evaluate.measures import Doubles, Measured


@dataclass(frozen=True, slots=True, kw_only=True)
class Quality:
    """How well one model predicts a text, and how far it is from its reference. KL divergences are in nats a token.

    Standard errors take positions as independent, as llama-perplexity does. What needs a reference is None without one.
    """

    model: str
    reference: str | None
    bits_per_weight: float
    """Of all weights as they are stored, scales included."""
    body_bits_per_weight: float
    """Of the layers' matrices alone."""
    size_bytes: int
    """Of all weights as they are stored."""

    ctx: int
    chunks: int
    tokens: int
    """Scored positions."""
    kv_bits: int

    ppl: float
    ppl_se: float
    ppl_reference: float | None
    ppl_ratio: float | None
    """ppl over ppl_reference."""
    kld_mean: float | None
    kld_se: float | None
    kld_median: float | None
    kld_p90: float | None
    kld_p99: float | None
    kld_max: float | None
    kld_floor: float | None
    """What the cache alone loses: mean KL divergence of the reference from itself through a cache like the model's."""
    top1_agreement: float | None
    top1_se: float | None

    seconds: float
    """In this model's own steps."""

    def figures(self) -> dict[str, Any]:
        """The figures that stay with a model: what was measured, how, and nothing that the next run may change."""
        left_out = {"model", "bits_per_weight", "body_bits_per_weight", "size_bytes", "seconds"}
        return {name: _short(getattr(self, name)) for name in self.__slots__ if name not in left_out}


def figures_of(found: Measured, *, compared: bool) -> dict[str, Any]:
    """The statistics among `Quality`'s fields. Positions are in the order they were measured."""
    n = len(found)
    nll = float(found.nll.mean())
    ppl = _exp(nll)
    said: dict[str, Any] = {"tokens": n, "ppl": ppl, "ppl_se": ppl * _standard_error(found.nll)}
    names = ("ppl_reference", "ppl_ratio", "kld_mean", "kld_se", "kld_median", "kld_p90", "kld_p99", "kld_max")
    if not compared:
        return said | dict.fromkeys((*names, "top1_agreement", "top1_se"))
    before = float(found.nll_reference.mean())
    median, p90, p99, largest = (float(x) for x in np.quantile(found.kld, (0.5, 0.9, 0.99, 1.0)))
    same = float(found.same.mean())
    values = (
        _exp(before),
        _exp(nll - before),
        float(found.kld.mean()),
        _standard_error(found.kld),
        median,
        p90,
        p99,
        largest,
    )
    spread = math.sqrt(same * (1 - same) / (n - 1)) if n > 1 else 0.0
    return said | dict(zip(names, values, strict=True)) | {"top1_agreement": same, "top1_se": spread}


def _standard_error(values: Doubles) -> float:
    return float(values.std(ddof=1) / math.sqrt(len(values))) if len(values) > 1 else 0.0


def _exp(value: float) -> float:
    """A perplexity; infinite where a float ends."""
    return math.exp(value) if value < 700 else math.inf


def _short(value: Any) -> Any:
    return float(f"{value:.6g}") if isinstance(value, float) and math.isfinite(value) else value
