"""Who guesses the next tokens. A guess costs little, and only speed depends on it: the text is the same with any."""

from collections.abc import Sequence
from typing import Protocol


class Drafter(Protocol):
    """Guesses for many texts at once, each known by its handle."""

    name: str

    def propose(self, handle: int, tokens: Sequence[int], most: int) -> list[int]:
        """At most `most` tokens that may follow `tokens`, or none. The text has only grown since it was last seen."""
        ...

    def observe(self, handle: int, drafted: int, accepted: int) -> None:
        """The first `accepted` of the `drafted` tokens were right."""
        ...

    def forget(self, handle: int) -> None:
        """The text is over, or its beginning has changed."""
        ...
