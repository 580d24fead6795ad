"""Who runs in a step: everybody who decodes, and a fair share of the prompts."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from localinfer.kv.cache import PagedCache
from localinfer.scheduler.scheduler import Scheduler
from localinfer.scheduler.sequence import Sequence, Work
from localinfer.speculation.verify import sample_and_match


def scheduler(*, parallel: int = 4, chunk: int = 8, context: int = 256) -> Scheduler:
    return Scheduler(PagedCache(slots=parallel, context=context), parallel=parallel, chunk=chunk)


def rows(batch: list[Work]) -> list[tuple[int, int, int]]:
    return [(work.sequence.handle, work.start, work.count) for work in batch]


def run(s: Scheduler, batch: list[Work]) -> None:
    for work in batch:
        s.commit(work, [0] if work.samples else [])


def prompt(handle: int, length: int) -> Sequence:
    return Sequence(handle, [handle * 1000 + i for i in range(length)])


def test_nobody_is_here() -> None:
    s = scheduler()
    assert s.next_batch() == []
    assert s.idle


def test_a_prompt_is_read_in_chunks_then_decoded_row_by_row() -> None:
    s = scheduler(chunk=8)
    s.add(prompt(1, 20))
    seen = []
    for _ in range(5):
        batch = s.next_batch()
        seen += [(work.start, work.count, work.samples) for work in batch]
        run(s, batch)
    assert seen == [(0, 8, False), (8, 8, False), (16, 4, True), (20, 1, True), (21, 1, True)]


def test_asking_twice_changes_nothing() -> None:
    """A step that was interrupted is simply done again."""
    s = scheduler()
    s.add(prompt(1, 20))
    first = rows(s.next_batch())
    assert rows(s.next_batch()) == first
    run(s, s.next_batch())
    assert rows(s.next_batch()) == [(1, 8, 8)]


def test_those_who_decode_are_never_held_up() -> None:
    s = scheduler(parallel=3, chunk=4)
    s.add(prompt(1, 2))
    run(s, s.next_batch())
    s.add(prompt(2, 100))
    s.add(prompt(3, 100))
    for _ in range(20):
        batch = s.next_batch()
        assert rows(batch)[0][0] == 1
        assert rows(batch)[0][2] == 1
        assert sum(work.count for work in batch[1:]) == 4
        run(s, batch)


def test_a_short_prompt_does_not_wait_behind_a_long_one() -> None:
    s = scheduler(parallel=2, chunk=8)
    s.add(prompt(1, 200))
    run(s, s.next_batch())
    s.add(prompt(2, 8))
    steps = 0
    while s.running[-1].handle != 2 or s.running[-1].computed < 8:
        run(s, s.next_batch())
        steps += 1
    assert steps == 2


def test_of_two_equal_prompts_the_first_is_done_first() -> None:
    s = scheduler(parallel=2, chunk=8)
    s.add(prompt(1, 16))
    s.add(prompt(2, 16))
    assert rows(s.next_batch()) == [(1, 0, 8)]


def test_the_rest_wait_in_order() -> None:
    s = scheduler(parallel=2)
    for handle in (1, 2, 3, 4):
        s.add(prompt(handle, 1))
    assert [work.sequence.handle for work in s.next_batch()] == [1, 2]
    s.remove(s.running[0])
    assert [work.sequence.handle for work in s.next_batch()] == [2, 3]
    s.remove(s.waiting[0])
    s.remove(s.running[0])
    assert [work.sequence.handle for work in s.next_batch()] == [3]


@pytest.mark.parametrize(
    ("tokens", "computed"), [([5, 6, 7, 8], 14), ([5, 6, 9], 13), ([9], 11), ([5], 12), ([5, 6, 7], 14)]
)
def test_drafts_count_as_far_as_they_were_right(tokens: list[int], computed: int) -> None:
    """10 tokens are computed and one more is known; the drafts were 5, 6, 7."""
    s = scheduler(chunk=16)
    s.add(prompt(1, 11))
    s.next_batch()
    sequence = s.running[0]
    sequence.computed = 10
    work = Work(sequence, 10, 1, [5, 6, 7])
    s.reserve(work)
    s.commit(work, tokens)
    assert sequence.computed == min(computed, len(sequence.tokens))
    assert sequence.tokens[11:] == tokens


def test_shift_keeps_the_beginning_and_computes_the_rest_again() -> None:
    s = scheduler(chunk=256)
    s.add(prompt(1, 200))
    run(s, s.next_batch())
    sequence = s.running[0]
    s.shift(sequence, keep=40, drop=100)
    assert sequence.tokens == [*range(1000, 1040), *range(1140, 1200), 0]
    assert sequence.computed == 32
    assert rows(s.next_batch()) == [(1, 32, 69)]


def test_a_waiting_sequence_can_be_shortened() -> None:
    s = scheduler()
    waiting = prompt(1, 20)
    s.shift(waiting, keep=2, drop=10)
    assert len(waiting.tokens) == 10


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 1 << 30), parallel=st.integers(1, 5), chunk=st.integers(1, 40))
def test_everybody_ends_and_every_block_comes_back(seed: int, parallel: int, chunk: int) -> None:
    """Random arrivals, lengths, drafts, shifts and cancellations. Every step respects the limits and moves everyone."""
    rng = random.Random(seed)
    s = scheduler(parallel=parallel, chunk=chunk, context=128)
    left: dict[int, int] = {}
    handle = 0
    for step in range(3000):
        if step < 60 and rng.random() < 0.3:
            handle += 1
            s.add(Sequence(handle, [rng.randrange(2) for _ in range(rng.randint(1, 100))]))
            left[handle] = rng.randint(1, 20)
        batch = s.next_batch()
        if not batch and step >= 60:
            break
        decoding = [w for w in batch if w.count == 1 and w.samples]
        assert {s_.handle for s_ in s.running if s_.behind == 1} <= {w.sequence.handle for w in decoding}
        assert sum(w.count for w in batch) <= chunk + parallel
        assert len(s.running) <= parallel
        for work in batch:
            sequence = work.sequence
            if work.samples and work.count == 1:
                work.drafts = [rng.randrange(2) for _ in range(min(rng.randint(0, 3), 127 - work.end))]
                s.reserve(work)
            tokens = sample_and_match(work.drafts, lambda i, taken: rng.randrange(2)) if work.samples else []
            s.commit(work, tokens)
            assert sequence.computed < len(sequence.tokens)
            left[sequence.handle] -= len(tokens)
            if left[sequence.handle] <= 0 or rng.random() < 0.01:
                s.remove(sequence)
            elif len(sequence.tokens) > 110:
                s.shift(sequence, 10, 50)
    assert s.idle
    assert isinstance(s.cache, PagedCache)
    assert s.cache.allocator.available == s.cache.allocator.count
