"""Choices that are the same on every machine and in every version of Python."""

import hashlib
from collections.abc import Sequence
from typing import TypeVar

SEED = 1
"""Of all items that are made here. With another number they are other items, and figures cannot be compared."""

One = TypeVar("One")


class Draw:
    """A stream of numbers: sha256 of the seed, a name, and a count."""

    def __init__(self, name: str) -> None:
        self._name, self._count = f"{SEED} {name}", 0

    def between(self, low: int, high: int) -> int:
        """A whole number from `low` to `high`, both included."""
        self._count += 1
        digest = hashlib.sha256(f"{self._name} {self._count}".encode()).digest()
        return low + int.from_bytes(digest[:8], "big") % (high - low + 1)

    def one(self, choices: Sequence[One]) -> One:
        return choices[self.between(0, len(choices) - 1)]

    def some(self, choices: Sequence[One], count: int) -> list[One]:
        """`count` different ones, in a drawn order."""
        left = list(choices)
        return [left.pop(self.between(0, len(left) - 1)) for _ in range(count)]
