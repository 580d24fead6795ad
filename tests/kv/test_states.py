"""Recurrent states beside the cache: what a slot holds is always what its text has made of it."""

import random
from collections.abc import Sequence

import pytest

from localinfer.kv.blocks import BLOCK_TOKENS
from localinfer.kv.cache import PagedCache
from localinfer.kv.lease import Lease
from localinfer.kv.states import EVERY, States, aligned

SLOTS, CONTEXT = 3, 320


class Store:
    """A state is the tokens that it was made of; drafted ones wait behind it."""

    def __init__(self, places: int) -> None:
        self.states: list[tuple[int, ...]] = [()] * places
        self.drafted: dict[int, tuple[int, ...]] = {}

    def step(self, slot: int, start: int, known: list[int], drafts: list[int]) -> None:
        """As a program: a text that begins anew begins with an empty state, any other goes on where it stands."""
        before = self.states[slot] if start else ()
        assert len(before) == start
        self.states[slot] = (*before, *known)
        self.drafted[slot] = tuple(drafts)

    def advance_state(self, slot: int, rows: int) -> None:
        self.states[slot] += self.drafted[slot][:rows]
        self.drafted[slot] = self.drafted[slot][rows:]

    def copy_state(self, from_: int, to: int, position: int = 0) -> None:
        self.states[to] = self.states[from_]
        assert to >= SLOTS or len(self.states[to]) == position


class Disk:
    """States by the text they come after."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.kept: dict[bytes, tuple[int, ...]] = {}

    def names(self, tokens: Sequence[int], count: int) -> list[bytes]:
        return [bytes(tokens[: (i + 1) * BLOCK_TOKENS]) for i in range(count)]

    def __contains__(self, name: object) -> bool:
        return name in self.kept

    def fetch(self, name: bytes, block: int) -> bool:
        self.store.states[block] = self.kept[name]
        return True

    def short(self, tokens: Sequence[int], count: int) -> bytes:
        return b""

    def used(self, names: Sequence[bytes]) -> None:
        """Nothing is ever too old here."""

    def drop(self, name: bytes) -> None:
        self.kept.pop(name, None)

    def keep(self, name: bytes, block: int, at: int) -> None:
        self.kept[name] = self.store.states[block]


def make(snapshots: int, *, disk: bool = False, reuse: bool = True) -> tuple[PagedCache, Store]:
    cache, store = PagedCache(slots=SLOTS, context=CONTEXT, blocks=24, reuse=reuse), Store(SLOTS + snapshots)
    cache.states = States(store, SLOTS, snapshots, Disk(store) if disk else None)
    return cache, store


def read(cache: PagedCache, store: Store, lease: Lease, tokens: list[int], start: int, end: int) -> None:
    """Compute tokens[start:end], in steps that end where the cache says."""
    while start < end:
        stop = cache.stop(lease, start, end)
        assert start < stop <= end
        cache.reserve(lease, stop)
        store.step(lease.slot, start, tokens[start:stop], [])
        cache.publish(lease, tokens, stop)
        start = stop


@pytest.mark.parametrize("mark", [32, 50, 64, 99])
def test_a_text_is_taken_up_where_it_was_said_to_differ(mark: int) -> None:
    cache, store = make(4)
    text = list(range(100))
    lease = cache.open(text, [mark])
    read(cache, store, lease, text, 0, 100)
    cache.close(lease)
    again = cache.open([*text[:mark], *range(200, 230)])
    assert again.cached == mark // 32 * 32
    assert store.states[again.slot] == tuple(text[: again.cached])


def test_without_a_mark_nothing_of_a_prompt_is_kept() -> None:
    cache, store = make(4)
    text = list(range(100))
    lease = cache.open(text)
    read(cache, store, lease, text, 0, 99)
    cache.close(lease)
    assert cache.open(text).cached == 0


def test_generated_text_is_taken_up_at_its_last_block() -> None:
    cache, store = make(4)
    text = list(range(100))
    lease = cache.open(text)
    read(cache, store, lease, text, 0, 60)
    for end in range(61, 100):
        read(cache, store, lease, text[:end], end - 1, end)
    assert cache.states is not None
    assert cache.states.held == 1, "the older ones make room"
    cache.close(lease)
    assert cache.open([*text, 7]).cached == 96


def test_a_long_text_has_snapshots_on_its_way() -> None:
    cache, store = PagedCache(slots=SLOTS, context=3 * EVERY), Store(SLOTS + 4)
    cache.states = States(store, SLOTS, 4)
    text = [i % 251 for i in range(2 * EVERY + 9)]
    lease = cache.open(text)
    for start in range(0, len(text), 100):
        read(cache, store, lease, text, start, min(start + 100, len(text)))
    cache.close(lease)
    assert cache.open([*text[: EVERY + 40], 300]).cached == EVERY


def test_the_least_recently_used_snapshot_goes_first() -> None:
    cache, store = make(2)
    texts = [[n] * 40 for n in range(3)]
    for text in texts:
        lease = cache.open(text, [32])
        read(cache, store, lease, text, 0, 40)
        cache.close(lease)
    assert [cache.open(text).cached for text in texts] == [0, 32, 32]


def test_marks_are_ends_of_full_blocks() -> None:
    assert aligned([5, 31, 32, 70, 64]) == (32, 64)


@pytest.mark.parametrize("disk", [False, True])
@pytest.mark.parametrize("seed", range(12))
def test_a_slot_holds_what_its_text_has_made(seed: int, disk: bool) -> None:
    """Random texts with common beginnings, drafts, cuts, interrupts and preemption."""
    rng = random.Random(seed)
    cache, store = make(rng.choice((0, 1, 3, 9)), disk=disk, reuse=seed % 5 > 0)
    live: list[tuple[Lease, list[int], int]] = []
    hits = 0
    for _ in range(600):
        what = rng.random()
        if what < 0.2 and len(live) < SLOTS:
            tokens = [rng.randrange(2)] * rng.randint(1, 70) + [rng.randrange(2) for _ in range(rng.randint(1, 60))]
            lease = cache.open(tokens, [rng.randint(1, len(tokens))])
            assert lease.cached == 0 or store.states[lease.slot] == tuple(tokens[: lease.cached])
            hits += lease.cached > 0
            live.append((lease, tokens, lease.cached))
            continue
        if not live:
            continue
        lease, tokens, computed = live.pop(rng.randrange(len(live)))
        if what > 0.9 or len(tokens) > CONTEXT - 40:
            cache.close(lease)
            continue
        if what > 0.85:
            del tokens[rng.randint(1, len(tokens)) :]
            computed = cache.truncate(lease, tokens, min(computed, len(tokens) - 1))
        elif what > 0.8:
            store.states[lease.slot] = (-1,)  # an interrupted step leaves anything
            computed = cache.rewind(lease, tokens, computed)
        elif computed < len(tokens) - 1:
            end = min(len(tokens), computed + rng.randint(1, 80))
            end = cache.stop(lease, computed, end)
            cache.reserve(lease, end)
            store.step(lease.slot, computed, tokens[computed:end], [])
            if end == len(tokens):
                tokens.append(rng.randrange(2))
            computed = end
            cache.publish(lease, tokens, end)
        else:
            drafts = [rng.randrange(2) for _ in range(rng.randint(0, 16))]
            good = rng.randint(0, len(drafts))
            cache.reserve(lease, len(tokens) + len(drafts))
            store.step(lease.slot, computed, tokens[computed:], drafts)
            tokens += [*drafts[:good], rng.randrange(2)]
            computed = len(tokens) - 1
            cache.publish(lease, tokens, computed, good)
        assert computed == 0 or store.states[lease.slot] == tuple(tokens[:computed])
        live.append((lease, tokens, computed))
    if cache.states is not None and cache.states.count >= SLOTS and seed % 5:
        assert hits > 0
