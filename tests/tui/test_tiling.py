"""The tree of panes: whatever is done to it, panes fill the screen and none lies on another."""

import json
import random

import pytest

from localinfer.tui.tiling import MIN_HEIGHT, MIN_WIDTH, Box, Direction, Tiling, from_plain, to_plain

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
        match rng.choice(["add", "add", "remove", "swap", "zoom", "drag", "resize", "balance"]):
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
            case "drag":
                at = rng.randrange(WIDTH), rng.randrange(HEIGHT)
                if (divider := tiling.divider_at(*at, WIDTH, HEIGHT)) is not None:
                    tiling.drag(divider, rng.randint(-9, WIDTH + 9), rng.randint(-9, HEIGHT + 9), WIDTH, HEIGHT)
            case "resize":
                tiling.resize(one, rng.choice(WAYS), rng.randint(1, 9), WIDTH, HEIGHT)
            case "balance":
                tiling.balance()
        assert tiling.fits(WIDTH, HEIGHT)
        assert all(box.width >= MIN_WIDTH and box.height >= MIN_HEIGHT for box in tiling.boxes(WIDTH, HEIGHT).values())
        places = {pane: place for place, pane in enumerate(tiling.panes)}
        again = Tiling(from_plain(json.loads(json.dumps(to_plain(tiling.root, places))), tiling.panes))
        again.zoomed = tiling.zoomed
        assert again.boxes(WIDTH, HEIGHT) == tiling.boxes(WIDTH, HEIGHT)
        covered(tiling)
        covered(tiling, rng.randint(1, 60), rng.randint(1, 20))
        assert len(set(tiling.panes)) == len(tiling.panes)
        for pane in tiling.panes:
            assert tiling.neighbour(pane, "left", WIDTH, HEIGHT) != pane
    for pane in tiling.panes[1:]:
        tiling.remove(pane)
    tiling.zoomed = None
    assert covered(tiling) == WIDTH * HEIGHT


def test_a_border_moves_by_keys() -> None:
    tiling = Tiling(1)
    tiling.add(2, 1, across=True)
    tiling.add(3, 2, across=False)
    assert tiling.resize(1, "right", 4, 121, 40)
    assert tiling.boxes(121, 40)[1].width == 64
    assert tiling.resize(3, "right", 4, 121, 40)  # the last one: its border is before it
    assert tiling.boxes(121, 40)[1].width == 68
    assert tiling.resize(3, "up", 2, 121, 40)
    assert tiling.boxes(121, 40)[3] == Box(69, 18, 52, 22)
    assert not tiling.resize(1, "up", 2, 121, 40)
    assert tiling.resize(1, "right", 1000, 121, 40)
    assert not tiling.resize(1, "right", 1, 121, 40)
    assert tiling.boxes(121, 40)[2].width == MIN_WIDTH
    tiling.balance()
    assert [box.width for box in tiling.boxes(121, 40).values()] == [60, 60, 60]


def test_where_borders_are() -> None:
    tiling = Tiling(1)
    tiling.add(2, 1, across=True)
    tiling.add(3, 2, across=False)
    found = {(x, y) for x in range(121) for y in range(40) if tiling.divider_at(x, y, 121, 40)}
    assert found == {(60, y) for y in range(40)} | {(x, 19) for x in range(61, 121)}
    tiling.zoomed = 1
    assert tiling.divider_at(60, 5, 121, 40) is None


def test_shares_grow_with_the_screen_and_a_split_halves_its_own() -> None:
    tiling = Tiling(1)
    tiling.add(2, 1, across=True)
    tiling.resize(1, "right", 20, 121, 40)
    assert [box.width for box in tiling.boxes(241, 40).values()] == [160, 80]
    tiling.add(3, 1, across=True)
    assert [box.width for box in tiling.boxes(242, 40).values()] == [80, 80, 80]


@pytest.mark.parametrize(
    "plain",
    [
        None,
        5,
        -1,
        True,
        "0",
        {"across": True, "parts": [0, 1], "shares": [1, 1]},
        {"across": True, "parts": [0, 1, 2], "shares": [1, 1]},
        {"across": True, "parts": [0, 1, 2, 2], "shares": [1, 1, 1, 1]},
        {"across": 1, "parts": [0, 1, 2], "shares": [1, 1, 1]},
        {"across": True, "parts": [0, 1, 2], "shares": [1, 1, float("nan")]},
        {"across": True, "parts": [0, 1, 2], "shares": [1, 1, 1e300]},
        {"across": True, "parts": [0, 1, 2], "shares": [1, 0, 1]},
        {"across": True, "parts": [], "shares": []},
        {"across": True, "parts": [{"across": True}], "shares": [1]},
    ],
)
def test_a_tree_that_is_none_is_refused(plain: object) -> None:
    with pytest.raises(ValueError, match=r"."):
        from_plain(plain, [1, 2, 3])


def test_a_deep_tree_is_refused() -> None:
    plain: object = 0
    for _ in range(1000):
        plain = {"across": True, "parts": [plain], "shares": [1]}
    with pytest.raises(ValueError, match="neither"):
        from_plain(plain, [1])
