"""How often a drafter is right by its confidence: learned from what became of its guesses."""

import math
from dataclasses import dataclass, field

BINS = 8
"""Of the confidence that it named."""

PRIOR = 6.0
"""So many guesses its own word counts for, before others are counted."""

MEMORY = 160.0
"""So many guesses are remembered in each bin: what has been later counts more."""

SWAY, MOST_SWAY = 0.25, 2.5
"""How fast one text's own luck is learned, and how far it may go, in log odds."""

_FIRST = 1e-3


@dataclass(slots=True)
class _Bin:
    right: float = 0.0
    tried: float = 0.0


@dataclass(slots=True)
class Acceptance:
    """Of one drafter: the chance of a guess, given its confidence, how far ahead it looks, and whose text it is."""

    _bins: dict[tuple[int, int], _Bin] = field(default_factory=dict)
    _luck: dict[int, float] = field(default_factory=dict)
    _depths: list[_Bin] = field(default_factory=list)

    def chance(self, handle: int, confidence: float, depth: int) -> float:
        """Probability that a guess is right, those before it being right. `depth` is 0 for the first of a draft."""
        found = self._bins.get(_bin_of(confidence, depth), _Bin())
        mean = (found.right + PRIOR * confidence) / (found.tried + PRIOR)
        return _swayed(mean, self._luck.get(handle, 0.0))

    def expected(self, handle: int, depth: int) -> float:
        """The same when the drafter has not been asked yet."""
        if not self._depths:
            return 0.5
        found = self._depths[min(depth, len(self._depths) - 1)]
        return _swayed((found.right + 1) / (found.tried + 2), self._luck.get(handle, 0.0))

    @property
    def tried(self) -> float:
        """How many drafts have been tried, the last `MEMORY` or so counted."""
        return self._depths[0].tried if self._depths else 0.0

    def learn(self, handle: int, confidence: float, depth: int, right: bool) -> None:
        """A guess was reached, all before it being right, and was right or wrong."""
        missed = right - self.chance(handle, confidence, depth)
        luck = self._luck.get(handle, 0.0) + SWAY * missed
        self._luck[handle] = min(MOST_SWAY, max(-MOST_SWAY, luck))
        while len(self._depths) <= min(depth, 15):
            self._depths.append(_Bin())
        for found in (self._bins.setdefault(_bin_of(confidence, depth), _Bin()), self._depths[min(depth, 15)]):
            found.right += right
            found.tried += 1
            if found.tried > MEMORY:
                found.right /= 2
                found.tried /= 2

    def forget(self, handle: int) -> None:
        """The text is over."""
        self._luck.pop(handle, None)


def _bin_of(confidence: float, depth: int) -> tuple[int, int]:
    return min(BINS - 1, max(0, int(confidence * BINS))), min(depth, 7).bit_length()


def _swayed(chance: float, luck: float) -> float:
    chance = min(1 - _FIRST, max(_FIRST, chance))
    return 1 / (1 + math.exp(-(math.log(chance / (1 - chance)) + luck)))
