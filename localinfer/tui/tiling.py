"""Where panes stand: a tree of splits, and what can be done to it. Numbers and cells only, no widgets."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

Direction = Literal["left", "right", "up", "down"]

MOST_PANES = 16
"""Panes at once; each is a sequence that the engine keeps room for."""

MIN_WIDTH, MIN_HEIGHT = 24, 6
"""Smaller than this, nobody could read or write in a pane."""

GAP = 1
"""Columns between panes that stand side by side; those above each other are told apart by their title lines."""


class Box(NamedTuple):
    """Cells of the screen."""

    x: int
    y: int
    width: int
    height: int


@dataclass(slots=True)
class Split:
    """Parts of equal size: side by side (`across`), or one above the other."""

    across: bool
    parts: "list[int | Split]" = field(default_factory=list)


class Tiling:
    """Which pane stands where. Panes are numbers; a `zoomed` one has all the room."""

    def __init__(self, first: int) -> None:
        self._root: Split = Split(True, [first])
        self.zoomed: int | None = None

    @property
    def panes(self) -> tuple[int, ...]:
        """All panes, in reading order."""
        return tuple(_leaves(self._root))

    def add(self, pane: int, beside: int, *, across: bool) -> None:
        """Put `pane` to the right of `beside`, or below it."""
        parent, place = self._find(beside)
        if len(parent.parts) == 1:
            parent.across = across
        if parent.across == across:
            parent.parts.insert(place + 1, pane)
        else:
            parent.parts[place] = Split(across, [beside, pane])
        self.zoomed = None

    def remove(self, pane: int) -> None:
        """Take `pane` away; its neighbours get its room."""
        parent, place = self._find(pane)
        del parent.parts[place]
        _tidy(self._root)
        if self.zoomed == pane:
            self.zoomed = None

    def swap(self, one: int, other: int) -> None:
        """The two change places."""
        (first, i), (second, j) = self._find(one), self._find(other)
        first.parts[i], second.parts[j] = other, one

    def boxes(self, width: int, height: int) -> dict[int, Box]:
        """The place of each pane that is shown on `width` x `height` cells."""
        if self.zoomed is not None:
            return {self.zoomed: Box(0, 0, width, height)}
        return dict(_placed(self._root, Box(0, 0, width, height)))

    def fits(self, width: int, height: int) -> bool:
        """Can all panes be read on so many cells?"""
        boxes = _placed(self._root, Box(0, 0, width, height))
        return all(box.width >= MIN_WIDTH and box.height >= MIN_HEIGHT for _, box in boxes)

    def has_room(self, beside: int, width: int, height: int, *, across: bool) -> bool:
        """Would one more pane there leave all of them readable?"""
        before = self.zoomed
        new = max(self.panes) + 1
        self.add(new, beside, across=across)
        fits = self.fits(width, height)
        self.remove(new)
        self.zoomed = before
        return fits

    def neighbour(self, pane: int, direction: Direction, width: int, height: int) -> int | None:
        """The pane that one meets first when going from the middle of `pane` in this direction."""
        boxes = dict(_placed(self._root, Box(0, 0, width, height)))
        here = boxes[pane]
        best: tuple[int, int] | None = None
        for other, box in boxes.items():
            away, aside = _distance(here, box, direction)
            if other != pane and away >= 0 and aside == 0 and (best is None or away < best[0]):
                best = away, other
        return best[1] if best else None

    def _find(self, pane: int) -> tuple[Split, int]:
        for split in _splits(self._root):
            if pane in split.parts:
                return split, split.parts.index(pane)
        raise KeyError(pane)


def _distance(here: Box, there: Box, direction: Direction) -> tuple[int, int]:
    """Cells from one edge to the other in this direction (negative: not that way), and how far the middle misses."""
    if direction in ("left", "right"):
        middle, low, high = here.y + here.height // 2, there.y, there.y + there.height
        away = here.x - there.x - there.width if direction == "left" else there.x - here.x - here.width
    else:
        middle, low, high = here.x + here.width // 2, there.x, there.x + there.width + GAP
        away = here.y - there.y - there.height if direction == "up" else there.y - here.y - here.height
    return away, 0 if low <= middle < high else 1


def _leaves(split: Split) -> Iterator[int]:
    for part in split.parts:
        if isinstance(part, Split):
            yield from _leaves(part)
        else:
            yield part


def _splits(split: Split) -> Iterator[Split]:
    yield split
    for part in split.parts:
        if isinstance(part, Split):
            yield from _splits(part)


def _tidy(split: Split) -> None:
    """No split of nobody, none of one but the root, and none that goes the way of its parent."""
    parts: list[int | Split] = []
    for part in split.parts:
        if isinstance(part, Split):
            _tidy(part)
            same = part.across == split.across or len(part.parts) < 2
            parts += part.parts if same else [part]
        else:
            parts.append(part)
    if len(parts) == 1 and isinstance(parts[0], Split):
        split.across, parts = parts[0].across, parts[0].parts
    split.parts = parts


def _placed(split: Split, box: Box) -> Iterator[tuple[int, Box]]:
    """Equal shares; what does not divide goes to the first ones, a cell each."""
    count, gap = len(split.parts), GAP if split.across else 0
    room = max(0, (box.width if split.across else box.height) - gap * (count - 1))
    at = box.x if split.across else box.y
    for i, part in enumerate(split.parts):
        long = room // count + (i < room % count)
        own = box._replace(x=at, width=long) if split.across else box._replace(y=at, height=long)
        at += long + gap
        if isinstance(part, Split):
            yield from _placed(part, own)
        else:
            yield part, own
