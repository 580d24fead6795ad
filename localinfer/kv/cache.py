"""Where the keys and values of a running sequence live, and what of them another one may use again."""

from collections.abc import Callable, Iterable, Sequence
from functools import partial

from localinfer.config import window_blocks
from localinfer.kv.blocks import BLOCK_TOKENS, NONE, BlockAllocator, Group, blocks_for
from localinfer.kv.lease import Lease
from localinfer.kv.prefix import ROOT, PrefixIndex
from localinfer.kv.states import EVERY, States, aligned


class PagedCache:
    """Blocks of 32 tokens for `slots` sequences of at most `context` tokens; full blocks are found again by content.

    Layers are in groups by how far they look back: `windows` are their tokens, 0: all. Blocks of a group that lie
    before the window of a sequence's next row are given back. Each group has `blocks` for all sequences, or one number
    each, at least as many as one sequence may need; without that number every slot has its full share, and a running
    sequence is never without a block. A step holds at most `rows` rows of one sequence. Blocks that are on disk are
    brought from there. With `states`, a beginning is of use only up to a block after which a recurrent state is kept.
    """

    def __init__(
        self,
        *,
        slots: int,
        context: int,
        blocks: int | Sequence[int] | None = None,
        windows: Sequence[int] = (0,),
        rows: int = 1 << 20,
        reuse: bool = True,
    ) -> None:
        self.width = blocks_for(context)
        self.index = PrefixIndex(len(windows))
        each = [blocks] * len(windows) if blocks is None or isinstance(blocks, int) else blocks
        self.groups = list[Group]()
        for number, (window, count) in enumerate(zip(windows, each, strict=True)):
            most = min(self.width, window_blocks(window, rows)) if window else self.width
            self.groups.append(Group(window, max(count or slots * most, most), most, partial(self._forget, number)))
        self._windowed = [(number, group) for number, group in enumerate(self.groups) if group.window]
        self._slots = list(range(slots - 1, -1, -1))
        self._reuse = reuse
        self.states: States | None = None

    @property
    def allocator(self) -> BlockAllocator:
        """Of the first group."""
        return self.groups[0].allocator

    @property
    def count(self) -> int:
        """Blocks of the first group."""
        return self.allocator.count

    @property
    def available(self) -> int:
        """Of these, those that nobody uses."""
        return self.allocator.available

    def needs(self, tokens: Sequence[int], end: int) -> tuple[int, ...]:
        """Of each group's available blocks, how many a new sequence of `tokens` takes to reach position `end`."""
        links = self.index.find(tokens, self._most(tokens))
        count = self._known(links, (), (), len(links))
        blocks = min(blocks_for(end), self.width)
        return tuple(
            min(blocks, group.most)
            - sum(
                group.allocator.users(self.index.block(links[at], number)) > 0
                for at in range(group.needed(count), count)
            )
            for number, group in enumerate(self.groups)
        )

    def lacks(self, lease: Lease, end: int) -> tuple[int, ...]:
        """Of each group, how many more blocks this place takes at most to reach position `end`."""
        blocks = min(blocks_for(end), self.width)
        return tuple(
            max(0, min(blocks - len(table), group.most - len(table) + behind))
            for group, table, behind in zip(self.groups, lease.tables, lease.behind, strict=True)
        )

    def room(self, lease: Lease, among: int = 1) -> int:
        return BLOCK_TOKENS * min(
            len(table) + group.allocator.available // among
            for group, table in zip(self.groups, lease.tables, strict=True)
        )

    def admits(self, tokens: Sequence[int], end: int, others: Iterable[tuple[Lease, int]], margin: int) -> bool:
        all_needed = zip(self.needs(tokens, end), *(self.lacks(*other) for other in others), strict=True)
        return all(
            sum(needed) + group.allocator.count // margin <= group.allocator.available
            for group, needed in zip(self.groups, all_needed, strict=True)
        )

    def stop(self, lease: Lease, start: int, end: int) -> int:
        if self.states is None:
            return end
        return min([end, (start // EVERY + 1) * EVERY, *(mark for mark in lease.marks if mark > start)])

    def open(self, tokens: Sequence[int], marks: Sequence[int] = ()) -> Lease:
        lease = Lease(self._slots.pop(), marks=aligned(marks))
        lease.tables, lease.behind = [[] for _ in self.groups], [0] * len(self.groups)
        try:
            if self._reuse:
                self._take_up(lease, tokens)
        except BaseException:  # reading files takes its time: an interrupt may come
            self.close(lease)
            raise
        spare = len(lease.blocks) > len(lease.links)
        lease.cached = len(lease.blocks) * BLOCK_TOKENS - spare
        return lease

    def reserve(self, lease: Lease, end: int) -> None:
        for group, table in zip(self.groups, lease.tables, strict=True):
            while len(table) * BLOCK_TOKENS < end:
                table.append(group.allocator.take())

    def publish(self, lease: Lease, tokens: Sequence[int], computed: int, accepted: int = 0) -> None:
        begin, end = len(lease.links), computed // BLOCK_TOKENS
        lease.short = ()
        if end > begin:
            new = [(at, number) for at in range(begin, end) for number in self._seal(lease, tokens, at)]
            if new and self._reuse:
                self._write(lease, tokens, end, new)
        if computed % BLOCK_TOKENS == BLOCK_TOKENS - 1 and self._reuse:
            lease.short = [group.short(tokens, end) for group in self.groups]
        if self.states is not None:
            self._follow(lease, tokens, computed, accepted, self.states)
        if self._windowed:
            self.give_back(lease, computed)

    def prove(self, lease: Lease) -> None:
        if lease.proven < len(lease.links):
            self.index.prove(lease.links[lease.proven :])
            lease.proven = len(lease.links)

    def spoil(self, lease: Lease, tokens: Sequence[int]) -> None:
        lease.short = ()
        count = len(lease.links)
        names = [group.names(tokens, count) if self._reuse else () for group in self.groups]
        for at, link in enumerate(self.index.find(tokens, count)):
            if self.index.proven(link):
                continue
            for number, group in enumerate(self.groups):
                block = self.index.block(link, number)
                if block != NONE:
                    self._forget(number, block)
                    group.allocator.disregard(block)
                if group.disk is not None and names[number]:
                    group.disk.drop(names[number][at])
            if self.states is not None and self.states.disk is not None:
                self.states.disk.drop(self.states.names(tokens, at + 1)[at])

    def truncate(self, lease: Lease, tokens: Sequence[int], keep: int) -> int:
        lease.short = ()  # first: an interrupt may leave the rest half done
        count = min(keep // BLOCK_TOKENS, len(lease.links))  # a block that others may share is never written again
        names = () if self.states is None else self.states.names(tokens, count)
        while True:
            count = self._longest(partial(self._cost_again, lease), count)
            del lease.links[count:]
            self._release(lease, count)
            self._look_back(lease, count)
            if self._restore(lease, names, count):
                return count * BLOCK_TOKENS
            count -= 1

    def sees(self, lease: Lease, position: int) -> bool:
        """Is all there that a row at `position` looks back on?"""
        return all(lease.behind[number] <= group.first(position) for number, group in self._windowed)

    def rewind(self, lease: Lease, tokens: Sequence[int], computed: int) -> int:
        return computed if self.states is None else self.truncate(lease, tokens, computed)

    def close(self, lease: Lease) -> None:
        names, at = lease.short, len(lease.links)
        lease.short = ()
        for group, table, name in zip(self.groups, lease.tables, names, strict=False):
            if group.disk is not None and at < len(table) and not lease.private:
                group.disk.keep(name, table[at], at)
        on_disk = self.states is not None and self.states.disk is not None and not lease.private
        if self.states is not None and on_disk and lease.newest in self.states:
            self.states.keep(lease.newest, lease.newest_name, at)
        lease.links.clear()
        self._release(lease, 0)
        self._slots.append(lease.slot)

    def _most(self, tokens: Sequence[int]) -> int:
        """Blocks of `tokens` that need not be computed: one token must be, for its logits."""
        return (len(tokens) - 1) // BLOCK_TOKENS if self._reuse else 0

    def _longest(self, cost: Callable[[int, int], int | None], most: int) -> int:
        """After how many blocks, at most `most`, a text can be taken up: `cost(group, at)` are the available blocks
        that block `at` takes, None: it is nowhere. What no row from there on sees need not be there."""
        able = bytearray(b"\1") * (most + 1)
        for number, group in enumerate(self.groups):
            missing, taken = -1, [0]
            for at in range(most):
                one = cost(number, at)
                if one is None:
                    missing, one = at, 0
                taken.append(taken[at] + one)
                first = group.needed(at + 1)
                if missing >= first or taken[at + 1] - taken[first] > group.allocator.available:
                    able[at + 1] = 0
                    if not group.window:  # nor after any more blocks
                        most = at
                        break
        return able.rindex(1, 0, most + 1)

    def _cost(self, links: Sequence[int], names: Sequence[Sequence[bytes]], number: int, at: int) -> int | None:
        """That of a new text whose first blocks have these `links`, and on disk these `names`."""
        group, block = self.groups[number], self.index.block(links[at], number) if at < len(links) else NONE
        if block != NONE:
            return int(group.allocator.users(block) == 0)
        return 1 if names and at < len(names[number]) and group.on_disk(names[number][at]) else None

    def _cost_again(self, lease: Lease, number: int, at: int) -> int | None:
        """That of a text that goes back: what it holds costs nothing."""
        return 0 if lease.tables[number][at] != NONE else self._cost(lease.links, (), number, at)

    def _known(self, links: Sequence[int], names: Sequence[Sequence[bytes]], states: Sequence[bytes], most: int) -> int:
        """The blocks, at most `most`, after which all is there that a new text needs; `names` and `states` are those on
        disk."""
        while most := self._longest(partial(self._cost, links, names), most):
            link, name = links[most - 1] if most <= len(links) else ROOT, states[most - 1] if states else b""
            if self.states is None or self.states.has(link, name):
                break
            most -= 1
        return most

    def _take_up(self, lease: Lease, tokens: Sequence[int]) -> None:
        """The longest beginning of `tokens` that is here or on disk is now that of `lease`, which is empty."""
        most = self._most(tokens)
        names = [group.names(tokens, len(tokens) // BLOCK_TOKENS) for group in self.groups]
        states = () if self.states is None else self.states.names(tokens, most)
        while True:
            links = self.index.find(tokens, most)
            most = self._known(links, names, states, most)
            held = self._hold(lease, links, names, most)
            if held == most:
                self._seal_known(lease, tokens, links, most)
                if self._restore(lease, states, most):
                    break
                held -= 1
            most = held
            lease.links.clear()
            self._release(lease, 0)
        for group, known in zip(self.groups, names, strict=True):
            if group.disk is not None:
                group.disk.used(known[:most])
        if self.states is None and all(len(known) > most for known in names):
            self._take_short(lease, tokens, names)

    def _hold(self, lease: Lease, links: Sequence[int], names: Sequence[Sequence[bytes]], count: int) -> int:
        """Let `lease` have what it needs of its first `count` blocks; gives how many of them files allow."""
        for number, (group, table) in enumerate(zip(self.groups, lease.tables, strict=True)):
            lease.behind[number] = first = group.needed(count)
            table += [NONE] * first
            for at in range(first, count):
                block = self.index.block(links[at], number) if at < len(links) else NONE
                if block != NONE:
                    group.allocator.share(block)
                table.append(block)
        for number, (group, table) in enumerate(zip(self.groups, lease.tables, strict=True)):
            for at in range(lease.behind[number], count):
                if table[at] == NONE:
                    table[at] = group.allocator.take()
                    if not group.fetch(names[number][at], table[at]):
                        return at
        return count

    def _take_short(self, lease: Lease, tokens: Sequence[int], names: Sequence[Sequence[bytes]]) -> None:
        """Of one more block all but one token may be of use; of a whole one too, where its last token is the one to be
        computed. It is this text's own: it is written once more."""
        at = len(lease.links)
        for group, table, known in zip(self.groups, lease.tables, names, strict=True):
            last = [known[at]] if at == self._most(tokens) else []
            for name in (group.short(tokens, at), *last):
                if len(table) == at and group.on_disk(name) and group.allocator.available:
                    table.append(group.allocator.take())
                    if not group.fetch(name, table[-1]):
                        group.allocator.release(table.pop())
        if min(map(len, lease.tables)) == at:
            self._release(lease, at)

    def _look_back(self, lease: Lease, count: int) -> None:
        """Share again what a row after `count` blocks sees and `lease` has given back."""
        for number, group in self._windowed:
            first, behind, table = group.needed(count), lease.behind[number], lease.tables[number]
            for at in reversed(range(first, min(behind, count))):
                block = self.index.block(lease.links[at], number)
                group.allocator.share(block)
                table[at], lease.behind[number] = block, at
                lease.sent = min(lease.sent, at)

    def give_back(self, lease: Lease, position: int) -> None:
        """No row before `position` comes any more: blocks before its windows are free, those first that no mark asks
        for."""
        for number, group in self._windowed:
            table = lease.tables[number]
            for at in range(lease.behind[number], group.first(position)):
                block, table[at] = table[at], NONE
                lease.behind[number] = at + 1
                lease.sent = min(lease.sent, at)
                marked = any(group.first(mark) <= at < mark // BLOCK_TOKENS for mark in lease.marks)
                group.allocator.release(block, spare=not marked)

    def _write(self, lease: Lease, tokens: Sequence[int], end: int, new: Sequence[tuple[int, int]]) -> None:
        """Keep `new` blocks, each its place and its group, on disk as well."""
        for number, group in enumerate(self.groups):
            mine = [at for at, its in new if its == number]
            if mine and group.disk is not None and not lease.private:
                names = group.disk.names(tokens, end)
                group.disk.used(names)
                for at in mine:
                    group.disk.keep(names[at], lease.tables[number][at], at)

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
            if marked and not lease.private:
                states.keep(lease.links[-1], name, end // BLOCK_TOKENS)
        states.advance(lease.slot, computed - end)

    def _restore(self, lease: Lease, names: Sequence[bytes], count: int) -> bool:
        """The state after `count` blocks is in the slot of `lease`; False if it is nowhere. Without any, nothing is to
        be done."""
        if self.states is None or not count:
            return True
        name = names[count - 1] if names else b""
        return self.states.restore(lease.links[count - 1], lease.slot, count * BLOCK_TOKENS, name)

    def _forget(self, number: int, block: int) -> None:
        """What was remembered of `block` of that group is gone, and states that nothing leads to any more."""
        for link in self.index.forget(block, number):
            if self.states is not None:
                self.states.forget(link)

    def _seal(self, lease: Lease, tokens: Sequence[int], at: int) -> list[int]:
        """Block `at` of this place is full: others may find it. Gives the groups in which nobody had it before."""
        part = tokens[at * BLOCK_TOKENS : (at + 1) * BLOCK_TOKENS]
        link = self.index.link(lease.links[-1] if lease.links else ROOT, part)
        lease.links.append(link)
        new = list[int]()
        for number, (group, table) in enumerate(zip(self.groups, lease.tables, strict=True)):
            if table[at] != NONE and self.index.put(link, table[at], number):
                group.allocator.remember(table[at])
                new.append(number)
        return new

    def _seal_known(self, lease: Lease, tokens: Sequence[int], links: list[int], count: int) -> None:
        """So are the first `count` blocks, of which the first `links` are known already, if not of all groups."""
        if all(group.disk is None for group in self.groups):
            lease.links = links[:count]
            return
        for at in range(count):
            self._seal(lease, tokens, at)

    def _release(self, lease: Lease, keep: int) -> None:
        for number, (group, table) in enumerate(zip(self.groups, lease.tables, strict=True)):
            while len(table) > keep:
                block = table.pop()  # the end first: it is reused before the beginning
                if block != NONE:
                    group.allocator.release(block)
            lease.behind[number] = min(lease.behind[number], keep)
        lease.proven = min(lease.proven, keep)
        lease.sent = min(lease.sent, keep)
