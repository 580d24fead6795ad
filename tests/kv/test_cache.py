"""The paged cache: leases share what is equal, own what they may still write, and lose nothing."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from localinfer.kv.cache import PagedCache
from localinfer.kv.lease import Lease


def fill(cache: PagedCache, tokens: list[int]) -> Lease:
    lease = cache.open(tokens)
    cache.reserve(lease, len(tokens))
    cache.publish(lease, tokens, len(tokens))
    return lease


def test_a_second_sequence_shares_the_full_blocks() -> None:
    cache = PagedCache(slots=2, context=256)
    text = list(range(100))
    one, two = fill(cache, text), fill(cache, text)
    assert (one.cached, two.cached) == (0, 96)
    assert one.blocks[:3] == two.blocks[:3]
    assert one.blocks[3] != two.blocks[3]
    assert one.slot != two.slot


def test_one_token_is_always_left_to_compute() -> None:
    cache = PagedCache(slots=1, context=256)
    text = list(range(64))
    cache.close(fill(cache, text))
    assert cache.open(text).cached == 32


def test_a_finished_sequence_is_found_again_until_its_place_is_needed() -> None:
    cache = PagedCache(slots=1, context=64)
    cache.close(fill(cache, list(range(64))))
    cache.close(fill(cache, list(range(1000, 1030))))
    lease = cache.open([*range(64), 5])
    assert lease.cached == 32, "the end of the older text went first"


def test_reuse_can_be_off() -> None:
    cache = PagedCache(slots=1, context=128, reuse=False)
    cache.close(fill(cache, list(range(100))))
    assert cache.open(list(range(100))).cached == 0


@pytest.mark.parametrize(("keep", "left"), [(0, 0), (31, 0), (32, 32), (70, 64), (100, 96)])
def test_truncate_keeps_whole_blocks_only(keep: int, left: int) -> None:
    cache = PagedCache(slots=1, context=256)
    lease = fill(cache, list(range(100)))
    lease.sent = len(lease.blocks)
    assert cache.truncate(lease, list(range(100)), keep) == left
    assert len(lease.blocks) * 32 == left
    assert lease.sent == len(lease.blocks)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 1 << 30), slots=st.integers(1, 4), context=st.sampled_from([32, 64, 100, 160]))
def test_no_block_is_lost_and_none_is_written_by_two(seed: int, slots: int, context: int) -> None:
    """Random openings, growth, truncation and closing; a cell that holds a token is never taken for another."""
    rng = random.Random(seed)
    cache = PagedCache(slots=slots, context=context)
    cells: dict[tuple[int, int], tuple[int, ...]] = {}  # (block, place) → all tokens up to there: what KV depends on
    open_ones: list[tuple[Lease, list[int], int]] = []
    for _ in range(80):
        action = rng.random()
        if action < 0.4 and len(open_ones) < slots:
            tokens = [rng.randrange(2) if rng.random() < 0.1 else 0 for _ in range(rng.randint(1, context))]
            lease = cache.open(tokens)
            assert lease.cached < len(tokens)
            for at in range(lease.cached):
                assert cells[lease.blocks[at // 32], at % 32] == tuple(tokens[: at + 1])
            open_ones.append((lease, tokens, lease.cached))
        elif open_ones:
            i = rng.randrange(len(open_ones))
            lease, tokens, computed = open_ones[i]
            if action < 0.8:
                end = rng.randint(computed, len(tokens))
                cache.reserve(lease, end)
                for at in range(computed, end):
                    cells[lease.blocks[at // 32], at % 32] = tuple(tokens[: at + 1])
                cache.publish(lease, tokens, end)
                open_ones[i] = lease, tokens, end
            elif action < 0.9:
                open_ones[i] = lease, tokens, cache.truncate(lease, tokens, rng.randint(0, computed))
            else:
                cache.close(lease)
                del open_ones[i]
        for lease, tokens, computed in open_ones:
            for at in range(computed):
                assert cells[lease.blocks[at // 32], at % 32] == tuple(tokens[: at + 1])
    for lease, _, _ in open_ones:
        cache.close(lease)
    assert cache.allocator.available == cache.allocator.count
