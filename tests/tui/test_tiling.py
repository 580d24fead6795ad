"""The tree of panes: whatever is done to it, panes fill the screen and none lies on another."""

import random

import pytest

from localinfer.tui.tiling import Box, Direction, Tiling

WIDTH, HEIGHT = 120, 40
WAYS: tuple[Direction, ...] = ("left", "right", "up", "down")


def covered(tiling: Tiling, width: int = WIDTH, height: int = HEIGHT) -> int:
    """Cells of all boxes, after a check that they lie apart and inside."""
    cells: set[tuple[int, int]] = set()
    count = 0
    for box in tiling.boxes(width, height).values():
        own = {(x, y) for x in range(box.x, box.x + box.width) for y in range(box.y, box.y + box.height)}
        assert all(0 <= x < width and 0 <= y < height for x, y in own)
        cells |= own
        count += len(own)
    assert len(cells) == count
    return count


def test_splits_share_the_room() -> None:
    tiling = Tiling(1)
    tiling.add(2, 1, across=True)
    tiling.add(3, 2, across=False)
    tiling.add(4, 1, across=True)
    assert tiling.boxes(122, 40) == {
        1: Box(0, 0, 40, 40),
        4: Box(41, 0, 40, 40),
        2: Box(82, 0, 40, 20),
        3: Box(82, 20, 40, 20),
    }
    assert tiling.panes == (1, 4, 2, 3)


def test_neighbours() -> None:
    tiling = Tiling(1)
    tiling.add(2, 1, across=True)
    tiling.add(3, 2, across=False)
    assert [tiling.neighbour(2, way, WIDTH, HEIGHT) for way in WAYS] == [1, None, None, 3]
    assert tiling.neighbour(1, "right", WIDTH, HEIGHT) in (2, 3)


def test_zoom_and_swap() -> None:
    tiling = Tiling(1)
    tiling.add(2, 1, across=False)
    before = tiling.boxes(WIDTH, HEIGHT)
    tiling.swap(1, 2)
    assert tiling.boxes(WIDTH, HEIGHT) == {1: before[2], 2: before[1]}
    tiling.zoomed = 2
    assert tiling.boxes(WIDTH, HEIGHT) == {2: Box(0, 0, WIDTH, HEIGHT)}
    tiling.remove(2)
    assert tiling.boxes(WIDTH, HEIGHT) == {1: Box(0, 0, WIDTH, HEIGHT)}


@pytest.mark.parametrize("seed", range(40))
def test_whatever_is_done(seed: int) -> None:
    rng = random.Random(seed)
    tiling, new = Tiling(1), 1
    for _ in range(60):
        panes = tiling.panes
        one = rng.choice(panes)
        match rng.choice(["add", "add", "remove", "swap", "zoom"]):
            case "add":
                across = rng.random() < 0.5
                if tiling.has_room(one, WIDTH, HEIGHT, across=across):
                    new += 1
                    tiling.add(new, one, across=across)
                    assert tiling.fits(WIDTH, HEIGHT)
            case "remove" if len(panes) > 1:
                tiling.remove(one)
            case "swap" if len(panes) > 1:
                tiling.swap(*rng.sample(panes, 2))
            case "zoom":
                tiling.zoomed = rng.choice([None, one])
        covered(tiling)
        covered(tiling, rng.randint(1, 60), rng.randint(1, 20))
        assert len(set(tiling.panes)) == len(tiling.panes)
        for pane in tiling.panes:
            assert tiling.neighbour(pane, "left", WIDTH, HEIGHT) != pane
    for pane in tiling.panes[1:]:
        tiling.remove(pane)
    tiling.zoomed = None
    assert covered(tiling) == WIDTH * HEIGHT
