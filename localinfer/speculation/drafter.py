"""Who guesses the next tokens. A guess costs little, and only speed depends on it: the text is the same with any."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

Choose = Callable[[Any, list[int]], int | None]
"""`choose(logits, taken)`: the token that the text's own sampler takes from a row of logits [vocab] (used up by it)
after its known tokens and `taken`. The draw is keyed by seed and position, so a model that agrees with the one that
checks also guesses what that one draws at random. None where there is nothing to choose from, such as NaN."""


@dataclass(frozen=True, slots=True)
class Ask:
    """One text that may be guessed for."""

    handle: int
    tokens: Sequence[int]
    """All known tokens. They have only grown since a drafter last saw them."""
    most: int
    """Guesses at most, 1 or more."""
    choose: Choose
    """Not to be kept: it holds for this step only."""


@dataclass(slots=True)
class Draft:
    """Tokens that may follow a text, in a row, and the confidence in each."""

    tokens: list[int] = field(default_factory=list)
    confidence: list[float] = field(default_factory=list)
    """Of each token, from 0 to 1: how likely it is right, those before it being right. Need not be calibrated."""


class Drafter(Protocol):
    """Guesses for many texts at once, each known by its handle."""

    name: str
    free: bool
    """Guessing takes microseconds; others run a model and are asked only where that is likely to pay."""

    def propose(self, asks: Sequence[Ask]) -> list[Draft]:
        """For each text at most `most` tokens, or none. Nothing is promised of them, not even that they exist."""
        ...

    def observe(self, handle: int, guessed: int, accepted: int) -> None:
        """Of the last proposal for this text `guessed` tokens were tried, and the first `accepted` were right."""
        ...

    def forget(self, handle: int) -> None:
        """The text is over, or its beginning has changed."""
        ...

    def close(self) -> None:
        """Give back what it holds."""
        ...


@runtime_checkable
class Reads(Protocol):
    """A drafter that follows each text as the target reads it."""

    def read(self, handle: int, tokens: Sequence[int], start: int, end: int, hidden: Any) -> None:
        """The target has computed positions `start` to `end` - 1 of `tokens` for good; those found in the cache never
        come. `hidden` float32 [end - start, hidden size] is the residual stream there after the last layer, before the
        final norm; it holds until the next step only. None where nobody asked for it."""
        ...
