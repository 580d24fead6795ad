"""Random workloads on a clock that only steps move: what the scheduler promises, checked after every step.

`python -m tests.scheduler.simulation 100000` runs so many, and prints what it found.
"""

import random
import sys
from collections.abc import Sequence as Ordered
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field

from localinfer.config import kv_blocks
from localinfer.kv.cache import PagedCache
from localinfer.scheduler.chunk import LEAST_ROWS, ChunkRule
from localinfer.scheduler.scheduler import OLDEST_SHARE, Scheduler
from localinfer.scheduler.sequence import Sequence, Work

GOAL_S = 0.12
NOISE = 0.05


@dataclass
class Machine:
    """A step takes `base_s`, `row_s` for each row, and `context_s` for each row and token before it; give or take."""

    base_s: float
    row_s: float
    context_s: float
    rng: random.Random

    def expect(self, parts: Ordered[tuple[int, int]]) -> float:
        rows = sum(count for count, _ in parts)
        return self.base_s + rows * self.row_s + sum(count * before for count, before in parts) * self.context_s

    def learn(self, parts: Ordered[tuple[int, int]], seconds: float) -> None:
        """It knows already."""

    def take(self, parts: Ordered[tuple[int, int]]) -> float:
        return self.expect(parts) * self.rng.uniform(1 - NOISE, 1 + NOISE)


@dataclass
class Asked:
    """One request: when it comes and how much it is, and what was seen of it."""

    handle: int
    comes: float
    prompt: int
    answer: int
    first: float | None = None
    served: int = 0
    """Prompt rows of all requests until it came."""
    before: int = 0
    """Prompt rows that were still to be read when it came, its own among them."""


@dataclass
class Seen:
    """What a workload showed."""

    gaps: list[float] = field(default_factory=list)
    """Seconds of each step in which somebody decoded, as a share of what it might take."""
    preemptions: int = 0
    requests: int = 0


def run(seed: int) -> Seen:
    """One workload. Raises `AssertionError` where a promise is broken."""
    rng = random.Random(seed)
    row_s = 10 ** rng.uniform(-4, -2.3)
    machine = Machine(row_s * rng.uniform(1, 6), row_s, row_s * 10 ** rng.uniform(-5, -3.5), rng)
    parallel, context = rng.randint(1, 12), rng.choice([512, 1024, 4096])
    blocks = context // 32 * rng.choice([1, 1, 2, parallel])
    chunk, windows = rng.choice([32, 64, 256, 512]), rng.choice([(0,), (0,), (90, 0), (200,)])
    each = kv_blocks(windows, kv_tokens=blocks * 32, parallel=parallel, rows=chunk)
    cache = PagedCache(slots=parallel, context=context, blocks=each, windows=windows, rows=chunk)
    scheduler = Scheduler(cache, parallel=parallel, chunk=ChunkRule(chunk, GOAL_S, machine))
    asked = _requests(rng, context)
    seen = Seen(requests=len(asked))
    _play(scheduler, machine, asked, rng, seen)
    assert scheduler.idle
    assert all(group.allocator.available == group.allocator.count for group in cache.groups)
    assert all(one.first is not None for one in asked)
    seen.preemptions = scheduler.preemptions
    return seen


def _requests(rng: random.Random, context: int) -> list[Asked]:
    now, asked = 0.0, []
    for handle in range(1, rng.randint(2, 14)):
        now += rng.expovariate(rng.choice([0.5, 20, 1000]))
        prompt = min(int(2 ** rng.uniform(2, 11)), context - 2)
        asked.append(Asked(handle, now, prompt, min(int(2 ** rng.uniform(0, 8.5)), context - prompt)))
    return asked


def _play(scheduler: Scheduler, machine: Machine, asked: list[Asked], rng: random.Random, seen: Seen) -> None:
    now, coming, by_handle = 0.0, list(asked), {one.handle: one for one in asked}
    read = 0
    while coming or not scheduler.idle:
        if scheduler.idle:
            now = max(now, coming[0].comes)
        while coming and coming[0].comes <= now:
            one = coming.pop(0)
            text = [rng.randrange(3)] * one.prompt if rng.random() < 0.3 else rng.choices(range(999), k=one.prompt)
            known = scheduler.running + scheduler.waiting
            one.served, one.before = read, one.prompt + sum(s.behind for s in known)
            scheduler.add(Sequence(one.handle, text))
            if rng.random() < 0.3:
                scheduler.focused = frozenset((one.handle,))
        batch = scheduler.next_batch()
        _check_batch(scheduler, batch)
        parts = [(work.count, work.start) for work in batch]
        decoding = [(work.count, work.start) for work in batch if work.count == 1 and work.samples]
        took = machine.take(parts)
        now += took
        if decoding:
            assert isinstance(scheduler.chunk, ChunkRule)
            seen.gaps.append(took / scheduler.chunk.limit_s(decoding))
        read += sum(work.count for work in batch) - len(decoding)
        for work in batch:
            _commit(scheduler, work, by_handle[work.sequence.handle], now, read)


def _check_batch(scheduler: Scheduler, batch: list[Work]) -> None:
    """Whoever decodes has a row, limits hold, and something moves."""
    assert batch
    rows = {work.sequence.handle for work in batch}
    for sequence in scheduler.running:
        assert sequence.behind > 1 or sequence.handle in rows
    assert len(scheduler.running) <= scheduler.parallel
    decoding = sum(work.count == 1 and work.samples for work in batch)
    assert sum(work.count for work in batch) - decoding <= max(scheduler.chunk.most, LEAST_ROWS)
    for work in batch:
        assert work.sequence.lease is not None
        assert all(len(table) * 32 >= work.end for table in work.sequence.lease.tables)


def _commit(scheduler: Scheduler, work: Work, one: Asked, now: float, read: int) -> None:
    sequence = work.sequence
    if work.samples and one.first is None:
        one.first = now
        if not scheduler.preemptions and not scheduler.focused:
            assert read - one.served <= OLDEST_SHARE * one.before + scheduler.chunk.most, "starved"
    scheduler.commit(work, [1] if work.samples else [])
    if len(sequence.tokens) >= one.prompt + one.answer:
        scheduler.remove(sequence)


def percentile(values: list[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


def check_gaps(seen: Seen) -> None:
    """Of a workload's steps with decoding rows, 99 in 100 take at most 1.1 times what they may."""
    if seen.gaps:
        assert percentile(seen.gaps, 0.99) <= 1.1


def _one(seed: int) -> tuple[int, list[float], int]:
    seen = run(seed)
    check_gaps(seen)
    return seen.requests, [float(len(seen.gaps)), max(seen.gaps, default=0.0)], seen.preemptions


def main(count: int) -> None:
    with ProcessPoolExecutor() as pool:
        found = list(pool.map(_one, range(count), chunksize=100))
    requests = sum(one[0] for one in found)
    steps = int(sum(one[1][0] for one in found))
    worst = max(one[1][1] for one in found)
    preemptions = sum(one[2] for one in found)
    sys.stdout.write(
        f"{count} workloads, {requests} requests, {steps} steps with decoding rows: all promises kept;\n"
        f"the longest of these steps took {worst:.3f} of what it may; {preemptions} times a text was preempted\n"
    )


if __name__ == "__main__":
    main(int(sys.argv[1]))
