"""Which KV blocks are in use, by how many, and which comes next. Integers only; the bytes live in native code."""

from collections.abc import Callable, Sequence
from typing import Protocol

from localinfer.config import BLOCK_TOKENS
from localinfer.errors import DoesNotFit

__all__ = ["BLOCK_TOKENS", "BlockAllocator", "BlockStore", "blocks_for"]


def blocks_for(tokens: int) -> int:
    """How many blocks hold `tokens` tokens."""
    return -(-tokens // BLOCK_TOKENS)


class BlockAllocator:
    """`count` blocks with reference counts.

    A block is *free* (nobody, nothing worth keeping), *used* (by one or more sequences) or *idle* (nobody, but its
    content was remembered and may be shared again). Idle blocks are reused last, the longest idle one first; `on_evict`
    is then told that what was remembered of that block is gone.
    """

    def __init__(self, count: int, on_evict: Callable[[int], None] | None = None) -> None:
        self.count = count
        self._users = [0] * count
        self._remembered = bytearray(count)
        self._free = list(range(count - 1, -1, -1))
        self._idle: dict[int, None] = {}  # a dict keeps the order in which blocks became idle
        self._on_evict = on_evict

    @property
    def available(self) -> int:
        """Blocks that `take` can still give."""
        return len(self._free) + len(self._idle)

    def users(self, block: int) -> int:
        """How many hold `block`."""
        return self._users[block]

    def usage(self) -> tuple[int, int, int, int]:
        """Blocks in all, used ones, of these the shared ones, and idle ones."""
        used = self.count - self.available
        return self.count, used, sum(users > 1 for users in self._users), len(self._idle)

    def take(self) -> int:
        """A block of one's own. Raises `DoesNotFit` when every block is in use."""
        if self._free:
            block = self._free.pop()
        elif self._idle:
            block = next(iter(self._idle))
            del self._idle[block]
            self._remembered[block] = 0
            if self._on_evict:
                self._on_evict(block)
        else:
            raise DoesNotFit(f"all {self.count} blocks of the KV cache are in use", hint="lower --parallel or raise -c")
        self._users[block] = 1
        return block

    def share(self, block: int) -> None:
        """One more user of a used or idle block. Raises `ValueError` for a free one."""
        if self._users[block] == 0:
            if block not in self._idle:
                raise ValueError(f"block {block} is free and cannot be shared")
            del self._idle[block]
        self._users[block] += 1

    def release(self, block: int) -> None:
        """One user less. Raises `ValueError` if there is none."""
        if self._users[block] == 0:
            raise ValueError(f"block {block} is released more often than taken")
        self._users[block] -= 1
        if self._users[block] == 0:
            if self._remembered[block]:
                self._idle[block] = None
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
        if block in self._idle:
            del self._idle[block]
            self._free.append(block)


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
