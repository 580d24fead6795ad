"""Where the keys and values of a running sequence live, and what of them another one may use again."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from localinfer.kv.blocks import BLOCK_TOKENS, BlockAllocator, BlockStore, blocks_for
from localinfer.kv.prefix import ROOT, PrefixIndex
from localinfer.kv.states import EVERY, States, aligned


@dataclass(slots=True)
class Lease:
    """One running sequence's place in the cache."""

    slot: int
    """Its row of the block tables; no two open leases share one."""
    cached: int = 0
    """Leading tokens whose keys and values were already there when it was opened."""
    blocks: list[int] = field(default_factory=list)
    """Block i holds tokens 32i to 32i + 31. Only the first `len(links)` may be shared with others."""
    links: list[int] = field(default_factory=list)
    """The prefix links of the leading full blocks."""
    short: bytes = b""
    """The name of the block after these, while it lacks but one token and others may be glad of it."""
    proven: int = 0
    """How many of `blocks`, the first ones, are known to be finite."""
    marks: tuple[int, ...] = ()
    """Where a later text may begin to differ, in tokens, as ends of full blocks: a recurrent state is kept there."""
    newest: int = ROOT
    """The link after whose block the newest state of generated text is kept; ROOT: there is none."""
    newest_name: bytes = b""
    """Its name on disk."""
    sent: int = 0
    """How many of `blocks` the runner's table already has; lowered here when blocks are taken back."""


class Cache(Protocol):
    """What the scheduler asks of a cache. Positions below `computed` are never written again by their sequence."""

    @property
    def count(self) -> int:
        """Blocks in all."""
        ...

    @property
    def available(self) -> int:
        """Blocks that nobody uses."""
        ...

    def needs(self, tokens: Sequence[int], end: int) -> int:
        """Of the available blocks, how many a new sequence of `tokens` takes to reach position `end`."""
        ...

    def room(self, lease: Lease, more: int) -> int:
        """One past the last position that this place has room for with `more` blocks."""
        ...

    def lacks(self, lease: Lease, end: int) -> int:
        """How many more blocks this place takes to reach position `end`."""
        ...

    def open(self, tokens: Sequence[int], marks: Sequence[int] = ()) -> Lease:
        """A place for a new sequence; `cached` of its leading tokens, never all, need not be computed. `marks` are
        lengths of beginnings that later texts are likely to share."""
        ...

    def stop(self, lease: Lease, start: int, end: int) -> int:
        """Where a step that reads known tokens from `start` on must end, at `end` at the latest."""
        ...

    def reserve(self, lease: Lease, end: int) -> None:
        """Make room for all tokens before position `end`."""
        ...

    def publish(self, lease: Lease, tokens: Sequence[int], computed: int, accepted: int = 0) -> None:
        """The first `computed` tokens are in the cache for good; others may use them. The last `accepted` of them were
        drafted."""
        ...

    def prove(self, lease: Lease) -> None:
        """A token was drawn after what is published: all of it is finite."""
        ...

    def spoil(self, lease: Lease, tokens: Sequence[int]) -> None:
        """What is computed of `tokens` leads to NaN: others may no longer use what nobody has proven."""
        ...

    def truncate(self, lease: Lease, tokens: Sequence[int], keep: int) -> int:
        """Forget what comes after the first `keep` of `tokens`; gives how many of these remain computed."""
        ...

    def rewind(self, lease: Lease, tokens: Sequence[int], computed: int) -> int:
        """A step was left before its end; gives how many of the first `computed` tokens are still computed."""
        ...

    def close(self, lease: Lease) -> None:
        """The sequence is over."""
        ...


class PagedCache:
    """Blocks of 32 tokens for `slots` sequences of at most `context` tokens; full blocks are found again by content.

    `blocks` of them are shared by all, at least as many as one sequence may need; without that number every slot has
    its full share, and a running sequence is never without a block. Blocks that are on disk are brought from there.
    With `states`, a beginning is of use only up to a block after which a recurrent state is kept.
    """

    def __init__(self, *, slots: int, context: int, blocks: int | None = None, reuse: bool = True) -> None:
        self.width = blocks_for(context)
        self.index = PrefixIndex()
        self.allocator = BlockAllocator(max(blocks or slots * self.width, self.width), self._forget)
        self._proven: set[int] = set()
        self._slots = list(range(slots - 1, -1, -1))
        self._reuse = reuse
        self.disk_cache: BlockStore | None = None
        self.states: States | None = None

    @property
    def count(self) -> int:
        return self.allocator.count

    @property
    def available(self) -> int:
        return self.allocator.available

    def needs(self, tokens: Sequence[int], end: int) -> int:
        known = self._known(tokens)
        if self.states is not None:
            while known and known[-1][0] not in self.states:
                known.pop()
        used = sum(self.allocator.users(block) > 0 for _, block in known)
        return min(blocks_for(end), self.width) - used

    def room(self, lease: Lease, more: int) -> int:
        return (len(lease.blocks) + more) * BLOCK_TOKENS

    def lacks(self, lease: Lease, end: int) -> int:
        return max(0, min(blocks_for(end), self.width) - len(lease.blocks))

    def stop(self, lease: Lease, start: int, end: int) -> int:
        if self.states is None:
            return end
        return min([end, (start // EVERY + 1) * EVERY, *(mark for mark in lease.marks if mark > start)])

    def open(self, tokens: Sequence[int], marks: Sequence[int] = ()) -> Lease:
        lease = Lease(self._slots.pop(), marks=aligned(marks))
        try:
            for link, block in self._known(tokens):
                self.allocator.share(block)
                lease.blocks.append(block)
                lease.links.append(link)
            if self.disk_cache is not None and self._reuse:
                self._bring(lease, tokens, self.disk_cache)
            if self.states is not None:
                self._resume(lease, tokens, self.states)
        except BaseException:  # reading files takes its time: an interrupt may come
            self.close(lease)
            raise
        spare = len(lease.blocks) > len(lease.links)
        lease.cached = len(lease.blocks) * BLOCK_TOKENS - spare
        return lease

    def reserve(self, lease: Lease, end: int) -> None:
        while len(lease.blocks) * BLOCK_TOKENS < end:
            lease.blocks.append(self._take())

    def publish(self, lease: Lease, tokens: Sequence[int], computed: int, accepted: int = 0) -> None:
        begin, end = len(lease.links), computed // BLOCK_TOKENS
        new = [at for at in range(begin, end) if self._seal(lease, tokens, at)]
        if new and self.disk_cache is not None and self._reuse:
            names = self.disk_cache.names(tokens, end)
            self.disk_cache.used(names)
            for at in new:
                self.disk_cache.keep(names[at], lease.blocks[at], at)
        lease.short = b""
        if self.disk_cache is not None and self._reuse and computed % BLOCK_TOKENS == BLOCK_TOKENS - 1:
            lease.short = self.disk_cache.short(tokens, end)
        if self.states is not None:
            self._follow(lease, tokens, computed, accepted, self.states)

    def prove(self, lease: Lease) -> None:
        self._proven.update(lease.blocks[lease.proven : len(lease.links)])
        lease.proven = len(lease.links)

    def spoil(self, lease: Lease, tokens: Sequence[int]) -> None:
        lease.short = b""
        names = self.disk_cache.names(tokens, len(lease.links)) if self.disk_cache is not None and self._reuse else ()
        for at, (_, block) in enumerate(self.index.find(tokens, len(lease.links))):
            if block not in self._proven:
                self._forget(block)
                self.allocator.disregard(block)
                if self.disk_cache is not None and names:
                    self.disk_cache.drop(names[at])
                if self.states is not None and self.states.disk is not None:
                    self.states.disk.drop(self.states.names(tokens, at + 1)[at])

    def truncate(self, lease: Lease, tokens: Sequence[int], keep: int) -> int:
        whole = min(keep // BLOCK_TOKENS, len(lease.links))  # a block that others may share is never written again
        lease.short = b""  # first: an interrupt may leave the rest half done
        del lease.links[whole:]
        self._release(lease, whole)
        if self.states is not None:
            self._resume(lease, tokens, self.states)
        return len(lease.links) * BLOCK_TOKENS

    def rewind(self, lease: Lease, tokens: Sequence[int], computed: int) -> int:
        return computed if self.states is None else self.truncate(lease, tokens, computed)

    def close(self, lease: Lease) -> None:
        name, at = lease.short, len(lease.links)
        lease.short = b""
        if self.disk_cache is not None and name and at < len(lease.blocks):
            self.disk_cache.keep(name, lease.blocks[at], at)
        if self.states is not None and self.states.disk is not None and lease.newest in self.states:
            self.states.keep(lease.newest, lease.newest_name, at)
        lease.links.clear()
        self._release(lease, 0)
        self._slots.append(lease.slot)

    def _follow(self, lease: Lease, tokens: Sequence[int], computed: int, accepted: int, states: States) -> None:
        """The state moves on by the accepted drafts. Where it passes the end of a block, it is kept if a later text may
        begin to differ there, and else, for generated text, until the next one."""
        stands, end = computed - accepted, len(lease.links) * BLOCK_TOKENS
        if not self._reuse or not states.count or end < max(stands, BLOCK_TOKENS):
            states.advance(lease.slot, accepted)
            return
        states.advance(lease.slot, end - stands)
        marked = end in lease.marks or end % EVERY == 0
        if marked or len(tokens) - computed <= 1:
            states.save(lease.slot, lease.links[-1])
            name = names[-1] if (names := states.names(tokens, end // BLOCK_TOKENS)) else b""
            if lease.newest != ROOT:
                states.forget(lease.newest)
            lease.newest, lease.newest_name = (ROOT, b"") if marked else (lease.links[-1], name)
            if marked:
                states.keep(lease.links[-1], name, end // BLOCK_TOKENS)
        states.advance(lease.slot, computed - end)

    def _resume(self, lease: Lease, tokens: Sequence[int], states: States) -> None:
        """Go back to the last block after which there is a state, and take that."""
        names = states.names(tokens, len(lease.links))
        while lease.links:
            count = len(lease.links)
            if states.restore(lease.links[-1], lease.slot, count * BLOCK_TOKENS, names[count - 1] if names else b""):
                break
            lease.links.pop()
        self._release(lease, len(lease.links))

    def _forget(self, block: int) -> None:
        """What was remembered of `block` is gone, and the state after it."""
        link = self.index.forget(block)
        if self.states is not None and link is not None:
            self.states.forget(link)

    def _known(self, tokens: Sequence[int]) -> list[tuple[int, int]]:
        most = (len(tokens) - 1) // BLOCK_TOKENS if self._reuse else 0  # one token must be computed, for its logits
        return self.index.find(tokens, most)

    def _seal(self, lease: Lease, tokens: Sequence[int], at: int) -> bool:
        """Block `at` of this place is full: others may find it. False if another block of the same content was there
        before."""
        part = tokens[at * BLOCK_TOKENS : (at + 1) * BLOCK_TOKENS]
        link, first = self.index.put(lease.links[-1] if lease.links else ROOT, part, lease.blocks[at])
        lease.links.append(link)
        if first:
            self.allocator.remember(lease.blocks[at])
        return first

    def _bring(self, lease: Lease, tokens: Sequence[int], disk_cache: BlockStore) -> None:
        """Take the blocks after those that are here from disk, as far as it has them and there is room."""
        count = (len(tokens) - 1) // BLOCK_TOKENS
        names = disk_cache.names(tokens, len(tokens) // BLOCK_TOKENS)
        for at in range(len(lease.blocks), count):
            if not self._fetch(lease, names[at], disk_cache):
                break
            self._seal(lease, tokens, at)
        held = len(lease.blocks)
        disk_cache.used(names[:held])
        # Of one more block all but one token may be of use. It is this text's own: it is written once more.
        if len(names) > held:
            last = [names[held]] if held == count else []  # whole, but its last token is the one to be computed
            any(self._fetch(lease, name, disk_cache) for name in (disk_cache.short(tokens, held), *last))

    def _fetch(self, lease: Lease, name: bytes, disk_cache: BlockStore) -> bool:
        """One more block for `lease` from disk; False where there is none, or no room."""
        if name not in disk_cache or not self.allocator.available:
            return False
        lease.blocks.append(self._take())
        if disk_cache.fetch(name, lease.blocks[-1]):
            return True
        self.allocator.release(lease.blocks.pop())
        return False

    def _release(self, lease: Lease, keep: int) -> None:
        while len(lease.blocks) > keep:
            self.allocator.release(lease.blocks.pop())  # the end first: it is reused before the beginning
        lease.proven = min(lease.proven, keep)
        lease.sent = min(lease.sent, keep)

    def _take(self) -> int:
        """A block whose old content is gone."""
        block = self.allocator.take()
        self._proven.discard(block)
        return block
