"""Layers that look back on a window only: whatever a row sees is what was written there, and the rest is given back."""

import random
from collections.abc import Sequence

import pytest

from localinfer.config import window_blocks
from localinfer.errors import DoesNotFit
from localinfer.kv.blocks import BLOCK_TOKENS, NONE, blocks_for
from localinfer.kv.cache import PagedCache
from localinfer.kv.lease import Lease

SLOTS, CONTEXT, ROWS = 4, 480, 70
Text = tuple[int, ...]


class Store:
    """The blocks of each group: what a place was made of, which is all of its text up to there."""

    def __init__(self, cache: PagedCache) -> None:
        nothing: list[Text] = [()] * BLOCK_TOKENS
        self.made = [[list(nothing) for _ in range(group.allocator.count)] for group in cache.groups]

    def put(self, group: int, block: int, at: int, text: Text) -> None:
        assert block != NONE
        self.made[group][block][at % BLOCK_TOKENS] = text

    def got(self, group: int, block: int, at: int) -> Text:
        assert block != NONE
        return self.made[group][block][at % BLOCK_TOKENS]


class Disk:
    """The blocks of one group by their texts; some files break."""

    def __init__(self, store: Store, group: int, rng: random.Random) -> None:
        self.store, self.group, self.rng = store, group, rng
        self.kept: dict[bytes, list[Text]] = {}

    def names(self, tokens: Sequence[int], count: int) -> list[bytes]:
        return [bytes(tokens[: (i + 1) * BLOCK_TOKENS]) for i in range(count)]

    def short(self, tokens: Sequence[int], count: int) -> bytes:
        return bytes(tokens[: (count + 1) * BLOCK_TOKENS - 1])

    def __contains__(self, name: object) -> bool:
        return name in self.kept

    def fetch(self, name: bytes, block: int) -> bool:
        if self.rng.random() < 0.05:
            del self.kept[name]
            return False
        self.store.made[self.group][block] = list(self.kept[name])
        return True

    def used(self, names: Sequence[bytes]) -> None:
        """Nothing is ever too old here."""

    def drop(self, name: bytes) -> None:
        self.kept.pop(name, None)

    def keep(self, name: bytes, block: int, at: int) -> None:
        if self.rng.random() < 0.7:
            self.kept[name] = list(self.store.made[self.group][block])


class Storm:
    """Texts that open, read on, guess, are cut, spoiled and left."""

    def __init__(self, seed: int, windows: Sequence[int], *, disk: bool, tight: bool, reuse: bool) -> None:
        self.rng = random.Random(seed)
        width = blocks_for(CONTEXT)
        blocks = [width + 3 if tight else SLOTS * width] * len(windows)
        self.cache = PagedCache(slots=SLOTS, context=CONTEXT, blocks=blocks, windows=windows, rows=ROWS, reuse=reuse)
        self.store = Store(self.cache)
        self.sent: list[list[list[int]]] = [[[] for _ in range(SLOTS)] for _ in windows]
        for number, group in enumerate(self.cache.groups if disk else ()):
            group.disk = Disk(self.store, number, self.rng)
        self.live: list[tuple[Lease, list[int], int]] = []
        self.hits = self.full = self.cuts = 0

    def new_text(self, most: int) -> list[int]:
        return [self.rng.randrange(2)] * self.rng.randint(1, most) + [self.rng.randrange(2)] * self.rng.randint(1, 40)

    def step(self) -> None:
        action = self.rng.random()
        if not self.live or (action < 0.1 and len(self.live) < SLOTS):
            self.open(self.new_text(CONTEXT - 60))
        elif action < 0.16 and len(self.live) < SLOTS:
            _, tokens, _ = self.rng.choice(self.live)
            self.open([*tokens[: self.rng.randint(1, len(tokens))], *self.new_text(3)])
        else:
            act = self.grow if action < 0.86 else self.cut if action < 0.92 else self.leave
            act(self.rng.randrange(len(self.live)))

    def open(self, tokens: list[int]) -> None:
        tokens = tokens[: CONTEXT - 40]
        before = [group.allocator.available for group in self.cache.groups]
        needs = self.cache.needs(tokens, len(tokens))
        lease = self.cache.open(tokens, [self.rng.randint(1, len(tokens)) for _ in range(2)])
        taken = [b - group.allocator.available for b, group in zip(before, self.cache.groups, strict=True)]
        if not any(group.disk for group in self.cache.groups):
            assert all(one <= most for one, most in zip(taken, needs, strict=True))
        assert lease.cached < len(tokens)
        self.hits += lease.cached > 0
        self.live.append((lease, tokens, lease.cached))

    def grow(self, which: int) -> None:
        """One step: known rows, or the last one and guesses, of which some are right."""
        lease, tokens, computed = self.live[which]
        end = min(len(tokens), computed + self.rng.randint(1, ROWS - 20))
        drafts = [self.rng.randrange(2) for _ in range(self.rng.randint(0, 20))] if end == len(tokens) else []
        whole = [*tokens[:end], *drafts]
        try:
            self.cache.reserve(lease, len(whole))
        except DoesNotFit:
            assert any(group.allocator.available == 0 for group in self.cache.groups)
            self.full += 1
            self.leave(which)
            return
        self.compute(lease, whole, computed)
        good = self.rng.randint(0, len(drafts))
        if end == len(tokens):
            tokens += [*drafts[:good], self.rng.randrange(2)]
            good = min(good, len(tokens) - 1 - end)
        self.cache.publish(lease, tokens, end + good, good)
        if self.rng.random() < 0.5:
            self.cache.prove(lease)
        self.live[which] = lease, tokens, end + good
        if self.rng.random() < 0.01:
            self.cache.spoil(lease, tokens)
            self.leave(which)
        elif len(tokens) > CONTEXT - 40:
            self.leave(which)

    def compute(self, lease: Lease, tokens: list[int], start: int) -> None:
        """As a program: all rows are written, then each sees what is before it; nothing else is looked at. The tables
        are kept up to date as a runner keeps them."""
        sent, lease.sent = lease.sent, len(lease.blocks)
        for number, group in enumerate(self.cache.groups):
            table = lease.tables[number]
            sent_table = self.sent[number][lease.slot]
            sent_table[sent:] = table[sent:]
            assert sent_table == table
            for at in range(start, len(tokens)):
                assert group.allocator.users(table[at // BLOCK_TOKENS]) == 1
                self.store.put(number, table[at // BLOCK_TOKENS], at, tuple(tokens[: at + 1]))
            for row in {start, len(tokens) - 1}:
                for at in range(max(0, row + 1 - group.window) if group.window else 0, row + 1):
                    assert self.store.got(number, table[at // BLOCK_TOKENS], at) == tuple(tokens[: at + 1])

    def cut(self, which: int) -> None:
        lease, tokens, computed = self.live[which]
        keep = self.rng.randint(0, computed)
        left = self.cache.truncate(lease, tokens, keep)
        assert left <= keep
        self.cuts += left > 0
        self.live[which] = lease, [*tokens[:left], *self.new_text(30)][: CONTEXT - 40], left

    def leave(self, which: int) -> None:
        self.cache.close(self.live.pop(which)[0])

    def check(self) -> None:
        """Blocks are counted once, and between two steps nobody holds more than its windows."""
        for number, group in enumerate(self.cache.groups):
            held = [block for lease, _, _ in self.live for block in lease.tables[number] if block != NONE]
            assert all(group.allocator.users(block) == held.count(block) for block in range(group.allocator.count))
            assert group.allocator.available == group.allocator.count - len(set(held))
            for lease, _, computed in self.live:
                mine = sum(block != NONE for block in lease.tables[number])
                assert not group.window or mine <= min(group.most, window_blocks(group.window, ROWS))
                assert lease.behind[number] == len(lease.tables[number]) - mine
                assert lease.behind[number] <= group.first(computed)


@pytest.mark.parametrize("disk", [False, True], ids=["memory", "disk"])
@pytest.mark.parametrize("tight", [False, True], ids=["roomy", "tight"])
@pytest.mark.parametrize("windows", [(0,), (64, 0), (0, 33), (40,), (1,), (8, 100, 0)], ids=str)
def test_rows_see_what_was_written(windows: tuple[int, ...], tight: bool, disk: bool) -> None:
    for seed in range(2):
        storm = Storm(seed, windows, disk=disk, tight=tight, reuse=seed == 0)
        for _ in range(800):
            storm.step()
            storm.check()
        assert storm.full > 0 or not tight or 0 not in windows
        assert storm.hits > 10 or seed == 1
        assert storm.cuts > 5
        while storm.live:
            storm.leave(0)
        storm.check()
        assert len(storm.cache._slots) == SLOTS


def read(cache: PagedCache, tokens: list[int], step: int = 50, marks: Sequence[int] = ()) -> int:
    """Read a text to its end and leave; how much of it was there."""
    lease = cache.open(tokens, marks)
    for end in [*range(lease.cached + step, len(tokens), step), len(tokens)]:
        cache.reserve(lease, end)
        cache.publish(lease, tokens, end)
    cache.close(lease)
    return lease.cached


@pytest.mark.parametrize("windows", [(64, 0), (64,)], ids=str)
def test_a_text_goes_on_at_its_end(windows: tuple[int, ...]) -> None:
    cache = PagedCache(slots=1, context=1024, windows=windows, rows=50)
    text = [i % 251 for i in range(900)]
    assert read(cache, text[:600]) == 0
    assert read(cache, text) == 576
    assert cache.groups[0].allocator.count == window_blocks(64, 50)


@pytest.mark.parametrize("windows", [(64, 0), (64,)], ids=str)
def test_a_marked_beginning_outlives_what_comes_after_it(windows: tuple[int, ...]) -> None:
    cache = PagedCache(slots=1, context=2048, blocks=[20, 64][: len(windows)], windows=windows, rows=50)
    text = [i % 251 for i in range(2000)]
    read(cache, text, marks=[320])
    assert read(cache, [*text[:320], *range(200)]) == 320, "its window was kept"


def test_what_is_before_a_window_is_free_for_others() -> None:
    cache = PagedCache(slots=2, context=1024, blocks=[20, 64], windows=(64, 0), rows=50)
    long = cache.open(list(range(1000)))
    for end in range(50, 1001, 50):
        cache.reserve(long, end)
        cache.publish(long, list(range(1000)), end)
        held = sum(block != NONE for block in long.tables[0])
        assert held <= window_blocks(64, 50)
        assert sum(block != NONE for block in long.tables[1]) == len(long.tables[1])
    assert cache.groups[0].allocator.available >= 20 - window_blocks(64, 0)
    assert cache.admits([5] * 700, 764, [(long, 1000)], 25)
