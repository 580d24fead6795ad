"""Where panes stand: a tree of splits, and what can be done to it. Numbers and cells only, no widgets."""

from collections.abc import Iterator, Mapping, Sequence
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
    """Parts side by side (`across`), or one above the other; each gets its share of the room."""

    across: bool
    parts: "list[int | Split]" = field(default_factory=list)
    shares: list[float] = field(default_factory=list)
    """Of each part, relative to the others."""


class Divider(NamedTuple):
    """The border after one part of a split."""

    split: Split
    after: int


class Tiling:
    """Which pane stands where. Panes are numbers; a `zoomed` one has all the room."""

    def __init__(self, root: int | Split) -> None:
        """`root` is the first pane, or a whole tree."""
        self._root = root if isinstance(root, Split) else Split(True, [root], [1.0])
        self.zoomed: int | None = None

    @property
    def root(self) -> Split:
        """The tree, to be read."""
        return self._root

    @property
    def panes(self) -> tuple[int, ...]:
        """All panes, in reading order."""
        return tuple(_leaves(self._root))

    def add(self, pane: int, beside: int, *, across: bool) -> None:
        """Put `pane` to the right of `beside`, or below it. Equal shares stay equal, else the two share one."""
        parent, place = self._find(beside)
        if len(parent.parts) == 1:
            parent.across = across
        if parent.across == across:
            if max(parent.shares) > min(parent.shares):
                parent.shares[place] /= 2
            parent.parts.insert(place + 1, pane)
            parent.shares.insert(place + 1, parent.shares[place])
        else:
            parent.parts[place] = Split(across, [beside, pane], [1.0, 1.0])
        self.zoomed = None

    def remove(self, pane: int) -> None:
        """Take `pane` away; its neighbours get its room."""
        parent, place = self._find(pane)
        del parent.parts[place], parent.shares[place]
        _tidy(self._root)
        if self.zoomed == pane:
            self.zoomed = None

    def swap(self, one: int, other: int) -> None:
        """The two change places."""
        (first, i), (second, j) = self._find(one), self._find(other)
        first.parts[i], second.parts[j] = other, one

    def balance(self) -> None:
        """All panes side by side become equally wide, all above each other equally high."""
        for split in _splits(self._root):
            split.shares = [float(_abreast(part, split.across)) for part in split.parts]

    def boxes(self, width: int, height: int) -> dict[int, Box]:
        """The place of each pane that is shown on `width` x `height` cells."""
        if self.zoomed is not None:
            return {self.zoomed: Box(0, 0, width, height)}
        return self._boxes(width, height)

    def fits(self, width: int, height: int) -> bool:
        """Can all panes be read on so many cells?"""
        return _least(self._root, True) <= width and _least(self._root, False) <= height

    def has_room(self, beside: int, width: int, height: int, *, across: bool) -> bool:
        """Would one more pane there leave all of them readable?"""
        tried = Tiling(_copy(self._root))
        tried.add(max(self.panes) + 1, beside, across=across)
        return tried.fits(width, height)

    def neighbour(self, pane: int, direction: Direction, width: int, height: int) -> int | None:
        """The pane that one meets first when going from the middle of `pane` in this direction."""
        boxes = self._boxes(width, height)
        here = boxes[pane]
        best: tuple[int, int] | None = None
        for other, box in boxes.items():
            away, aside = _distance(here, box, direction)
            if other != pane and away >= 0 and aside == 0 and (best is None or away < best[0]):
                best = away, other
        return best[1] if best else None

    def resize(self, pane: int, direction: Direction, cells: int, width: int, height: int) -> bool:
        """Move the border of `pane` by so many cells: the one after it, or before it where it is the last one. False
        if there is none that way, or it cannot move."""
        across = direction in ("left", "right")
        for split in reversed(self._above(pane)):
            if split.across == across and len(split.parts) > 1:
                place = next(i for i, part in enumerate(split.parts) if pane in _leaves_of(part))
                divider = Divider(split, min(place, len(split.parts) - 2))
                return self._move(divider, cells if direction in ("right", "down") else -cells, width, height)
        return False

    def divider_at(self, x: int, y: int, width: int, height: int) -> Divider | None:
        """The border on this cell: the column between two panes, or the last line of one that has another below."""
        if self.zoomed is not None:
            return None
        for split, _, placed in _walk(self._root, Box(0, 0, width, height)):
            for i, (_, box) in enumerate(placed[:-1]):
                beside = split.across and x == box.x + box.width and box.y <= y < box.y + box.height
                below = not split.across and y == box.y + box.height - 1 and box.x <= x < box.x + box.width
                if beside or below:
                    return Divider(split, i)
        return None

    def drag(self, divider: Divider, x: int, y: int, width: int, height: int) -> bool:
        """Bring a border to this cell, or as near as both sides stay readable. False if it did not move."""
        for split, _, placed in _walk(self._root, Box(0, 0, width, height)):
            if split is divider.split and divider.after < len(placed) - 1:
                box = placed[divider.after][1]
                by = x - box.x - box.width if split.across else y - box.y - box.height + 1
                return self._move(divider, by, width, height)
        return False

    def _move(self, divider: Divider, by: int, width: int, height: int) -> bool:
        split, after = divider
        placed = next(found for one, _, found in _walk(self._root, Box(0, 0, width, height)) if one is split)
        sizes = [box.width if split.across else box.height for _, box in placed]
        least = [_least(part, split.across) for part in split.parts]
        by = max(min(by, sizes[after + 1] - least[after + 1]), least[after] - sizes[after])
        if by == 0 or sizes[after] + by < least[after] or sizes[after + 1] - by < least[after + 1]:
            return False
        sizes[after] += by
        sizes[after + 1] -= by
        split.shares = [float(size) for size in sizes]
        return True

    def _boxes(self, width: int, height: int) -> dict[int, Box]:
        placed = (pair for _, _, pairs in _walk(self._root, Box(0, 0, width, height)) for pair in pairs)
        found = {part: box for part, box in placed if not isinstance(part, Split)}
        return {pane: found[pane] for pane in self.panes}

    def _find(self, pane: int) -> tuple[Split, int]:
        parent = self._above(pane)[-1]
        return parent, parent.parts.index(pane)

    def _above(self, pane: int) -> list[Split]:
        """The splits that hold `pane`, from the root down."""
        above = [split for split in _splits(self._root) if pane in _leaves(split)]
        if not above:
            raise KeyError(pane)
        return above


def to_plain(part: int | Split, places: Mapping[int, int]) -> object:
    """A tree as plain lists and numbers; each pane as its place."""
    if not isinstance(part, Split):
        return places[part]
    parts = [to_plain(one, places) for one in part.parts]
    return {"across": part.across, "parts": parts, "shares": list(part.shares)}


def from_plain(value: object, panes: Sequence[int]) -> Split:
    """The tree that `to_plain` gave, of these panes. Raises `ValueError` unless each stands in it once."""
    found = _read(value, panes, 0)
    root = found if isinstance(found, Split) else Split(True, [found], [1.0])
    if sorted(_leaves(root)) != sorted(panes):
        raise ValueError("panes are missing, or stand there twice")
    _tidy(root)
    return root


def _read(value: object, panes: Sequence[int], depth: int) -> int | Split:
    if type(value) is int and 0 <= value < len(panes):
        return panes[value]
    if not isinstance(value, dict) or depth > MOST_PANES:
        raise ValueError("this is neither a pane nor a split")
    across, parts, shares = value.get("across"), value.get("parts"), value.get("shares")
    if not isinstance(across, bool) or not isinstance(parts, list) or not isinstance(shares, list):
        raise ValueError("a split needs a direction, parts and their shares")
    if not 0 < len(parts) == len(shares) <= MOST_PANES:
        raise ValueError("each part needs its share")
    if not all(type(one) in (int, float) and 1e-3 < one < 1e6 for one in shares):
        raise ValueError("a share is a number above 0")
    return Split(across, [_read(one, panes, depth + 1) for one in parts], [float(one) for one in shares])


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


def _leaves_of(part: int | Split) -> tuple[int, ...]:
    return tuple(_leaves(part)) if isinstance(part, Split) else (part,)


def _copy(split: Split) -> Split:
    parts = [_copy(part) if isinstance(part, Split) else part for part in split.parts]
    return Split(split.across, parts, list(split.shares))


def _tidy(split: Split) -> None:
    """No split of nobody, none of one but the root, and none that goes the way of its parent."""
    parts: list[int | Split] = []
    shares: list[float] = []
    for part, share in zip(split.parts, split.shares, strict=True):
        if isinstance(part, Split):
            _tidy(part)
            same = part.across == split.across or len(part.parts) < 2
            parts += part.parts if same else [part]
            shares += [share * own / sum(part.shares) for own in part.shares] if same else [share]
        else:
            parts.append(part)
            shares.append(share)
    if len(parts) == 1 and isinstance(parts[0], Split):
        only = parts[0]
        split.across, parts, shares = only.across, only.parts, only.shares
    split.parts, split.shares = parts, shares


def _abreast(part: int | Split, across: bool) -> int:
    """Panes that stand in a row this way."""
    if not isinstance(part, Split):
        return 1
    counts = [_abreast(one, across) for one in part.parts]
    return sum(counts) if part.across == across else max(counts)


def _least(part: int | Split, across: bool) -> int:
    """Cells that `part` needs this way, for all its panes to be readable."""
    if not isinstance(part, Split):
        return MIN_WIDTH if across else MIN_HEIGHT
    needs = [_least(one, across) for one in part.parts]
    gaps = GAP * (len(needs) - 1) if across else 0
    return sum(needs) + gaps if part.across == across else max(needs)


def _walk(split: Split, box: Box) -> "Iterator[tuple[Split, Box, list[tuple[int | Split, Box]]]]":
    """Each split with its box and those of its parts."""
    gap = GAP if split.across else 0
    room = max(0, (box.width if split.across else box.height) - gap * (len(split.parts) - 1))
    at = box.x if split.across else box.y
    placed: list[tuple[int | Split, Box]] = []
    least = [_least(part, split.across) for part in split.parts]
    for part, long in zip(split.parts, _lengths(room, split.shares, least), strict=True):
        own = box._replace(x=at, width=long) if split.across else box._replace(y=at, height=long)
        at += long + gap
        placed.append((part, own))
    yield split, box, placed
    for part, own in placed:
        if isinstance(part, Split):
            yield from _walk(part, own)


def _lengths(room: int, shares: Sequence[float], least: Sequence[int]) -> list[int]:
    """`room` cells by these shares, no part below its least where there is room for all."""
    if room < sum(least):
        return _rounded(room, least)
    fixed: set[int] = set()
    while True:
        free = room - sum(least[i] for i in fixed)
        open_ = [i for i in range(len(shares)) if i not in fixed]
        whole = sum(shares[i] for i in open_)
        small = {i for i in open_ if free * shares[i] / whole < least[i]}
        if not small:
            sizes = iter(_rounded(free, [shares[i] for i in open_]))
            return [least[i] if i in fixed else next(sizes) for i in range(len(shares))]
        fixed |= small


def _rounded(room: int, shares: Sequence[float]) -> list[int]:
    """Whole cells by these shares; those left over go where most was cut off, to the first ones among equals."""
    exact = [room * share / sum(shares) for share in shares]
    sizes = [int(one) for one in exact]
    order = sorted(range(len(sizes)), key=lambda i: (sizes[i] - exact[i], i))
    for i in order[: room - sum(sizes)]:
        sizes[i] += 1
    return sizes
