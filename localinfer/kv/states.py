"""Which snapshot holds the recurrent state after which block, so that a text can be taken up there. Integers only; the
numbers live in native code."""

from collections.abc import Sequence
from typing import Protocol

from localinfer.kv.blocks import BLOCK_TOKENS, BlockStore

EVERY = 2048
"""Tokens of a long text between two snapshots."""


class StateStore(Protocol):
    """What holds states: a slot for each running sequence, and locations for snapshots after them."""

    def advance_state(self, slot: int, rows: int) -> None:
        """So many of the rows that were drafted in `slot` are right: its state moves on by them."""
        ...

    def copy_state(self, from_: int, to: int, position: int = 0) -> None:
        """Copy a state; a slot then stands at `position`."""
        ...


class States:
    """States of `slots` running sequences, and up to `snapshots` more after full blocks, each under its block's link.

    The least recently used snapshot makes room for a new one. On `disk` a state has the name of the block before it.
    """

    def __init__(self, store: StateStore, slots: int, snapshots: int, disk: BlockStore | None = None) -> None:
        self.disk = disk
        self.count = snapshots
        self._store = store
        self._free = list(range(slots + snapshots - 1, slots - 1, -1))
        self._locations: dict[int, int] = {}  # link → location, the least recently used first

    @property
    def held(self) -> int:
        """How many snapshots there are."""
        return len(self._locations)

    def __contains__(self, link: int) -> bool:
        return link in self._locations

    def names(self, tokens: Sequence[int], count: int) -> Sequence[bytes]:
        """The names on disk of the states after the first `count` blocks; none without a disk."""
        return () if self.disk is None else self.disk.names(tokens, count)

    def has(self, link: int, name: bytes = b"") -> bool:
        """Is the state after the block of `link` here, or on disk under `name`?"""
        return link in self._locations or (self.disk is not None and name in self.disk and self.count > 0)

    def save(self, slot: int, link: int) -> None:
        """Keep the state in `slot` as that after the block of `link`."""
        self._store.copy_state(slot, self._take(link))

    def restore(self, link: int, slot: int, position: int, name: bytes = b"") -> bool:
        """Bring the state after the block of `link` into `slot`, from disk under `name` if need be; False if it is
        nowhere."""
        if link in self._locations:
            location = self._take(link)
        elif self.disk is not None and name in self.disk and self.count:
            location = self._take(link)
            if not self.disk.fetch(name, location):
                self.forget(link)
                return False
        else:
            return False
        self._store.copy_state(location, slot, position)
        return True

    def keep(self, link: int, name: bytes, at: int) -> None:
        """Keep the state of `link` on disk, too, as that after block `at` of its text."""
        if self.disk is not None and name:
            self.disk.keep(name, self._locations[link], at)

    def advance(self, slot: int, rows: int) -> None:
        """See `StateStore.advance_state`."""
        if rows:
            self._store.advance_state(slot, rows)

    def forget(self, link: int) -> None:
        """The block of `link` is gone, or its state is of no more use."""
        if link in self._locations:
            self._free.append(self._locations.pop(link))

    def _take(self, link: int) -> int:
        """The location of `link`, which is now the last one used."""
        if link in self._locations:
            location = self._locations.pop(link)
        elif self._free:
            location = self._free.pop()
        else:
            location = self._locations.pop(next(iter(self._locations)))
        self._locations[link] = location
        return location


def aligned(marks: Sequence[int]) -> tuple[int, ...]:
    """The ends of the last full blocks before `marks`, ascending: where states can be found again."""
    return tuple(sorted({mark // BLOCK_TOKENS * BLOCK_TOKENS for mark in marks} - {0}))
