"""Right answers as figures: shares with their intervals, and two models item by item."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from localinfer.tasks.run import Outcome, Taken

_Z = 1.959964
"""Standard deviations on each side of a 95 % interval."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskScore:
    """One model in one task. Intervals are of 95 %, and take items as independent."""

    right: int
    items: int
    low: float
    """Share of right answers: Wilson's interval."""
    high: float
    cut: int
    """Answers that were ended by their length."""
    reference_right: int | None
    lost: int | None
    """Items that only the reference had right."""
    won: int | None
    """Items that only this model had right."""
    difference: float | None
    """Share of right answers less that of the reference."""
    difference_low: float | None
    difference_high: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelScore:
    """One model in all tasks."""

    model: str
    reference: str | None
    kv_bits: int
    tasks: dict[str, TaskScore]
    tokens: int
    """That it wrote."""
    needle_tokens: int | None
    """That a text with needles fills; None where there was none."""
    seconds: float


def score(
    model: str, taken: Taken, kv_bits: int, reference: str | None = None, reference_taken: Taken | None = None
) -> ModelScore:
    """The figures of one model, beside those of `reference` if that took the same items."""
    before = reference_taken.outcomes if reference_taken is not None else {}
    return ModelScore(
        model=model,
        reference=reference,
        kv_bits=kv_bits,
        tasks={task: _of_task(found, before.get(task)) for task, found in taken.outcomes.items()},
        tokens=taken.tokens,
        needle_tokens=taken.needle_tokens if "needle" in taken.outcomes else None,
        seconds=taken.seconds,
    )


def _of_task(found: Sequence[Outcome], before: Sequence[Outcome] | None) -> TaskScore:
    right, count = sum(one.right for one in found), len(found)
    low, high = wilson(right, count)
    lost = won = None
    difference: tuple[float | None, float | None, float | None] = (None, None, None)
    if before is not None:
        pairs = list(zip(before, found, strict=True))
        assert all(one.name == other.name for one, other in pairs)
        lost = sum(one.right and not other.right for one, other in pairs)
        won = sum(other.right and not one.right for one, other in pairs)
        difference = ((won - lost) / count, *paired(lost, won, count))
    return TaskScore(
        right=right,
        items=count,
        low=low,
        high=high,
        cut=sum(one.cut for one in found),
        reference_right=None if before is None else sum(one.right for one in before),
        lost=lost,
        won=won,
        difference=difference[0],
        difference_low=difference[1],
        difference_high=difference[2],
    )


def wilson(right: int, count: int) -> tuple[float, float]:
    """Wilson's score interval for a share (Wilson 1927)."""
    share, z2 = right / count, _Z * _Z
    middle = (share + z2 / (2 * count)) / (1 + z2 / count)
    half = _Z * math.sqrt(share * (1 - share) / count + z2 / (4 * count * count)) / (1 + z2 / count)
    return max(0.0, middle - half), min(1.0, middle + half)


def paired(lost: int, won: int, count: int) -> tuple[float, float]:
    """The interval of a difference of shares over the same items: Wald's with half an item added to each of the four
    cells (Agresti and Min 2005)."""
    n, apart, differ = count + 2, won - lost, won + lost + 1
    middle, half = apart / n, _Z * math.sqrt(max(0.0, differ - apart * apart / n)) / n
    return max(-1.0, middle - half), min(1.0, middle + half)
