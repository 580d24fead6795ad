"""What the scheduler promises, on random workloads and in the cases it was made for."""

import random

import pytest

from localinfer.kv.cache import PagedCache
from localinfer.scheduler.chunk import ChunkRule
from localinfer.scheduler.scheduler import Scheduler
from localinfer.scheduler.sequence import Sequence
from tests.scheduler import simulation


@pytest.mark.parametrize("first", range(0, 1000, 250))
def test_random_workloads(first: int) -> None:
    preemptions = 0
    for seed in range(first, first + 250):
        seen = simulation.run(seed)
        simulation.check_gaps(seen)
        preemptions += seen.preemptions
    assert preemptions > 0


@pytest.mark.parametrize("decoding", [0, 1, 5])
@pytest.mark.parametrize("row_s", [0.0002, 0.002])
def test_a_short_prompt_behind_a_long_one_begins_within_three_chunks(decoding: int, row_s: float) -> None:
    machine = simulation.Machine(row_s, row_s, row_s * 1e-5, random.Random(1))
    cache = PagedCache(slots=8, context=40_000, blocks=4000)
    scheduler = Scheduler(cache, parallel=8, chunk=ChunkRule(256, 0.12, machine))
    for handle in range(decoding):
        scheduler.add(Sequence(handle, [handle]))
    scheduler.add(Sequence(100, [1] * 32_768))
    short = Sequence(101, [2] * 20)
    for step in range(40):
        if step == 10:
            scheduler.add(short)
        for work in scheduler.next_batch():
            scheduler.commit(work, [3] if work.samples else [])
        if len(short.tokens) > 20:
            break
    assert step - 10 < 3


def test_who_is_looked_at_is_read_first() -> None:
    scheduler = Scheduler(PagedCache(slots=4, context=4096), parallel=4, chunk=64)
    for handle, length in ((1, 400), (2, 300), (3, 200)):
        scheduler.add(Sequence(handle, [handle] * length))
    scheduler.focused = frozenset((2,))
    assert [(work.sequence.handle, work.count) for work in scheduler.next_batch()] == [(2, 64)]


def test_the_last_one_is_parked_and_goes_on_from_what_is_left() -> None:
    preempted: list[int] = []
    cache = PagedCache(slots=4, context=256, blocks=12)
    scheduler = Scheduler(cache, parallel=4, chunk=512, on_preempt=lambda sequence: preempted.append(sequence.handle))
    for handle in (1, 2):
        scheduler.add(Sequence(handle, [handle] * 90))
    last = None
    for _ in range(400):
        for work in scheduler.next_batch():
            if preempted and work.sequence.handle == preempted[0] and last is None:
                last = work
            scheduler.commit(work, [7] if work.samples else [])
            if len(work.sequence.tokens) == 250:
                scheduler.remove(work.sequence)
    assert preempted == [2]
    assert last is not None
    assert last.start >= 96  # what still lay in its blocks was not computed again
    assert scheduler.idle
    assert cache.available == cache.count


def test_a_goal_that_decoding_alone_misses_still_lets_prompts_in() -> None:
    machine = simulation.Machine(0.5, 0.1, 0, random.Random(1))
    rule = ChunkRule(256, 0.12, machine)
    assert rule.rows([(1, 0)], 0) == 8
    assert rule.rows([], 0) == 256
    assert rule.rows([(1, 0)] * 20, 0) == 8
