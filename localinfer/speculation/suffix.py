"""Guess what followed before: wherever the end of the text was seen earlier, in it or in another, these places vote.

After SuffixDecoding (Oliaro et al., 2024): a longer match is believed more than a shorter one, and a guess that all
places agree on more than one they quarrel about. Places are found by the last few tokens, not by a tree: the places of
a long match are among those of a short one, and all that is asked of them is what comes next.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from localinfer.speculation.drafter import Ask, Draft

ORDERS = (12, 6, 3)
"""Lengths of matches that are looked for, the longest first."""

BELIEF = {12: 0.93, 6: 0.8, 3: 0.6}
"""How much a match of that length is believed when all its places agree."""

MOST_LOCATIONS = 32
"""The latest so many places vote."""

FLOOR = 0.15
"""Guessing ends where all guesses so far are less likely than this to be right."""

Location = tuple[Sequence[int], int]
"""A text, and where in it what follows a match begins."""


class Earlier(Protocol):
    """Texts from before that may be looked up."""

    def locations(self, gram: Sequence[int], most: int) -> list[Location]:
        """Where these tokens, one of `ORDERS` long, were followed by something; the latest ones."""
        ...


@dataclass(slots=True)
class _Text:
    seen: int = 0
    locations: dict[int, dict[tuple[int, ...], list[int]]] = field(
        default_factory=lambda: {order: {} for order in ORDERS}
    )


class SuffixDrafter:
    """Looks at each text so far, and at `earlier` ones where it finds nothing there."""

    name = "suffix"
    free = True

    def __init__(self, earlier: Earlier | None = None) -> None:
        self._texts: dict[int, _Text] = {}
        self._earlier = earlier

    def propose(self, asks: Sequence[Ask]) -> list[Draft]:
        return [self._guess(ask) for ask in asks]

    def _guess(self, ask: Ask) -> Draft:
        text, tokens = self._texts.setdefault(ask.handle, _Text()), ask.tokens
        _learn(text, tokens)
        for order in ORDERS:
            if len(tokens) < order:
                continue
            gram = tuple(tokens[-order:])
            # The end of the text itself is the last place; nothing follows it yet.
            seen = text.locations[order].get(gram, ())[-MOST_LOCATIONS - 1 : -1]
            locations: list[Location] = [(tokens, at) for at in seen]
            if self._earlier is not None and len(locations) < MOST_LOCATIONS:
                locations = self._earlier.locations(gram, MOST_LOCATIONS - len(locations)) + locations
            if locations:
                return _vote(locations, BELIEF[order], ask.most)
        return Draft()

    def observe(self, handle: int, guessed: int, accepted: int) -> None:
        """Whoever asks keeps the record."""

    def forget(self, handle: int) -> None:
        self._texts.pop(handle, None)

    def close(self) -> None:
        self._texts.clear()


def _learn(text: _Text, tokens: Sequence[int]) -> None:
    """Note the places of all that is new."""
    for end in range(text.seen + 1, len(tokens) + 1):
        for order in ORDERS:
            if end >= order:
                text.locations[order].setdefault(tuple(tokens[end - order : end]), []).append(end)
    text.seen = len(tokens)


def _vote(locations: list[Location], belief: float, most: int) -> Draft:
    """Token by token what most places have next, of equals the latest; those that have something else drop out."""
    draft, alive = Draft(), 1.0
    while len(draft.tokens) < most:
        depth = len(draft.tokens)
        # A negative number ends an earlier text.
        going = [(text, at) for text, at in locations if at + depth < len(text) and text[at + depth] >= 0]
        if not going:
            break
        nexts = [text[at + depth] for text, at in reversed(going)]
        token, count = Counter(nexts).most_common(1)[0] if len(nexts) > 1 else (nexts[0], 1)
        confidence = belief * count / len(going)
        alive *= confidence
        if alive < FLOOR:
            break
        draft.tokens.append(int(token))
        draft.confidence.append(confidence)
        locations = going if count == len(going) else [(text, at) for text, at in going if text[at + depth] == token]
        belief = min(0.97, belief + 0.02)  # a match that goes on being right is a longer match
    return draft
