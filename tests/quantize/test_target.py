"""The search for the smallest size that keeps a divergence: in few rounds, and near to the best there is."""

import random

import pytest

from localinfer.quantize.budget import Deal
from localinfer.quantize.mixed import Option
from localinfer.quantize.target import MOST_ROUNDS, NEAR, Search


def deal(seed: int = 0) -> Deal:
    rng = random.Random(seed)
    sizes = [rng.choice((1000, 2000, 6000)) for _ in range(30)]
    options = [
        tuple(Option((bits, 32), bits * size, rng.uniform(0.5, 2) * size / 4**bits) for bits in (3, 4, 8))
        for size in sizes
    ]
    return Deal(tuple((f"m{at}",) for at in range(30)), tuple(options))


def searched(target: float, scale: float, bend: float, seed: int) -> tuple[Search, list[tuple[int, float]]]:
    """A search where what is measured is `scale` times the expected to the power of `bend`."""
    search, seen = Search(deal(seed), target), list[tuple[int, float]]()
    while (found := search.next()) is not None:
        assert len(seen) < MOST_ROUNDS
        measured = scale * found.nats**bend
        seen.append((found.nbytes, measured))
        search.learn(found, measured)
    return search, seen


@pytest.mark.parametrize("seed", range(1, 3))
@pytest.mark.parametrize(("scale", "bend"), [(0.4, 1.0), (2.5, 1.0), (0.7, 0.8)])
def test_the_smallest_is_found(scale: float, bend: float, seed: int) -> None:
    whole = deal(seed)
    lost = [scale * whole.within(budget).nats ** bend for budget in (whole.least, whole.most)]
    target = (lost[0] * lost[1]) ** 0.5
    search, seen = searched(target, scale, bend, seed)
    assert search.kept is not None
    measured = dict(seen)
    assert measured[search.kept.nbytes] <= target
    assert search.kept.nbytes == min(nbytes for nbytes, found in seen if found <= target)
    smaller = whole.within(int(search.kept.nbytes * (1 - 3 * NEAR)))
    assert scale * smaller.nats**bend > target


def test_ends_of_the_range() -> None:
    whole = deal()
    search, seen = searched(1e9, 1.0, 1.0, 0)
    assert search.kept is not None
    assert search.kept.nbytes == whole.least
    assert len(seen) == 1
    search, seen = searched(1e-9, 1.0, 1.0, 0)
    assert search.kept is None
    assert seen[-1][0] == whole.most
