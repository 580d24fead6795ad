"""Who runs next. One rule: computed tokens catch up with known tokens, and everybody moves in every step."""

from collections import deque
from collections.abc import Sequence as Ordered

from localinfer.kv.cache import Cache
from localinfer.scheduler.sequence import Sequence, Work


class Scheduler:
    """At most `parallel` sequences run; the others wait in the order they came.

    A step holds one row of every sequence that decodes and, shared among those that still read their prompt, `chunk`
    prompt tokens. Half of these go to the sequence that has run longest, so that none starves; the rest to the shortest
    remainder first, so that a short prompt does not wait behind a long one.
    """

    def __init__(self, cache: Cache, *, parallel: int, chunk: int) -> None:
        self.cache = cache
        self.parallel = parallel
        self.chunk = chunk
        self.running: list[Sequence] = []
        self.waiting: deque[Sequence] = deque()

    @property
    def idle(self) -> bool:
        return not self.running and not self.waiting

    def add(self, sequence: Sequence) -> None:
        """Let `sequence` wait for its turn. It has at least one token."""
        self.waiting.append(sequence)

    def next_batch(self) -> list[Work]:
        """The rows of the next step, the decoding sequences first; empty when nobody is here.

        Nothing is computed or known after this that was not before: calling it twice gives the same rows.
        """
        self._admit()
        decoding = [Work(s, s.computed, 1) for s in self.running if s.behind == 1]
        reading = [s for s in self.running if s.behind > 1]
        batch = decoding + self._share_chunk(reading)
        for work in batch:
            self.reserve(work)
        return batch

    def reserve(self, work: Work) -> None:
        """Make room in the cache for the rows of `work`, drafts included."""
        assert work.sequence.lease is not None
        self.cache.reserve(work.sequence.lease, work.end)

    def commit(self, work: Work, tokens: Ordered[int]) -> None:
        """The step is done: the rows of `work` are computed and `tokens` follow them.

        Drafts that `tokens` begins with were computed with the right input and count; the others are forgotten.
        """
        sequence = work.sequence
        assert sequence.lease is not None
        accepted = 0
        for draft, token in zip(work.drafts, tokens, strict=False):
            if draft != token:
                break
            accepted += 1
        sequence.tokens.extend(tokens)
        sequence.computed = min(work.start + work.count + accepted, len(sequence.tokens))
        self.cache.publish(sequence.lease, sequence.tokens, sequence.computed)

    def shift(self, sequence: Sequence, keep: int, drop: int) -> None:
        """Forget `drop` tokens after the first `keep`. What follows moves to other positions and is computed again."""
        del sequence.tokens[keep : keep + drop]
        if sequence.lease is not None:
            sequence.computed = self.cache.truncate(sequence.lease, min(keep, sequence.computed))

    def remove(self, sequence: Sequence) -> None:
        """`sequence` is over, or nobody wants it any more; its place is free at once."""
        if sequence.lease is not None:
            self.running.remove(sequence)
            self.cache.close(sequence.lease)
            sequence.lease = None
        else:
            self.waiting.remove(sequence)

    def _admit(self) -> None:
        while self.waiting and len(self.running) < self.parallel:
            sequence = self.waiting[0]
            sequence.lease = self.cache.open(sequence.tokens)
            sequence.computed = sequence.lease.cached
            self.running.append(self.waiting.popleft())

    def _share_chunk(self, reading: list[Sequence]) -> list[Work]:
        if not reading:
            return []
        oldest = reading[0]
        given = {oldest.handle: min(oldest.behind, -(-self.chunk // 2))}
        left = self.chunk - given[oldest.handle]
        for sequence in sorted(reading, key=lambda s: s.behind):
            more = min(left, sequence.behind - given.get(sequence.handle, 0))
            given[sequence.handle] = given.get(sequence.handle, 0) + more
            left -= more
        return [Work(s, s.computed, given[s.handle]) for s in reading if given[s.handle]]
