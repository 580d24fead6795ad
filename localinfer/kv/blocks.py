"""Which KV blocks are in use, by how many, and which comes next. Integers only; the bytes live in native code."""

from collections.abc import Callable, Sequence
from typing import Protocol

from localinfer.config import BLOCK_TOKENS
from localinfer.errors import DoesNotFit

__all__ = ["BLOCK_TOKENS", "NONE", "BlockAllocator", "BlockStore", "Group", "blocks_for"]

NONE = -1
"""In place of a block: there is none."""


def blocks_for(tokens: int) -> int:
    """How many blocks hold `tokens` tokens."""
    return -(-tokens // BLOCK_TOKENS)


class BlockAllocator:
    """`count` blocks with reference counts.

    A block is *free* (nobody, nothing worth keeping), *used* (by one or more sequences) or *idle* (nobody, but its
    content was remembered and may be shared again). Idle blocks are reused last, first those that were released as
    least worth keeping, then the longest idle one; `on_evict` is told that what was remembered of that block is gone.
    """

    def __init__(self, count: int, on_evict: Callable[[int], None] | None = None) -> None:
        self.count = count
        self._users = [0] * count
        self._remembered = bytearray(count)
        self._free = list(range(count - 1, -1, -1))
        self._idle: dict[int, None] = {}  # a dict keeps the order in which blocks became idle
        self._spare: dict[int, None] = {}  # idle, and the first to go
        self._on_evict = on_evict

    @property
    def available(self) -> int:
        """Blocks that `take` can still give."""
        return len(self._free) + len(self._spare) + len(self._idle)

    def users(self, block: int) -> int:
        """How many hold `block`."""
        return self._users[block]

    def usage(self) -> tuple[int, int, int, int]:
        """Blocks in all, used ones, of these the shared ones, and idle ones."""
        used = self.count - self.available
        return self.count, used, sum(users > 1 for users in self._users), len(self._spare) + len(self._idle)

    def take(self) -> int:
        """A block of one's own. Raises `DoesNotFit` when every block is in use."""
        if self._free:
            block = self._free.pop()
        elif idle := self._spare or self._idle:
            block = next(iter(idle))
            del idle[block]
            self._remembered[block] = 0
            if self._on_evict:
                self._on_evict(block)
        else:
            raise DoesNotFit(f"all {self.count} blocks of the KV cache are in use", hint="lower --parallel or raise -c")
        self._users[block] = 1
        return block

    def share(self, block: int) -> None:
        """One more user of a used or idle block. Raises `ValueError` for a free one."""
        if self._users[block] == 0 and not self._wake(block):
            raise ValueError(f"block {block} is free and cannot be shared")
        self._users[block] += 1

    def release(self, block: int, *, spare: bool = False) -> None:
        """One user less; a `spare` block is least worth keeping. Raises `ValueError` if there is no user."""
        if self._users[block] == 0:
            raise ValueError(f"block {block} is released more often than taken")
        self._users[block] -= 1
        if self._users[block] == 0:
            if self._remembered[block]:
                (self._spare if spare else self._idle)[block] = None
            else:
                self._free.append(block)

    def remember(self, block: int) -> None:
        """The content of this used block is worth keeping after its last user leaves."""
        if self._users[block] == 0:
            raise ValueError(f"block {block} is not in use")
        self._remembered[block] = 1

    def disregard(self, block: int) -> None:
        """The content of this block is worth nothing after all."""
        self._remembered[block] = 0
        if self._wake(block):
            self._free.append(block)

    def _wake(self, block: int) -> bool:
        """Take `block` from the idle ones; False if it was none."""
        for idle in (self._idle, self._spare):
            if block in idle:
                del idle[block]
                return True
        return False


class BlockStore(Protocol):
    """Where full blocks are kept longer than the cache has room for them, found by their content."""

    def names(self, tokens: Sequence[int], count: int) -> Sequence[bytes]:
        """The names of the first `count` blocks of `tokens`: other tokens up to a block's end, another name."""
        ...

    def __contains__(self, name: object) -> bool: ...

    def fetch(self, name: bytes, block: int) -> bool:
        """Bring what is kept under `name` into `block` of the cache; False if it is of no use."""
        ...

    def short(self, tokens: Sequence[int], count: int) -> bytes:
        """The name of the block after the first `count` ones when it lacks but its last token."""
        ...

    def used(self, names: Sequence[bytes]) -> None:
        """These are the first blocks of a text that is in use."""
        ...

    def drop(self, name: bytes) -> None:
        """Keep this block no longer."""
        ...

    def keep(self, name: bytes, block: int, at: int) -> None:
        """Keep what is in `block`, the one `at` this place of the text that was told of last in `used`. What is there
        already is not kept twice."""
        ...


class Group:
    """The blocks of the layers whose queries see the last `window` tokens, 0: all. There are `count` of them for all
    sequences, and one sequence has at most `most` at a time; `on_evict` as in `BlockAllocator`."""

    def __init__(self, window: int, count: int, most: int, on_evict: Callable[[int], None]) -> None:
        self.window = window
        self.most = most
        self.allocator = BlockAllocator(count, on_evict)
        self.disk: BlockStore | None = None

    def first(self, position: int) -> int:
        """The first block of its text that a row at `position` sees."""
        return max(0, position + 1 - self.window) // BLOCK_TOKENS if self.window else 0

    def needed(self, count: int) -> int:
        """The first block that must be there for a text to be taken up after `count` blocks: the last one must."""
        return max(0, min(self.first(count * BLOCK_TOKENS), count - 1))

    def names(self, tokens: Sequence[int], count: int) -> Sequence[bytes]:
        """See `BlockStore.names`; none without a disk."""
        return () if self.disk is None else self.disk.names(tokens, count)

    def short(self, tokens: Sequence[int], count: int) -> bytes:
        """See `BlockStore.short`; nothing without a disk."""
        return b"" if self.disk is None else self.disk.short(tokens, count)

    def on_disk(self, name: bytes) -> bool:
        """Is this block there?"""
        return self.disk is not None and name in self.disk

    def fetch(self, name: bytes, block: int) -> bool:
        """See `BlockStore.fetch`; False without a disk."""
        return self.disk is not None and self.disk.fetch(name, block)
