"""Which bits each fused group gets for a given size: the least total cost, by a Lagrangian. Numbers in, choices out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

Form = tuple[int, int]
"""(bits, group)."""


@dataclass(frozen=True, slots=True)
class Option:
    """One form of a group: its size in bytes and what it costs."""

    form: Form
    nbytes: int
    cost: float


def choose(groups: Sequence[Sequence[Option]], budget: int) -> list[Option]:
    """One option of each group, of at most `budget` bytes together (or the smallest there is), at nearly least cost.

    At a price for each byte, every group takes its own best; the lowest price that fits is found by halving. What is
    then left of the budget goes where it helps most for its bytes.
    """
    low, high = 0.0, 1.0
    while _size(_at(groups, high)) > budget and high < 1e30:
        high *= 4
    for _ in range(100):
        price = (low + high) / 2
        low, high = (low, price) if _size(_at(groups, price)) <= budget else (price, high)
    chosen = _at(groups, high)
    while (found := _best_step(groups, chosen, budget - _size(chosen))) is not None:
        chosen[found[0]] = found[1]
    return chosen


def forms(columns: Mapping[str, int], least: int, sizes: Sequence[int] = (32, 64, 128)) -> list[Form]:
    """The forms that every matrix can take, from `least` bits on, of 5 only where that is `least`; of 8 bits only the
    usual groups."""
    fits = [group for group in sizes if all(count % group == 0 for count in columns.values())]
    widths = [bits for bits in (3, 4, 5, 8) if bits >= least and (bits != 5 or least == 5)]
    return [(bits, group) for bits in widths for group in (fits if bits < 8 else fits[:1])]


def _at(groups: Sequence[Sequence[Option]], price: float) -> list[Option]:
    return [min(options, key=lambda o: (o.cost + price * o.nbytes, o.nbytes)) for options in groups]


def _size(chosen: Sequence[Option]) -> int:
    return sum(option.nbytes for option in chosen)


def _best_step(groups: Sequence[Sequence[Option]], chosen: Sequence[Option], room: int) -> tuple[int, Option] | None:
    """The exchange in one group that fits into `room` more bytes and gains most a byte."""
    steps = [
        ((now.cost - option.cost) / max(option.nbytes - now.nbytes, 1), number, option)
        for number, (options, now) in enumerate(zip(groups, chosen, strict=True))
        for option in options
        if option.cost < now.cost and option.nbytes - now.nbytes <= room
    ]
    best = max(steps, key=lambda step: (step[0], -step[1]), default=None)
    return None if best is None else (best[1], best[2])
